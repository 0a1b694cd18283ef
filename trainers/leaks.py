"""A fold must not learn from its validation cases, neither through its starting weights nor from unlabelled scans."""

from autocrossdim.records.trained_on import TrainedOn
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed
from trainers.run import Run


def require_held_out(run: Run, trained_on: TrainedOn, source: object = None) -> None:
    """Raise a UserError if a case that weights were trained on, even if renamed, is a validation case of the fold.

    Args:
        run: The run.
        trained_on: What the weights were trained on.
        source: Where starting weights come from; None for the weights that the fold already has.
    """
    task = run.task
    leaked = trained_on.among(task.split.val, task.split.train, task.store.contents, task.groups)
    if leaked and source is not None:
        raise UserError(
            f"{source}: was trained on {listed(leaked)}, which would validate {run.name}. Choose weights that were not "
            "trained on them, or train those again on the present folds."
        )
    if leaked:
        raise UserError(
            f"{run.folder.latest}: trained on other cases than the fold has now: {listed(leaked)}, which it was "
            "trained on, would validate it. Train again with --restart, and with weights that were not trained on them."
        )


def require_scans_held_out(run: Run) -> None:
    """Raise a UserError if an unlabelled scan is the image of a validation case under another name."""
    if run.task.unlabelled is None:
        return
    scans = {run.task.unlabelled.store.image_hash(name): name for name in run.unlabelled}
    for case in run.task.split.val if scans else ():
        for content in scans.keys() & run.task.store.contents(case):
            raise UserError(
                f"imagesUn: {scans[content]} is the same image as {case}, a validation case of {run.name}. Remove it "
                "from imagesUn."
            )
