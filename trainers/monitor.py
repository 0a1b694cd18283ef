"""Tools that the history of a run is also sent to: TensorBoard or MLflow, both optional extras."""

from collections.abc import Callable
from typing import Any

from autocrossdim.system.errors import UserError
from trainers.run import Run

Monitor = Callable[[dict[str, Any]], None]


def monitor_for(run: Run) -> Monitor | None:
    """Return a function that sends a line of the history to the tool that the settings name; None if none is.

    TensorBoard's event files are written to the directory of the fold, MLflow uses its own tracking address.

    Raises:
        UserError: The tool is not installed.
    """
    name = run.settings.monitor
    if name == "none":
        return None
    try:
        return _tensorboard(run) if name == "tensorboard" else _mlflow(run)
    except ImportError as error:
        raise UserError(f"--set monitor={name}: not installed. Run `pip install 'autocrossdim[{name}]'`.") from error


def _tensorboard(run: Run) -> Monitor:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder.root / "tensorboard"))

    def send(entry: dict[str, Any]) -> None:
        for name, value in numbers(entry).items():
            writer.add_scalar(name, value, entry["step"])
        writer.flush()

    return send


def _mlflow(run: Run) -> Monitor:
    import mlflow

    mlflow.set_experiment(run.task.plan.dataset)
    name = f"{run.configuration.name}/fold_{run.task.fold}"

    def send(entry: dict[str, Any]) -> None:
        existing = mlflow.search_runs(filter_string=f"attributes.run_name = '{name}'", output_format="list")
        with mlflow.start_run(run_id=existing[0].info.run_id if existing else None, run_name=name):
            mlflow.log_metrics(numbers(entry), step=entry["step"])

    return send


def numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of the history; nested ones are named as in `pseudo_dice/liver`."""
    flat: dict[str, float] = {}
    for name, value in entry.items():
        for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
            if number is not None:
                flat[f"{name}/{inner}" if inner else name] = float(number)
    return flat
