"""A network from its plan, with its weights."""

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.dsnet import DSNet
from autocrossdim.networks.plain import PlainUNet
from autocrossdim.networks.transfer import fresh_report, load_encoder
from autocrossdim.networks.unet import UNet
from autocrossdim.networks.weights import EncoderWeights
from autocrossdim.records.network import Kind, NetworkPlan

_NETWORKS: dict[Kind, type[SegmentationNetwork]] = {"unet": UNet, "ds": DSNet, "plain": PlainUNet}


def build_network(plan: NetworkPlan, weights: EncoderWeights | None) -> SegmentationNetwork:
    """Build a network; under `torch.device("meta")` without memory or arithmetic.

    Args:
        plan: The network.
        weights: Result of `resolve_weights`; None for random weights, if those were requested.

    Returns:
        The network in training mode; its `load_report` says where its parameters came from.

    Raises:
        UserError: The encoder is unknown, has fewer levels than the plan or layers without a 3D twin, or the weights
            belong to another encoder.
    """
    network = _NETWORKS[plan.kind](plan)
    if weights is None:
        network.load_report = fresh_report(network)
    else:
        load_encoder(network, weights)
    return network
