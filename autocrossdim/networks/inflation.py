"""Inflation: 2D modules and their weights become 3D modules, called their twins."""

import copy
import itertools
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from autocrossdim.networks.architecture import advice
from autocrossdim.networks.kernels import Mode
from autocrossdim.networks.parity import Fault, find_fault, hooked, perturb, reproducible
from autocrossdim.networks.reviewed import all_known, is_refused
from autocrossdim.networks.twins import TWINS, Geometry, Spec
from autocrossdim.system.errors import UserError

_RGB = 3
_SIZES = ((64, 32), (96, 96), (224, 64), (256, 64))
"""In-plane size and depth of the volumes tried in the proof, voxels: the first that the 2D module takes."""


def inflate(module: nn.Module, mode: Mode = "center", axis: int = 0, *, example: Tensor | None = None) -> nn.Module:
    """Turn a 2D module, working on (B, C, H, W), into its 3D twin, weights included.

    The new axis has the extent, stride and padding of the module's first spatial axis. Names of parameters do not
    change. The mode determines what a k x k kernel becomes:

    - `center`: the 2D kernel in the middle slice, zeros elsewhere. On a volume that is constant along the new axis,
      the twin gives the 2D features, also at the borders.
    - `average`: the 2D kernel divided by k at each of k depths, as in I3D (arXiv 1705.07750). It gives the 2D features
      away from the borders of the new axis, where zero padding contributes.
    - `replicate`: the 2D kernel at each depth, undivided (as the paper describes it). Responses grow by a factor of k,
      which batch normalisation in training mode compensates.
    - `acs`: the kernel remains 2D; a third of the output channels applies it in each of the three planes
      (arXiv 1911.10477).

    Layers are replaced by their twins; what contains them (blocks, stages, models, timm's `features_only` wrappers) is
    kept. Unless all layers are known, the result is verified: inflated by `center`, a volume that is constant along the
    new axis must give the 2D features at every output, with random statistics and no parameter left at a constant. This
    runs once per architecture and process. If a timm model fails in its classification head, the head is dropped, and
    the twin returns what timm's `forward_features` does.

    Args:
        module: The 2D module; it is not changed.
        mode: Rule of inflation.
        axis: New spatial axis of the 3D twin, 0 to 2.
        example: Input for the verification, (B, C, H, W); by default noise with the channels of the first convolution.

    Raises:
        UserError: A layer has no 3D twin or fails the verification (the message names it), or mode or axis is not one
            of the above.
    """
    if mode not in get_args(Mode) or axis not in (0, 1, 2):
        raise UserError(f"inflate: mode must be one of {', '.join(get_args(Mode))} and axis 0, 1 or 2.")
    source = copy.deepcopy(module)
    if not all_known(module):
        _drop_head(source, _prove(module, example, axis))
    trainable = {name: parameter.requires_grad for name, parameter in source.named_parameters()}
    twin = rebuild(source, 3, mode, axis)
    for name, requires_grad in trainable.items():
        twin.get_parameter(name).requires_grad_(requires_grad)
    return twin.train(module.training)


def rebuild(
    module: nn.Module,
    dims: int,
    mode: Mode,
    axis: int = 0,
    geometry: Mapping[str, Geometry] | None = None,
    name: str = "",
) -> nn.Module:
    """Return a 2D module rebuilt for `dims` axes, with the strides and kernels of `geometry`.

    Args:
        module: The 2D module, which is modified.
        dims: 2 or 3.
        mode: As for `inflate`.
        axis: As for `inflate`.
        geometry: Strides and kernels by name of the layer; other layers keep their own.
        name: Name of the module, if it is part of a larger one.

    Raises:
        UserError: A layer has no 3D twin; the message names it.
    """
    done: dict[nn.Module, nn.Module] = {}  # a layer used twice has one twin

    def visit(module: nn.Module, name: str) -> nn.Module:
        if module not in done:
            kind = TWINS.get(type(module))
            if not (dims == 3 and kind and kind.whole):
                for key, child in module._modules.items():
                    if child is not None:
                        setattr(module, key, visit(child, f"{name}.{key}" if name else key))
            done[module] = _twin(module, name, Spec(dims, mode, axis, (geometry or {}).get(name)))
        return done[module]

    return visit(module, name)


