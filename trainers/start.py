"""The network a run starts from: at random, from a 2D encoder's weights, or from a whole trained model."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from autocrossdim.models.model_file import SUFFIX, ModelFile
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.networks.transfer import transfer
from autocrossdim.networks.weights import resolve_weights
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.network import NetworkPlan
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.errors import UserError

OMNIA = "omnia"  # the word for this dataset's trained Omnia-Net of the same fold


def starting_network(plan: NetworkPlan, weights: str, folder: FoldFolder) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """Build the network and load what was asked for.

    Args:
        plan: of the network.
        weights: `random`; `imagenet`, `noisy_student`, a full timm name or a file of encoder weights; `omnia`; the
            folder or checkpoint of a model trained here; or an exported file.
        folder: of the fold to be trained, beside which `omnia` is looked for.

    Returns:
        The network and, JSON-able, where every layer came from.

    Raises:
        UserError: the weights cannot be had or do not fit; never a random start that was not asked for.
    """
    trained = _trained(weights, folder)
    if trained is None:
        encoder_weights = resolve_weights(weights, plan.encoder)
        network = build_network(plan, encoder_weights)
        provenance = {"weights": weights} if encoder_weights is None else encoder_weights.provenance()
    else:
        file, checkpoint = trained
        source_plan = checkpoint.plan.network_plan(checkpoint.plan.configuration(checkpoint.configuration))
        with torch.device("meta"):
            expected = build_network(source_plan, None).state_dict()
        if expected.keys() != checkpoint.network.keys():  # what it lacks would start at random
            raise UserError(f"{file}: its weights are not those of the planned network. Train it again with --restart.")
        network = build_network(plan, None)
        transfer(checkpoint.network, source_plan, network, str(file))
        provenance = {"model": str(file), "started_from": checkpoint.provenance}
    return network, {**provenance, "report": asdict(network.load_report)}


def is_model(weights: str) -> bool:
    """Whether `weights` names a whole trained model rather than encoder weights or `random`."""
    path = Path(weights)
    return weights == OMNIA or weights.endswith(SUFFIX) or path.is_dir() or path.name.startswith("checkpoint_")


def _trained(weights: str, folder: FoldFolder) -> tuple[Path, Checkpoint] | None:
    """The trained model that `weights` names and its file, or None where it names encoder weights or `random`."""
    if weights.endswith(SUFFIX):
        return _exported(ModelFile.read(weights), folder)
    file = _checkpoint_file(weights, folder)
    return None if file is None else (file, Checkpoint.read(file))


def _exported(file: ModelFile, folder: FoldFolder) -> tuple[Path, Checkpoint]:
    """The same fold of the same configuration, or what is nearest to it in the file of another dataset."""
    configuration, dataset = folder.root.parent, folder.root.parents[2]
    name = configuration.name if configuration.name in file.folds else next(iter(file.folds))
    fold, there = folder.root.name, file.folds[name]
    # Of the same dataset, another fold has seen this fold's validation cases; asking for it fails if it is not there.
    if fold not in there and file.plan.dataset != dataset.name:
        fold = there[0]
    (checkpoints,) = file.checkpoints(fold=[fold.removeprefix("fold_")], config=[name])
    return next(checkpoints)


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
