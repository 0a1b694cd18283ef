"""A network from its plan, with its weights."""

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.dsnet import DSNet
from autocrossdim.networks.plain import PlainUNet
from autocrossdim.networks.transfer import fresh_report, load_encoder
from autocrossdim.networks.unet import UNet
from autocrossdim.networks.weights import EncoderWeights
from autocrossdim.records.network import Kind, NetworkPlan

__all__ = ["NetworkPlan", "SegmentationNetwork", "build_network"]

_NETWORKS: dict[Kind, type[SegmentationNetwork]] = {"unet": UNet, "ds": DSNet, "plain": PlainUNet}


def build_network(plan: NetworkPlan, weights: EncoderWeights | None) -> SegmentationNetwork:
    """Build a network; under `torch.device("meta")` without memory or arithmetic.

    Args:
        plan: what to build.
        weights: what `resolve_weights` gave; None starts at random, because that was asked for.

    Returns:
        The network in training mode; its `load_report` says where its parameters came from.

    Raises:
        UserError: the encoder is unknown, has fewer levels than the plan, holds layers without a 3D twin, or
            the weights are another encoder's.
    """
    network = _NETWORKS[plan.kind](plan)
    if weights is None:
        network.load_report = fresh_report(network)
    else:
        load_encoder(network, weights)
    return network
