"""A timm model as the encoder of a segmentation network, in 2D or 3D, with strides and kernels per axis."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autocrossdim.networks.architecture import Architecture, advice, arch_of, architecture, create_timm, unfit
from autocrossdim.networks.blocks import StandardisedConv
from autocrossdim.networks.inflation import rebuild
from autocrossdim.networks.kernels import Mode
from autocrossdim.networks.layers import AcsConv3d, he_normal
from autocrossdim.networks.parity import TOLERANCE, find_fault, hooked, perturb, relative_error, reproducible
from autocrossdim.networks.twins import Geometry
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError

Axes = tuple[tuple[int, ...], ...]
"""One tuple per level, one number per axis."""


class Chain(nn.Module):
    """Units of a timm model, one after the other, rebuilt for strides and kernels; names of tensors are timm's.

    A layer that goes from level i to j gets the product of the strides between them. Its kernel has extent along an
    axis only if the kernels of all levels it leads to have.

    Args:
        model: timm's model, which is modified.
        arch: Architecture of the model.
        strides: Stride per axis of each level below full resolution.
        kernels: Kernel extent per axis of each level.
        mode: Rule of inflation.
        axis: The new axis in 3D, 0 to 2.
    """

    def __init__(
        self, model: Any, arch: Architecture, strides: Axes, kernels: Axes, mode: Mode = "center", axis: int = 0
    ) -> None:
        super().__init__()
        depth, dims = len(strides), len(strides[0])
        taps = arch.taps(depth)
        self.levels = sorted(taps)
        self.units = arch.units[: taps[depth] + 1]
        self._tapped = {arch.units[index] for index in taps.values()}
        geometry = {
            name: _geometry(strides, kernels, *levels) for name, levels in arch.layers.items() if sum(levels) <= depth
        }
        for name in self.units:
            _place(self, name, rebuild(model.get_submodule(name), dims, mode, axis, geometry, name))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *spatial) -> one feature (B, channels, *spatial / cumulative stride) for each of `levels`."""
        features = []
        for name in self.units:
            x = self.get_submodule(name)(x)
            if name in self._tapped:
                features.append(x)
        return features


class Encoder(Chain):
    """A timm model up to the plan's last level, in the plan's number of axes.

    In 3D the convolutions start from He initialisation for their real fan; in 2D from timm's own. Unless every layer of
    the architecture is known, the encoder is proven for the plan's strides and kernels, once per process.

    Attributes:
        levels: Levels that have a feature, in order; a stem of stride 4 leaves out level 1.
        channels: Number of channels of those features.
        first_conv: Name of the first convolution.

    Raises:
        UserError: The encoder is unknown, cannot end at the plan's last level, or fails the proof.
    """

    def __init__(self, plan: NetworkPlan, in_channels: int) -> None:
        arch = architecture(arch_of(plan.encoder))
        depth = len(plan.strides)
        taps = arch.taps(depth)
        if depth > max(arch.levels) or depth not in taps:
            possible = ", ".join(str(level) for level in arch.taps(max(arch.levels)))
            raise UserError(
                f"encoder {plan.encoder}: the plan has {depth} strides, but the encoder can end at levels "
                f"{possible} only. Change the number of strides or the encoder."
            )
        strides, kernels = _axes(plan.strides), _axes(plan.kernel_sizes)
        model = create_timm(plan.encoder, plan.drop_path, in_chans=in_channels, num_classes=0)
        try:
            super().__init__(model, arch, strides, kernels, plan.inflation)
        except UserError as error:
            raise UserError(f"encoder {plan.encoder}: {error}") from error
        if not arch.known:
            prove_chain(arch_of(plan.encoder))
            prove(arch_of(plan.encoder), strides, kernels)
        self.first_conv = arch.stem
        if plan.dims == 3:
            for module in self.modules():
                if isinstance(module, nn.Conv3d | AcsConv3d | StandardisedConv):
                    he_normal(module.weight, "fan_out", module.groups)
        self.channels = [arch.widths[taps[level]] for level in self.levels]


@functools.cache
def prove_chain(name: str) -> None:
    """Check that an architecture's units, one after the other, give what timm's own forward pass gives at each of them.

    Args:
        name: timm's name of the architecture.

    Raises:
        UserError: They do not.
    """
    units = architecture(name).units
    with reproducible(), torch.no_grad():
        model = create_timm(name, num_classes=0).eval()
        perturb(model)
        inputs: dict[str, Tensor] = {}

        def record(unit: str) -> Any:
            def hook(_: nn.Module, given: tuple[Tensor]) -> None:
                inputs[unit] = given[0].clone()  # activations work in place

            return hook

        image = torch.randn(1, 3, 96, 96)
        with hooked(model.get_submodule(unit).register_forward_pre_hook(record(unit)) for unit in units):
            _check_runs(model, name, model.forward_features, image)
        x = image
        for unit in units:
            if x.shape != inputs[unit].shape or relative_error(x, inputs[unit]) > TOLERANCE:
                raise unfit(model, name, f"{unit} does not get the output of what runs before it alone")
            x = model.get_submodule(unit)(x)


