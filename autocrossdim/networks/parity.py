"""Verification of a 3D twin: on a volume that is constant along the new axis, it gives the features of the 2D module.

The features of the two are compared at every output. If they differ, both run again with a hook on every layer, to name
the first layer that got the right input and did not give the right output.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

TOLERANCE = 1e-4
"""Largest difference, relative to the largest value of a feature."""


class Fault(NamedTuple):
    """A layer whose 3D form is wrong.

    Attributes:
        layer: Name of the layer in the module; empty for the module itself.
        kind: Class of the layer.
        reason: What is wrong, as the end of a sentence that begins with the layer.
    """

    layer: str
    kind: str
    reason: str


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks registered inside the context; they are removed at its end."""
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()


@contextmanager
def reproducible() -> Iterator[None]:
    """Run a proof on the CPU with random numbers of its own; the random state outside does not change."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        yield


def perturb(module: nn.Module, seed: int = 0) -> None:
    """Randomise what an initialisation leaves at 0, 1 or another constant, so that no branch is switched off.

    Statistics and parameters of batch norms, LayerScale, gains that start at zero, and biases become random.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0.0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
        for name, parameter in module.named_parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                if name.endswith("bias"):
                    parameter.normal_(0.0, 0.2, generator=generator)
                else:
                    parameter.uniform_(0.5, 1.5, generator=generator)


def find_fault(flat: nn.Module, volume: nn.Module, image: Tensor, depth: int, axis: int) -> Fault | None:
    """Compare a 2D module and its 3D twin, both in evaluation mode.

    Args:
        flat: The 2D module; it is not changed.
        volume: Its twin by `center`, with the same names of layers. Its weights are changed.
        image: Input of the 2D module, (B, C, H, W).
        depth: Extent of the volume along the new axis, in voxels.
        axis: New spatial axis of the volume. With 1, a layer that reduces or pads only the first two or the last two
            spatial axes cannot pass.

    Returns:
        The first layer that is wrong; None if all outputs agree.
    """
    cube = image.unsqueeze(2 + axis).repeat_interleave(depth, 2 + axis)
    flat = copy.deepcopy(flat)
    if not _agree(flat, volume, image, cube, axis):
        return _locate(flat, volume, image, cube, axis)
    # The few hidden units of a channel attention may all be off, so that nothing after them is tested. Negated weights
    # switch them on.
    _negate_weights(flat)
    _negate_weights(volume)
    return None if _agree(flat, volume, image, cube, axis) else _locate(flat, volume, image, cube, axis)


def _negate_weights(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.neg_()


def _agree(flat: nn.Module, volume: nn.Module, image: Tensor, cube: Tensor, axis: int) -> bool:
    with torch.no_grad():
        for kind in (torch.float32, torch.float64):  # the second only to tell rounding from a mistake
            flat, volume, image, cube = flat.to(kind), volume.to(kind), image.to(kind), cube.to(kind)
            try:
                results = list(_tensors(volume(cube)))
            except Exception:  # a layer written for two axes fails in many ways; the next run names it
                break
            expected = list(_tensors(flat(image)))
            errors = [_error(*pair, axis) for pair in zip(results, expected, strict=False)]
            if len(results) == len(expected) and all(error is not None and error < TOLERANCE for error in errors):
                return True
    return False


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _error(result: Tensor, expected: Tensor, axis: int) -> float | None:
    """Return the relative difference; infinite if sizes differ, None if incomparable, such as sequences of tokens."""
    if result.ndim == expected.ndim + 1:
        new_axes = (2 + axis, 1 + axis)  # channels first, channels last
        fitting = [dim for dim in new_axes if (*result.shape[:dim], *result.shape[dim + 1 :]) == tuple(expected.shape)]
        return min((relative_error(result, expected.unsqueeze(dim)) for dim in fitting), default=float("inf"))
    return relative_error(result, expected) if result.shape == expected.shape else None


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value."""
    if not result.is_floating_point():
        return 0.0 if bool((result == expected).all()) else float("inf")
    error = float((result - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return error if error == error else float("inf")  # not a number


def _locate(flat: nn.Module, volume: nn.Module, image: Tensor, cube: Tensor, axis: int) -> Fault:
    dtype = next((value.dtype for value in flat.parameters()), image.dtype)
    image, cube = image.to(dtype), cube.to(dtype)
    expected = _record_calls(flat, image)
    calls: dict[str, Iterator[tuple[list[Tensor], list[Tensor]]]] = {
        name: iter(seen) for name, seen in expected.items()
    }
    entered: list[tuple[str, nn.Module, bool, list[Tensor]]] = []
    faults: list[Fault] = []

    def before(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            right_inputs, outputs = next(calls.get(name, iter(())), ([], []))
            given = list(_tensors(inputs))
            errors = [_error(*pair, axis) for pair in zip(given, right_inputs, strict=False)]
            right = len(given) == len(right_inputs) > 0 and all(e is not None and e < TOLERANCE for e in errors)
            entered.append((name, module, right or not name, outputs))

        return hook

    def after(module: nn.Module, _: Any, outputs: Any) -> None:
        name, _, right, expected_outputs = entered.pop()
        errors = [_error(*pair, axis) for pair in zip(_tensors(outputs), expected_outputs, strict=False)]
        worst = max((error for error in errors if error is not None), default=0.0)
        if right and worst >= TOLERANCE and not faults:
            faults.append(Fault(name, type(module).__qualname__, _difference(worst)))

    handles = [module.register_forward_pre_hook(before(name)) for name, module in volume.named_modules()]
    handles += [module.register_forward_hook(after) for module in volume.modules()]
    try:
        with hooked(handles):
            volume(cube)
    except Exception as error:  # of any kind, see above
        if not faults:
            name, module = next((name, module) for name, module, right, _ in reversed(entered) if right)
            message = (str(error).splitlines() or [""])[0]
            faults.append(
                Fault(name, type(module).__qualname__, f"fails on a volume ({type(error).__name__}: {message})")
            )
    return faults[0] if faults else Fault("", type(flat).__qualname__, "gives features of other shapes than in 2D")


def _difference(error: float) -> str:
    size = "its output has another size" if error == float("inf") else f"relative difference {error:.1g}"
    return f"does not give the 2D features on a volume that is constant along one axis ({size})"


def _record_calls(module: nn.Module, image: Tensor) -> dict[str, list[tuple[list[Tensor], list[Tensor]]]]:
    """Return inputs and outputs of every call of every layer, as copies: activations work in place."""
    calls: dict[str, list[tuple[list[Tensor], list[Tensor]]]] = defaultdict(list)
    pending: list[tuple[str, list[Tensor]]] = []

    def before(name: str) -> Any:
        return lambda _, inputs: pending.append((name, [x.clone() for x in _tensors(inputs)]))

    def after(_: nn.Module, __: Any, outputs: Any) -> None:
        name, inputs = pending.pop()
        calls[name].append((inputs, [x.clone() for x in _tensors(outputs)]))

    handles = [layer.register_forward_pre_hook(before(name)) for name, layer in module.named_modules()]
    handles += [layer.register_forward_hook(after) for layer in module.modules()]
    with hooked(handles):
        module(image)
    return calls
