"""Where a run's history is also sent: TensorBoard or MLflow, both optional extras."""

from collections.abc import Callable
from typing import Any

from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.errors import UserError

Monitor = Callable[[dict[str, Any]], None]


def monitor_for(name: str, folder: FoldFolder) -> Monitor | None:
    """Return what takes each line of the history.

    Args:
        name: `none`, `tensorboard` (event files in the fold's folder) or `mlflow` (its own tracking address).
        folder: of the fold.

    Raises:
        UserError: the extra is not installed.
    """
    if name == "none":
        return None
    try:
        return _tensorboard(folder) if name == "tensorboard" else _mlflow(folder)
    except ImportError as error:
        raise UserError(f"--set monitor={name}: not installed. Run `pip install 'autocrossdim[{name}]'`.") from error


def _tensorboard(folder: FoldFolder) -> Monitor:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder.root / "tensorboard"))

    def send(entry: dict[str, Any]) -> None:
        for name, value in numbers(entry).items():
            writer.add_scalar(name, value, entry["step"])
        writer.flush()

    return send


def _mlflow(folder: FoldFolder) -> Monitor:
    import mlflow

    dataset, configuration, fold = folder.root.parts[-4], folder.root.parts[-2], folder.root.name
    mlflow.set_experiment(dataset)

    def send(entry: dict[str, Any]) -> None:
        name = f"{configuration}/{fold}"
        found = mlflow.search_runs(filter_string=f"attributes.run_name = '{name}'", output_format="list")
        with mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=name):
            mlflow.log_metrics(numbers(entry), step=entry["step"])

    return send


def numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Return a history line's numbers, nested ones with their label: `pseudo_dice/liver`."""
    flat: dict[str, float] = {}
    for name, value in entry.items():
        for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
            if number is not None:
                flat[f"{name}/{inner}" if inner else name] = float(number)
    return flat