@functools.cache
def prove(name: str, strides: Axes, kernels: Axes) -> None:
    """Check an architecture with given strides and kernels: in 3D the values of its features, and their sizes.

    Values are those of the 2D encoder with the in-plane strides and kernels, on a volume that is constant along the new
    axis. That axis is the first, as in use, and the second, so that a layer that treats the first or the last two axes
    alike is noticed.

    Args:
        name: timm's name of the architecture.
        strides: Stride per axis of each level, as in the plan.
        kernels: Kernel extent per axis of each level, as in the plan.

    Raises:
        UserError: A value or a size is wrong; the message names the first layer that gives other values.
    """
    if len(strides[0]) == 3:
        _check_values(name, strides, kernels)
    with torch.device("meta"):
        model = create_timm(name, num_classes=0)
        chain = Chain(model, architecture(name), strides, kernels).eval()
        _check_sizes(chain, name, strides)


def _check_values(name: str, strides: Axes, kernels: Axes) -> None:
    arch = architecture(name)
    with reproducible():
        model = create_timm(name, num_classes=0)
        perturb(model)
        depth, *sides = (math.prod(along) for along in zip(*strides, strict=True))
        image = torch.randn(1, 3, *(2 * side for side in sides))
        flat = Chain(copy.deepcopy(model), arch, _in_plane(strides), _in_plane(kernels)).eval()
        with torch.no_grad():
            _check_runs(model, name, flat, image)
        for axis, ordered in ((1, _turned), (0, tuple)):
            volume = Chain(copy.deepcopy(model), arch, ordered(strides), ordered(kernels), axis=axis).eval()
            if fault := find_fault(flat, volume, image, depth + 1, axis):
                where = fault.layer or "as a whole"
                raise UserError(f"encoder {name}, {where}: the layer {fault.kind} {fault.reason}. {advice(flat)}")


def _check_runs(model: nn.Module, name: str, forward: Callable[[Tensor], object], image: Tensor) -> None:
    """Raise a UserError if a 2D network does not take an image, such as attention within windows of one size."""
    try:
        forward(image)
    except Exception as error:  # whatever a model does with a size that it does not take
        size = " x ".join(map(str, image.shape[2:]))
        raise unfit(model, name, f"it does not run on {size} pixels ({type(error).__name__})") from error


def _in_plane(entries: Axes) -> Axes:
    return tuple(entry[1:] for entry in entries)


def _turned(entries: Axes) -> Axes:
    """Return the entries with the new axis second instead of first."""
    return tuple((y, z, x) for z, y, x in entries)


def _check_sizes(chain: Chain, name: str, strides: Axes) -> None:
    """Raise a UserError unless features have ceil(size / stride) voxels, as decoders need, at odd sizes too."""
    totals = [tuple(math.prod(along) for along in zip(*strides[:level], strict=True)) for level in chain.levels]
    sizes = tuple(2 * total + 1 for total in totals[-1])
    expected = [tuple(-(-n // total) for n, total in zip(sizes, each, strict=True)) for each in totals]
    try:
        features = [tuple(x.shape[2:]) for x in chain(torch.empty(1, 3, *sizes))]
        wrong = next((pair for pair in zip(features, expected, strict=True) if pair[0] != pair[1]), None)
        reason = wrong and f"a feature has size {wrong[0]}, not {wrong[1]}"
    except Exception as error:  # a layer that wants other sizes fails in many ways
        reason = f"it fails ({type(error).__name__})"
    if reason:
        raise UserError(
            f"encoder {name} cannot take the strides {[*map(list, strides)]}: for an input of {sizes}, {reason}. "
            f"{advice(chain)}"
        )


def _axes(entries: list[list[Any]]) -> Axes:
    return tuple(tuple(entry) for entry in entries)


def _geometry(strides: Axes, kernels: Axes, level: int, spent: int) -> Geometry:
    end = level + spent
    led_to = kernels[level + 1 : end + 1] if spent else [kernels[level]]
    return Geometry(
        stride=tuple(math.prod(along) for along in zip(*strides[level:end], strict=True)) or (1,) * len(kernels[0]),
        flat=tuple(1 in extents for extents in zip(*led_to, strict=True)),
    )


def _place(root: nn.Module, name: str, unit: nn.Module) -> None:
    """Put `unit` under its dotted name, so that the names of its tensors stay timm's."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Sequential())
        root = root.get_submodule(part)
    root.add_module(leaf, unit)
