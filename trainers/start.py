"""The network a run starts from: at random, from a 2D encoder's weights, or from a whole trained model."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from autocrossdim.checkpoint import Checkpoint
from autocrossdim.errors import UserError
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.networks.plan import NetworkPlan
from autocrossdim.networks.transfer import transfer
from autocrossdim.networks.weights import resolve_weights
from autocrossdim.workspace import FoldFolder

OMNIA = "omnia"  # the word for this dataset's trained Omnia-Net of the same fold


def starting_network(plan: NetworkPlan, weights: str, folder: FoldFolder) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """Build the network and load what was asked for.

    Args:
        plan: of the network.
        weights: `random`; `imagenet`, `noisy_student`, a full timm name or a file of encoder weights; `omnia`; or the
            folder or checkpoint of a model trained here.
        folder: of the fold to be trained, beside which `omnia` is looked for.

    Returns:
        The network and, JSON-able, where every layer came from.

    Raises:
        UserError: the weights cannot be had or do not fit; never a random start that was not asked for.
    """
    checkpoint_file = _checkpoint_file(weights, folder)
    if checkpoint_file is None:
        encoder_weights = resolve_weights(weights, plan.encoder)
        network = build_network(plan, encoder_weights)
        provenance = {"weights": weights} if encoder_weights is None else encoder_weights.provenance()
    else:
        checkpoint = Checkpoint.read(checkpoint_file)
        configuration = checkpoint.plan.configuration(checkpoint.configuration)
        network = build_network(plan, None)
        transfer(checkpoint.network, checkpoint.plan.network_plan(configuration), network, str(checkpoint_file))
        provenance = {"model": str(checkpoint_file), "started_from": checkpoint.provenance}
    return network, {**provenance, "report": asdict(network.load_report)}


def _checkpoint_file(weights: str, folder: FoldFolder) -> Path | None:
    """The trained model that `weights` names, or None where it names encoder weights or `random`."""
    if weights == OMNIA:
        # The same fold: another one has seen this fold's validation cases.
        path = folder.root.parent.parent / OMNIA / folder.root.name / "checkpoint_latest"
        if not path.exists():
            fold = folder.root.name.removeprefix("fold_")
            raise UserError(
                f"--weights omnia: {path} does not exist. Train it first: `autocrossdim train DATASET --config omnia "
                f"--fold {fold}`."
            )
        return path
    path = Path(weights)
    if path.is_dir():
        found = [path / "checkpoint_latest", path / folder.root.name / "checkpoint_latest"]
        for file in found:
            if file.exists():
                return file
        raise UserError(f"--weights {weights}: holds neither checkpoint_latest nor {folder.root.name}.")
    return path if path.is_file() and path.name.startswith("checkpoint_") else None