def _twin(module: nn.Module, name: str, spec: Spec) -> nn.Module:
    kind = TWINS.get(type(module))
    if kind and (spec.dims == 3 or (kind.shaped and spec.geometry)):
        try:
            twin = kind.build(module, spec)
        except UserError as error:
            raise UserError(f"cannot inflate {name or 'the module'}: {error}") from error
        for hooks in ("_forward_hooks", "_forward_pre_hooks"):  # timm collects features with them
            getattr(twin, hooks).update(getattr(module, hooks))
        return twin
    if spec.dims == 3 and is_refused(module):
        where = type(module)
        raise UserError(
            f"cannot inflate {name or 'the module'}: no 3D twin is known for the layer {where.__qualname__} "
            f"of {where.__module__}. Choose another encoder, or replace the layer."
        )
    return module


_proven: dict[tuple[int, int], list[str]] = {}
"""By the signature of an architecture and the new axis: the parts of its head, if the head has to be dropped."""


def _prove(module: nn.Module, example: Tensor | None, axis: int) -> list[str]:
    """Prove a module, if need be without its classification head; returns the names of the parts to drop.

    Raises:
        UserError: A layer that is no part of a head is wrong in 3D.
    """
    key = _signature(module), axis
    if key not in _proven:
        rebuild(copy.deepcopy(module), 3, "center")  # names layers that are refused, before any input is tried
        head: list[str] = []
        with reproducible():
            flat = copy.deepcopy(module).float().cpu().eval()
            perturb(flat)
            image, depth = _probe(flat, example)
            for tried in dict.fromkeys((1, axis)):  # 1 because of `find_fault`
                fault = _fault(flat, image, depth, tried)
                if fault and not head and hasattr(flat, "forward_features"):
                    head = _parts_of_head(flat, image)
                    _drop_head(flat, head)
                    fault = _fault(flat, image, depth, tried) if head else fault
                if fault:
                    where = fault.layer or "the module"
                    raise UserError(f"cannot inflate {where}: the layer {fault.kind} {fault.reason}. {advice(module)}")
        _proven[key] = head
    return _proven[key]


def _fault(flat: nn.Module, image: Tensor, depth: int, axis: int) -> Fault | None:
    volume = rebuild(copy.deepcopy(flat), 3, "center", axis).eval()
    return find_fault(flat, volume, image, depth, axis)


def _parts_of_head(model: Any, image: Tensor) -> list[str]:
    """Return the names of the children of a timm classifier that are not used to compute its features."""
    run: set[nn.Module] = set()
    handles = (layer.register_forward_pre_hook(lambda layer, _: run.add(layer)) for layer in model.modules())
    with torch.no_grad(), hooked(handles):
        model.forward_features(image)
    return [name for name, child in model.named_children() if not run.intersection(child.modules())]


def _drop_head(model: Any, parts: list[str]) -> None:
    for name in parts:
        setattr(model, name, nn.Identity())
    if parts:
        model.forward = model.forward_features


def _probe(flat: nn.Module, example: Tensor | None) -> tuple[Tensor, int]:
    """Return an input that the 2D module accepts, and the depth of the volume made from it."""
    if example is not None:
        return example[:1].detach().float().cpu(), example.shape[2]
    first = next((layer for layer in flat.modules() if isinstance(layer, nn.Conv2d)), None)
    # The stem need not come first: space-to-depth has no parameters.
    channels = {first.in_channels, _RGB} if first else set()
    for channel, (size, depth) in itertools.product(sorted(channels), _SIZES):
        image = torch.randn(1, channel, size, size)
        try:
            with torch.no_grad():
                flat(image)
        except Exception:  # whatever a model does with a size that it does not take
            continue
        return image, depth
    raise UserError(
        f"cannot inflate {type(flat).__qualname__}: no input is known with which to check the result. "
        "Pass `example`, a 2D input (B, C, H, W) that it takes."
    )


def _signature(module: nn.Module) -> int:
    """Return a hash of the architecture: types of layers, their options, and shapes of their tensors."""
    plain = (int, float, str, tuple, type(None))
    layers = (
        (
            name,
            type(layer),
            sorted((k, str(v)) for k, v in vars(layer).items() if isinstance(v, plain) and k != "training"),
        )
        for name, layer in module.named_modules()
    )
    tensors = ((name, tuple(value.shape)) for name, value in module.state_dict().items())
    return hash(str((list(layers), list(tensors))))
