"""Loading weights into a network with other dimensions, channels or depth, tensor by tensor, with a report."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from autocrossdim.networks.architecture import arch_of
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.kernels import Mode, fit_kernel
from autocrossdim.networks.report import LoadReport, Status
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from autocrossdim.networks.weights import EncoderWeights


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weight of a convolution for another number of input channels.

    The response to an image whose channels are all equal stays the same. Kernels are repeated cyclically and scaled by
    S / C; the rest of the sum over channels is distributed evenly. One channel gets the sum of all kernels.

    Args:
        weight: Weight of shape (O, S, *kernel).
        channels: New number of input channels C.
    """
    have = weight.shape[1]
    if channels == have:
        return weight
    repeated = weight[:, torch.arange(channels, device=weight.device) % have] * (have / channels)
    missing = weight.sum(1, keepdim=True) - repeated.sum(1, keepdim=True)
    return repeated + missing / channels


def load_encoder(network: SegmentationNetwork, weights: "EncoderWeights") -> LoadReport:
    """Load 2D weights of a classifier into the encoder of a network, and set its `load_report`.

    Raises:
        UserError: The weights are of another architecture than the encoder.
    """
    if weights.encoder != arch_of(network.plan.encoder):
        raise UserError(
            f"{weights.source}: weights of {weights.encoder}, but the plan's encoder is {network.plan.encoder}."
        )
    source = {network.encoder_prefix + name: value for name, value in weights.state_dict.items()}
    network.load_report = _load(network, source, str(weights), 0)
    return network.load_report


def transfer(
    source_state: Mapping[str, Tensor],
    source_plan: NetworkPlan,
    target: SegmentationNetwork,
    source: str = "a trained model",
) -> LoadReport:
    """Load a whole trained network, encoder and decoder, into one of the same encoder.

    2D kernels become 3D ones by the target's `inflation` along axis 0. Layers that take the image follow the
    channel rule of `adapt_channels`; their kernels for masks that the source did not have start at 0. Tensors that
    do not fit, such as those of a head with other outputs, keep the target's values and are reported as new.

    Args:
        source_state: State dict of the trained network.
        source_plan: Plan that it was built from.
        target: Network to load into.
        source: Name of the trained network in the report.

    Returns:
        The report, which also becomes `target.load_report`.

    Raises:
        UserError: The networks differ in kind, network or encoder, or the source has more axes than the target.
    """
    plan = target.plan
    for field, given, planned in (
        ("kind", source_plan.kind, plan.kind),
        ("network", source_plan.network, plan.network),
        ("encoder", arch_of(source_plan.encoder), arch_of(plan.encoder)),
    ):
        if given != planned:
            raise UserError(f"{source}: its {field} is {given}, the plan's {planned}; they must be the same.")
    if source_plan.dims > plan.dims:
        raise UserError(f"{source} is {source_plan.dims}D: its weights cannot start a {plan.dims}D network.")
    modes = {source_plan.inflation, plan.inflation}
    if source_plan.dims == 3 and len(modes) > 1 and "acs" in modes:
        raise UserError(f"{source} was inflated by {source_plan.inflation}, the plan says {plan.inflation}: one of "
                        "them keeps 2D kernels, the other does not.")  # fmt: skip
    report = _load(target, source_state, source, source_plan.mask_channels)
    if not report.parameters["matched"] + report.parameters["adapted"]:
        raise UserError(f"{source}: none of its tensors fits the planned network.")
    target.load_report = report
    return report


def fresh_report(network: SegmentationNetwork) -> LoadReport:
    """Return the report of a network that nothing was loaded into."""
    return _load(network, {}, "random", 0)


def _load(network: SegmentationNetwork, source: Mapping[str, Tensor], label: str, source_masks: int) -> LoadReport:
    transposed = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
    }
    trainable = {name: parameter.numel() for name, parameter in network.named_parameters()}
    image_layers = network.image_layers()
    masks = (source_masks, network.plan.mask_channels)
    layers: list[tuple[str, Status, str]] = []
    parameters, tensors = Counter(matched=0, adapted=0, new=0), Counter(matched=0, adapted=0, new=0)
    values: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        mode: Mode = "replicate" if name in transposed else network.plan.inflation
        value, status, why = _fit(source.get(name), tensor, mode, masks if name in image_layers else None)
        values[name] = value
        if name.endswith("num_batches_tracked"):  # a counter, not a weight
            continue
        layers.append((name, status, why))
        if name in trainable:
            parameters[status] += trainable[name]
            tensors[status] += 1
    network.load_state_dict(values)
    unused = [name for name in source if name not in values]
    return LoadReport(label, layers, dict(parameters), dict(tensors), unused)


def _fit(saved: Tensor | None, target: Tensor, mode: Mode, masks: tuple[int, int] | None) -> tuple[Tensor, Status, str]:
    """Fit a tensor. For a layer that takes the image, `masks` holds the numbers of masks of source and target."""
    if saved is None:
        return target, "new", "not in the source"
    value: Tensor = saved.to(target)  # device and type
    how: list[str] = []
    if masks and saved.ndim > 1 and (saved.shape[1] != target.shape[1] or masks[0] != masks[1]):
        value = _adapt_input(value, target.shape[1], masks)
        how.append(f"channels {saved.shape[1]} -> {target.shape[1]}")
    if value.ndim > 2 and value.shape[2:] != target.shape[2:] and value.shape[:2] == target.shape[:2]:
        size = value.numel()
        try:
            value = fit_kernel(value, tuple(target.shape[2:]), mode)
        except ValueError as reason:
            return target, "new", str(reason)
        if value.numel() != size:  # else it only got an axis of extent 1
            by = mode if value.numel() > size else "sum"
            how.append(f"kernel {_times(saved.shape[2:])} -> {_times(target.shape[2:])} by {by}")
    if value.shape != target.shape:
        return target, "new", f"shape {_times(saved.shape)} in the source, {_times(target.shape)} here"
    return value, "adapted" if how else "matched", ", ".join(how)


def _adapt_input(weight: Tensor, channels: int, masks: tuple[int, int]) -> Tensor:
    """Adapt the kernels of the image's channels. Those of the masks are kept if their number is equal, else 0."""
    images = weight.shape[1] - masks[0]
    adapted = adapt_channels(weight[:, :images], channels - masks[1])
    kept = weight[:, images:] if masks[0] == masks[1] else weight.new_zeros(len(weight), masks[1], *weight.shape[2:])
    return torch.cat([adapted, kept], dim=1)


def _times(shape: torch.Size) -> str:
    return "x".join(str(size) for size in shape)
