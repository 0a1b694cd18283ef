"""The configurations of a plan: networks sized to the cases and to the memory."""

from dataclasses import replace
from typing import Literal

import numpy as np

from autocrossdim.inference.sliding_window import tile_starts
from autocrossdim.records.plan import STEPS_PER_EPOCH, Augmentation, Configuration, Cost, Memory
from planners.sizing import Size, Sizer
from planners.spacing import CaseSizes, coarser_spacing, target_spacing

LEARNING_RATES = {2: 1e-3, 3: 2e-3}
"""Peak learning rate by number of axes: the authors' for Omnia-Net, twice that for DX-Net.

Measured on one fold of Hippocampus, 200 steps from random weights: Dice 0.805, 0.819 and 0.810 at 1e-3, 2e-3 and 4e-3
on the validation cases of the fold, 0.794, 0.797 and 0.798 on 16 other cases.
"""
AUGMENTATIONS: dict[int, Augmentation] = {2: "strong", 3: "standard"}
"""Augmentation by number of axes of the images.

Photographs, ultrasound and screenshots without spacing differ more in angle, size and contrast than volumes, whose
spacing and orientation are known. Measured: docs/explanation/training.md.
"""
IMAGE_STATISTICS = {2: 0.2, 3: 0.0}
"""Share of each image's own statistics in batch norms, by number of axes of the images.

Images without spacing differ in contrast as well. Measured: benchmarks/results/image_statistics.md.
"""
SMALL_PATCH = 0.25  # of the median shape's voxels; below, a coarser configuration is planned as well (nnU-Net)


def plan_configurations(
    sizer: Sizer,
    sizes: CaseSizes,
    dims: int,
    *,
    mirror_axes: tuple[int, ...],
    with_ds: bool = False,
    unet_dims: Literal[2, 3] | None = None,
) -> dict[str, Configuration]:
    """Return the candidates by name.

    They are `omnia`, for volumes also `dx` and, if requested, `ds` and `unet`; and, if a patch of `dx` covers less than
    a quarter of the median shape, `dx_lowres` and `dx_cascade`: `dx` with the segmentation by `dx_lowres` as an
    additional input.

    Args:
        sizer: Sizer for Omnia-Net and DX-Net.
        sizes: Sizes of the training cases.
        dims: Number of axes of the images.
        mirror_axes: Axes of the plan that may be mirrored.
        with_ds: Whether to plan DS-Net.
        unet_dims: Number of axes of a plain U-Net; None plans none.

    Raises:
        UserError: Nothing fits the memory budget.
    """
    target = target_spacing(sizes)
    planned = {"omnia": _configuration("omnia", sizer, sizes, target[1:], mirror_axes)}
    if dims == 3:
        planned |= _volumes(sizer, sizes, target, mirror_axes)
    if with_ds:
        planned["ds"] = _configuration("ds", replace(sizer, kind="ds"), sizes, target, mirror_axes)
    if unet_dims is not None:
        plain = replace(sizer, kind="plain")
        planned["unet"] = _configuration("unet", plain, sizes, target[3 - unet_dims :], mirror_axes)
    return {
        name: configuration.model_copy(
            update={
                "augmentation": AUGMENTATIONS[dims],
                "trainer": sizer.options.trainer,
                "image_statistics": 0.0 if configuration.kind == "plain" else IMAGE_STATISTICS[dims],
            }
        )
        for name, configuration in planned.items()
    }


def _volumes(
    sizer: Sizer, sizes: CaseSizes, target: tuple[float, float, float], mirror_axes: tuple[int, ...]
) -> dict[str, Configuration]:
    """Return `dx` and, if its patch covers little of the median shape, `dx_lowres` and `dx_cascade`."""
    dx = _configuration("dx", sizer, sizes, target, mirror_axes)
    planned = {"dx": dx}
    covered = float(np.prod(dx.patch_size) / np.prod(dx.median_shape))
    if covered < SMALL_PATCH:
        coarser = coarser_spacing(target, SMALL_PATCH / covered)  # there, the same patch would cover a quarter
        # A requested patch size is meant for the full resolution.
        options = sizer.options.model_copy(update={"patch_size": None})
        planned["dx_lowres"] = _configuration("dx_lowres", replace(sizer, options=options), sizes, coarser, mirror_axes)
        cascade = replace(sizer, masks=len(sizer.labels.foreground))
        planned["dx_cascade"] = _configuration(
            "dx_cascade", cascade, sizes, target, mirror_axes, previous_stage="dx_lowres"
        )
    return planned


def _configuration(
    name: str,
    sizer: Sizer,
    sizes: CaseSizes,
    target: tuple[float, ...],
    mirror_axes: tuple[int, ...],
    previous_stage: str | None = None,
) -> Configuration:
    """Return a network over as many axes as the target spacing (mm) has; in 2D the slice axis is not resampled."""
    resampled = sizes.resampled(target)
    z, y, x = (round(float(n)) for n in np.median(resampled, axis=0))
    dims: Literal[2, 3] = 3 if len(target) == 3 else 2
    size, trial = sizer.size_that_runs((z, y, x)[-dims:], target, int(resampled.prod(axis=1).sum()))
    return Configuration(
        name=name,
        dims=dims,
        spacing=target,
        median_shape=(z, y, x),
        patch_size=size.patch,
        batch_size=size.batch,
        **sizer.choices(dims),
        kind=sizer.kind,
        previous_stage=previous_stage,
        strides=size.topology.strides,
        kernel_sizes=size.topology.kernel_sizes,
        learning_rate=LEARNING_RATES[dims],
        mirror_axes=_of_patch(mirror_axes, dims),
        memory=Memory(
            budget_bytes=sizer.budget_bytes,
            estimated_bytes=size.memory.training(size.patch, size.batch),
            measured_bytes=trial.peak_bytes,
            inference_bytes=size.memory.inference(size.patch, size.batch),
        ),
        cost=Cost(
            multiply_adds_per_case=_multiply_adds(size, (z, y, x)),
            seconds_per_epoch=None if trial.seconds is None else trial.seconds * STEPS_PER_EPOCH,
        ),
    )


def _of_patch(axes: tuple[int, ...], dims: Literal[2, 3]) -> tuple[Literal[0, 1, 2], ...]:
    """Return the axes of a patch over `dims` axes among those of the plan; a 2D patch lacks the coarsest one."""
    indices: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    return tuple(axis for axis in indices[:dims] if axis + 3 - dims in axes)


def _multiply_adds(size: Size, shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of sliding-window inference on a case of `shape` (Z, Y, X)."""
    tiles = shape[0] if len(size.patch) == 2 else 1
    for voxels, patch in zip(shape[-len(size.patch) :], size.patch, strict=True):
        tiles *= len(tile_starts(voxels, patch))
    return tiles * size.memory.multiply_adds(size.patch)
