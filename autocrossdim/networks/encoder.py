"""A timm model as the encoder of a segmentation network, in 2D or 3D, with strides and kernels per axis."""

import difflib
import functools
import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import BlurPool2d
from torch import Tensor, nn

from autocrossdim.networks.inflation import Geometry, rebuild
from autocrossdim.networks.layers import AcsConv3d, he_normal
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError

FAMILIES = ("EfficientNet", "ResNet", "RegNet", "ConvNeXt")
"""timm's classes whose forward pass is their children one after the other."""

_TRACED_SIZE = 256  # pixels; any power of two larger than the coarsest stride


@dataclass(frozen=True)
class Architecture:
    """What a timm architecture does to the resolution, unit by unit and layer by layer.

    Attributes:
        units: names of the modules that run one after the other, up to the last stage.
        levels: level (log2 of the stride) of each unit's output.
        widths: channels of each unit's output.
        layers: for every layer with strides or kernels: level of its input, and levels that it goes down.
        stem: name of the first convolution.
        keys: shape of every tensor that the units hold in 2D, with three input channels.
        tail: names of the tensors behind the last stage: head and classifier.
    """

    units: tuple[str, ...]
    levels: tuple[int, ...]
    widths: tuple[int, ...]
    layers: dict[str, tuple[int, int]]
    stem: str
    keys: dict[str, torch.Size]
    tail: frozenset[str]

    def taps(self, depth: int) -> dict[int, int]:
        """The unit that ends each level from 1 to `depth`, by index; levels nothing stops at are left out.

        Level 1 ends with the stem, before the first stage, as in the paper (its x1).
        """
        taps = {level: index for index, level in enumerate(self.levels) if 1 <= level <= depth}
        stem = [i for i, unit in enumerate(self.units) if self.levels[i] == 1 and "." not in unit]
        return taps | ({1: stem[-1]} if stem else {})


def arch_of(encoder: str) -> str:
    """The architecture in a timm name, without its tag."""
    return encoder.partition(".")[0]


def create_timm(encoder: str, **options: Any) -> Any:
    """Timm's model of that architecture, without pretrained weights.

    Raises:
        UserError: timm has no such architecture, or it is of no family that works here.
    """
    arch = arch_of(encoder)
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), 3)
        raise UserError(f"encoder {encoder}: timm has no such model. {'Near: ' + ', '.join(near) if near else ''}")
    model = timm.create_model(arch, pretrained=False, **options)
    if type(model).__name__ not in FAMILIES:
        raise UserError(
            f"encoder {encoder}: timm's {type(model).__name__} is not supported; choose one of the families "
            f"{', '.join(FAMILIES)}, such as efficientnet_b0."
        )
    return model


@functools.cache
def architecture(arch: str) -> Architecture:
    """Trace a timm architecture once, in 2D, on torch's meta device (no memory, no arithmetic).

    Args:
        arch: timm's name of it, without a tag.

    Raises:
        UserError: as `create_timm`.
    """
    with torch.device("meta"):
        model = create_timm(arch).eval()
        last = model.feature_info[-1]["module"]
        units = _units(model, last)
        layers: dict[str, tuple[int, int]] = {}

        def record(name: str) -> Any:
            def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
                level = _level(inputs[0])
                layers[name] = (level, _level(output) - level)

            return hook

        for unit, module in units.items():
            for name, layer in module.named_modules(prefix=unit):
                if hasattr(layer, "kernel_size") or isinstance(layer, BlurPool2d):
                    layer.register_forward_hook(record(name))
        outputs = [torch.zeros(1, 3, _TRACED_SIZE, _TRACED_SIZE)]
        for module in units.values():
            outputs.append(module(outputs[-1]))
    state = {name: value.shape for name, value in model.state_dict().items()}
    inside = tuple(unit + "." for unit in units)
    return Architecture(
        units=tuple(units),
        levels=tuple(_level(x) for x in outputs[1:]),
        widths=tuple(x.shape[1] for x in outputs[1:]),
        # A 1x1 convolution without stride has nothing to set; the gates' run on one pixel besides.
        layers={name: level for name, level in layers.items() if level[1] or not _pointwise(model.get_submodule(name))},
        stem=next(name for name in layers if isinstance(model.get_submodule(name), nn.Conv2d)),
        keys={name: shape for name, shape in state.items() if name.startswith(inside)},
        tail=frozenset(name for name in state if not name.startswith(inside)),
    )


def _units(model: nn.Module, last: str) -> dict[str, nn.Module]:
    units: dict[str, nn.Module] = {}

    def collect(module: nn.Module, prefix: str) -> None:
        for key, child in module.named_children():
            name = prefix + key
            if type(child) is nn.Sequential:
                collect(child, name + ".")
            else:
                units[name] = child

    collect(model, "")
    names = list(units)
    end = max(i for i, name in enumerate(names) if name == last or name.startswith(last + "."))
    return {name: units[name] for name in names[: end + 1]}


def _level(x: Tensor) -> int:
    return round(math.log2(_TRACED_SIZE / x.shape[-1]))


def _pointwise(layer: Any) -> bool:
    return layer.kernel_size in (1, (1, 1))


class Encoder(nn.Module):
    """A timm model up to the plan's last level, in the plan's number of axes; names of tensors are timm's.

    Strides and kernels follow the plan: a layer that goes from level i to j takes the product of the strides
    between, and has extent along an axis only if the kernels of all levels it leads to have it. In 3D
    the convolutions start from He initialisation for their real fan; in 2D from timm's own.

    Attributes:
        levels: levels that have a feature, in order; a stem of stride 4 leaves out level 1.
        channels: channels of those features.
        first_conv: name of the first convolution.
    """

    def __init__(self, plan: NetworkPlan, in_channels: int) -> None:
        super().__init__()
        arch = architecture(arch_of(plan.encoder))
        depth = len(plan.strides)
        taps = arch.taps(depth)
        if depth > max(arch.levels) or depth not in taps:
            possible = ", ".join(str(level) for level in arch.taps(max(arch.levels)))
            raise UserError(
                f"encoder {plan.encoder}: the plan has {depth} strides, but the encoder can end at levels "
                f"{possible} only. Change the number of strides or the encoder."
            )
        model = create_timm(plan.encoder, in_chans=in_channels, num_classes=0, drop_path_rate=plan.drop_path)
        self.first_conv = arch.stem
        self.units = arch.units[: taps[depth] + 1]
        self.levels = sorted(taps)
        self._tapped = {arch.units[index] for index in taps.values()}
        geometry = {name: _geometry(plan, *levels) for name, levels in arch.layers.items() if sum(levels) <= depth}
        for name in self.units:
            unit = rebuild(model.get_submodule(name), plan.dims, plan.inflation, 0, geometry, name)
            _place(self, name, unit)
        if plan.dims == 3:
            for module in self.modules():
                if isinstance(module, nn.Conv3d | AcsConv3d):
                    he_normal(module.weight, "fan_out", module.groups)
        self.channels = [arch.widths[taps[level]] for level in self.levels]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *spatial) -> one feature (B, channels, *spatial / cumulative stride) for each of `levels`."""
        features = []
        for name in self.units:
            x = self.get_submodule(name)(x)
            if name in self._tapped:
                features.append(x)
        return features


def _geometry(plan: NetworkPlan, level: int, spent: int) -> Geometry:
    end = level + spent
    led_to = plan.kernel_sizes[level + 1 : end + 1] if spent else [plan.kernel_sizes[level]]
    return Geometry(
        stride=tuple(math.prod(strides) for strides in zip(*plan.strides[level:end], strict=True)) or (1,) * plan.dims,
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
