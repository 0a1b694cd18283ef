"""Checks of the user's choices that need no dataset, so that they come before any case is read."""

from math import prod

from autocrossdim.commands.plugins import find_trainer
from autocrossdim.networks.architecture import arch_of, architecture, check_tag
from autocrossdim.records.plan import MAX_PATCH
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError
from planners.topology import SMALLEST_FEATURE_MAP

SMALLEST_IN_PLANE = 2 * SMALLEST_FEATURE_MAP  # side, so that the network can halve a patch at least once


def check_options(options: PlanOptions) -> None:
    """Check the options that do not depend on the dataset.

    Raises:
        UserError: The encoder or its tag is unknown or not supported, the trainer is not installed, or no network can
            be trained on the patch size.
    """
    check_tag(options.encoder)
    find_trainer(options.trainer)
    encoder_depths(options.encoder)
    if options.patch_size is not None:
        _check_patch_size(options.patch_size)


def encoder_depths(encoder: str) -> tuple[int, ...]:
    """Return the numbers of levels at which an encoder can end, in ascending order.

    Raises:
        UserError: The encoder is unknown or not supported.
    """
    traced = architecture(arch_of(encoder))
    return tuple(sorted(traced.taps(max(traced.levels))))


def _check_patch_size(patch: tuple[int, ...]) -> None:
    option = f"--patch-size {','.join(map(str, patch))}"
    if min(patch[-2:]) < SMALLEST_IN_PLANE:
        raise UserError(
            f"{option}: the in-plane sides (the last two) must be at least {SMALLEST_IN_PLANE} voxels, so that the "
            f"network can halve them once and keep {SMALLEST_FEATURE_MAP}. Choose a larger patch, or leave out "
            "--patch-size to have it planned."
        )
    if prod(patch) > MAX_PATCH:
        raise UserError(
            f"{option}: {prod(patch):,} voxels are more than the limit of {MAX_PATCH:,}. Choose a smaller patch."
        )
