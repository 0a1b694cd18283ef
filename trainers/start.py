"""The network a run starts from: random weights, the weights of a 2D encoder, or a trained model."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.source import OMNIA, find_exported
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.networks.transfer import transfer
from autocrossdim.networks.weights import resolve_weights
from autocrossdim.records.checkpoint import PREVIOUS, Checkpoint
from autocrossdim.records.network import NetworkPlan
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.console import warn
from autocrossdim.system.errors import UserError


def starting_network(plan: NetworkPlan, weights: str, folder: FoldFolder) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """Build the network and load its starting weights.

    Args:
        plan: The network.
        weights: `random`; `imagenet`, `noisy_student`, a full timm name or a file of encoder weights; `omnia`;
            `previous`; the directory or checkpoint of a trained model; or an exported file, its address on the hub, or
            a copy of its repository there.
        folder: Directory of the fold to train, which tells where `omnia` and `previous` are.

    Returns:
        The network, and as JSON-able values where its weights came from.

    Raises:
        UserError: The weights are unavailable or do not fit. The network never starts from random weights unless
            `random` was requested.
    """
    trained = _trained(weights, folder)
    if trained is None:
        encoder_weights = resolve_weights(weights, plan.encoder)
        network = build_network(plan, encoder_weights)
        provenance = {"weights": weights} if encoder_weights is None else encoder_weights.provenance()
    else:
        name, checkpoint = trained
        source_plan = checkpoint.plan.network_plan(checkpoint.plan.configuration(checkpoint.configuration))
        with torch.device("meta"):
            expected = build_network(source_plan, None).state_dict()
        if expected.keys() != checkpoint.network.keys():  # a missing layer would start from random weights
            raise UserError(f"{name}: its weights do not fit the planned network. Train it again with --restart.")
        network = build_network(plan, None)
        transfer(checkpoint.network, source_plan, network, name)
        run = checkpoint.run
        provenance = {"model": name, "steps": run.step, "seconds": run.seconds, "started_from": checkpoint.provenance}
        provenance |= checkpoint.trained_on.provenance()
        if checkpoint.plan.dataset != folder.workspace.dataset:  # there, the same names are other cases
            provenance["cases"] = []
    return network, {**provenance, "report": asdict(network.load_report)}


def _trained(weights: str, folder: FoldFolder) -> tuple[str, Checkpoint] | None:
    """Return the trained model that `weights` names and where it comes from; None for encoder weights or `random`."""
    if exported := find_exported(weights):
        path, name = exported
        return name, _exported(ModelFile.read(path), folder, name)
    file = _checkpoint_file(weights, folder)
    return None if file is None else (str(file), Checkpoint.read(file))


def _exported(file: ModelFile, folder: FoldFolder, source: str) -> Checkpoint:
    """Return the same fold of the same configuration; of another dataset, the first one if that does not exist.

    The file names no case, so a validation case on which the fold was trained cannot be found, and a warning must do.
    """
    name = folder.configuration if folder.configuration in file.folds else next(iter(file.folds))
    fold = folder.fold
    # Another fold of the same dataset was trained on the validation cases of this one; requesting this one then fails.
    if f"fold_{fold}" not in file.folds[name] and file.plan.dataset != folder.workspace.dataset:
        fold = file.folds[name][0].removeprefix("fold_")
    if file.plan.dataset == folder.workspace.dataset and fold != "all":
        warn(
            f"{source}: was trained on a dataset of the same name, {file.plan.dataset}, and does not list the cases. "
            f"Unless the folds were the same, fold {fold} may start from weights that were trained on its validation "
            "cases, which makes its results too good. After cases were added, use --weights previous."
        )
    (checkpoints,) = file.checkpoints(fold=[fold], config=[name])
    return next(checkpoints)[1]


def _checkpoint_file(weights: str, folder: FoldFolder) -> Path | None:
    """Return the checkpoint that `weights` names; None for encoder weights or `random`."""
    if weights == OMNIA:
        # Another fold was trained on the validation cases of this one.
        path = folder.workspace.fold(OMNIA, folder.fold).latest
        if not path.exists():
            raise UserError(
                f"--weights omnia: {path} does not exist. Train it first: `autocrossdim train DATASET --config omnia "
                f"--fold {folder.fold}`."
            )
        return path
    if weights == PREVIOUS:
        # A fold without validation cases has no best epoch.
        path = folder.best if folder.best.exists() else folder.latest
        if not path.exists():
            raise UserError(
                f"--weights previous: {path} does not exist, so there are no previous weights to start from. Train "
                "this fold with other starting weights first, for example --weights imagenet."
            )
        return path
    path = Path(weights)
    if path.is_dir():
        for candidate in (FoldFolder(path), FoldFolder(path / folder.root.name)):
            if candidate.latest.exists():
                return candidate.latest
        raise UserError(
            f"--weights {weights}: contains neither checkpoint_latest nor {folder.root.name}. Give the directory of a "
            "trained fold, or of a model with this fold."
        )
    return path if path.is_file() and path.name.startswith("checkpoint_") else None
