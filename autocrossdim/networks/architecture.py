"""What a timm model is as an encoder: the units it is a chain of, and the resolution at which each of them works."""

import difflib
import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import BlurPool2d
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor, nn

from autocrossdim.networks.reviewed import all_known
from autocrossdim.system.errors import UserError

_TRACED_SIZE = 256  # pixels; any power of two larger than the coarsest stride

_TRANSFORMER = re.compile(r"Attention\d*d?$|PatchEmbed|PatchMerging")


@dataclass(frozen=True)
class Architecture:
    """What a timm architecture does to the resolution, unit by unit and layer by layer.

    Attributes:
        units: Names of the modules that run one after the other, up to the last stage.
        levels: Level (log2 of the stride) of the output of each unit.
        widths: Number of channels of the output of each unit.
        layers: Level of the input of every layer with strides or kernels, and how many levels coarser its output is.
        stem: Name of the first convolution.
        keys: Shape of every tensor of the units in 2D, with three input channels.
        tail: Names of the tensors after the last stage: head and classifier.
        known: Whether a 3D twin of every layer was written or reviewed; otherwise the twin has to be verified.
    """

    units: tuple[str, ...]
    levels: tuple[int, ...]
    widths: tuple[int, ...]
    layers: dict[str, tuple[int, int]]
    stem: str
    keys: dict[str, torch.Size]
    tail: frozenset[str]
    known: bool

    def taps(self, depth: int) -> dict[int, int]:
        """Return the index of the unit that ends each level from 1 to `depth`; levels without such a unit are left out.

        Level 1 ends with the stem, before the first stage, as in the paper (its x1).
        """
        taps = {level: index for index, level in enumerate(self.levels) if 1 <= level <= depth}
        stem = [i for i, unit in enumerate(self.units) if self.levels[i] == 1 and "." not in unit]
        return taps | ({1: stem[-1]} if stem else {})


def arch_of(encoder: str) -> str:
    """Return the architecture in a timm name, without its tag."""
    return encoder.partition(".")[0]


def check_tag(encoder: str) -> None:
    """Check that timm has weights of the tag in `encoder`, if it has one.

    Raises:
        UserError: timm has no such model, or the model has no such tag; the message names those it has.
    """
    arch, _, tag = encoder.partition(".")
    check_arch(encoder)
    tags = tags_of(arch)
    if tag and tag not in tags:
        known = f"it has {', '.join(filter(None, tags))}" if any(tags) else "it has none"
        raise UserError(f"encoder {encoder}: {arch} has no tag {tag}; {known}. Correct the tag or leave it out.")


def tags_of(arch: str) -> list[str]:
    """Return the tags of all weights that timm has of an architecture, in its order; empty for weights without one."""
    return [name.partition(".")[2] for name in get_arch_pretrained_cfgs(arch)]


def check_arch(encoder: str) -> None:
    """Check that timm has a model of the name.

    Raises:
        UserError: It has not.
    """
    arch = arch_of(encoder)
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), 3)
        raise UserError(
            f"encoder {encoder}: timm has no such model. "
            f"{'Similar names: ' + ', '.join(near) if near else '`timm.list_models()` lists them'}."
        )


def create_timm(encoder: str, drop_path: float = 0.0, **options: Any) -> Any:
    """Return timm's model of an architecture, without pretrained weights.

    Args:
        encoder: timm's name, with or without a tag.
        drop_path: Rate of stochastic depth.
        options: Options of `timm.create_model`.

    Raises:
        UserError: timm has no such architecture, or it has no stochastic depth.
    """
    check_arch(encoder)
    try:
        return timm.create_model(arch_of(encoder), pretrained=False, drop_path_rate=drop_path, **options)
    except TypeError:
        model = timm.create_model(arch_of(encoder), pretrained=False, **options)
    if drop_path:
        raise UserError(f"encoder {encoder}: it has no stochastic depth. Set drop_path to 0 or choose another encoder.")
    return model


@functools.cache
def architecture(arch: str) -> Architecture:
    """Trace a timm architecture once, in 2D, on torch's meta device (no memory, no arithmetic).

    Args:
        arch: timm's name of it, without a tag.

    Raises:
        UserError: timm has no such architecture, or it cannot be an encoder: it is no chain of units whose features
            halve the resolution from level to level.
    """
    with torch.device("meta"):
        model = create_timm(arch).eval()
        units, layers = _trace(model, arch)
    state = {name: value.shape for name, value in model.state_dict().items()}
    inside = tuple(unit + "." for unit in units)
    return Architecture(
        units=tuple(units),
        levels=tuple(_level(x) for x in units.values()),
        widths=tuple(x.shape[1] for x in units.values()),
        # A 1x1 convolution without stride has nothing to set; the gates' run on one pixel besides.
        layers={name: level for name, level in layers.items() if level[1] or not _pointwise(model.get_submodule(name))},
        stem=next(name for name in layers if isinstance(model.get_submodule(name), nn.Conv2d)),
        keys={name: shape for name, shape in state.items() if name.startswith(inside)},
        tail=frozenset(name for name in state if not name.startswith(inside)),
        known=all(all_known(model.get_submodule(unit)) for unit in units),
    )


def _trace(model: Any, arch: str) -> tuple[dict[str, Tensor], dict[str, tuple[int, int]]]:
    """Return the outputs of the units in the order in which they run, and the `layers` of an `Architecture`."""
    outputs: dict[str, Tensor] = {}
    layers: dict[str, tuple[int, int]] = {}

    def record_unit(name: str) -> Any:
        return lambda _, __, output: outputs.setdefault(name, output)

    def record_layer(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if inputs[0].ndim == output.ndim == 4:
                level = _level(inputs[0])
                layers[name] = (level, _level(output) - level)

        return hook

    for unit, module in _candidates(model).items():
        module.register_forward_hook(record_unit(unit))
        for name, layer in module.named_modules(prefix=unit):
            if hasattr(layer, "kernel_size") or isinstance(layer, BlurPool2d):
                layer.register_forward_hook(record_layer(name))
    try:
        model.forward_features(torch.zeros(1, 3, _TRACED_SIZE, _TRACED_SIZE))
        last = model.feature_info[-1]["module"]
    except Exception as error:  # models of one image size, without features and others
        raise unfit(model, arch, f"it does not run on {_TRACED_SIZE} pixels ({type(error).__name__})") from error
    names = list(outputs)
    ends = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{last}.") or f"{last}.".startswith(f"{name}.")]
    chain = {name: outputs[name] for name in names[: max(ends, default=-1) + 1]}
    for name, output in chain.items():
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2] != output.shape[3]:
            raise unfit(model, arch, f"{name} does not give one feature map (B, C, Y, X)")
        if not math.log2(_TRACED_SIZE / output.shape[-1]).is_integer():
            raise unfit(model, arch, f"{name} leaves {output.shape[-1]} of {_TRACED_SIZE} pixels, not a power of two")
    if not chain or _level(output) < 2:
        raise unfit(model, arch, "it does not halve the resolution from stage to stage")
    inside = tuple(unit + "." for unit in chain)
    return chain, {name: levels for name, levels in layers.items() if f"{name}.".startswith(inside)}


def _candidates(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Return the modules that may be units: children, and the children of sequences among them."""
    found: dict[str, nn.Module] = {}
    for key, child in model.named_children():
        found |= _candidates(child, f"{prefix}{key}.") if type(child) is nn.Sequential else {prefix + key: child}
    return found


def unfit(model: nn.Module, arch: str, reason: str) -> UserError:
    """Return the error for a timm model that cannot be an encoder, for a reason."""
    return UserError(f"encoder {arch}: timm's {type(model).__name__} cannot be an encoder: {reason}. {advice(model)}")


def advice(model: nn.Module) -> str:
    """Return what to use instead of a model that does not fit."""
    kinds = {type(layer) for layer in model.modules()}
    if any(kind.__module__.startswith("timm.") and _TRANSFORMER.search(kind.__name__) for kind in kinds):
        return (
            "Vision transformers have no 3D twin. Use a convolutional encoder; with self-supervised weights: "
            "--encoder convnext_tiny --weights convnext_tiny.dinov3_lvd1689m."
        )
    return "Choose another encoder, such as efficientnet_b0, resnet50 or convnext_tiny."


def _level(x: Tensor) -> int:
    return round(math.log2(_TRACED_SIZE / x.shape[-1]))


def _pointwise(layer: Any) -> bool:
    return getattr(layer, "kernel_size", None) in (1, (1, 1))
