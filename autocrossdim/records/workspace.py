"""Paths of all results of a dataset below the work directory; nothing is read or created here."""

import os
from dataclasses import dataclass
from pathlib import Path

from autocrossdim.system.errors import UserError
from autocrossdim.system.lock import LOCK


def default_work() -> Path:
    """Return `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`."""
    return Path(os.environ.get("AUTOCROSSDIM_WORK") or "autocrossdim_work")


@dataclass(frozen=True)
class Workspace:
    """The directory `<work>/<DatasetXXX_Name>` and the paths inside it."""

    root: Path

    @classmethod
    def of(cls, dataset_name: str, work: Path | None) -> "Workspace":
        """Return the workspace of a dataset below `work` (default: `default_work()`)."""
        return cls((work or default_work()) / dataset_name)

    @classmethod
    def of_model(cls, folder: Path) -> "Workspace":
        """Return the workspace that contains a model directory, `<workspace>/models/<configuration>`."""
        return cls(folder.resolve().parent.parent)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.root.name

    @property
    def dataset_json(self) -> Path:
        """Copy of the raw dataset's dataset.json."""
        return self.root / "dataset.json"

    @property
    def fingerprint(self) -> Path:
        """Measurements of the training cases."""
        return self.root / "fingerprint.json"

    @property
    def splits(self) -> Path:
        """Training and validation cases of each fold."""
        return self.root / "splits.json"

    @property
    def plan(self) -> Path:
        """The decision, its reasons, and the configurations."""
        return self.root / "plan.json"

    @property
    def best(self) -> Path:
        """The choice of `find_best`."""
        return self.root / "best.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    @property
    def suggestions(self) -> Path:
        """Unlabelled scans to annotate next."""
        return self.root / "annotate_next.json"

    @property
    def drafts(self) -> Path:
        """Segmentations of the unlabelled scans, and what was measured on them."""
        return self.root / "annotate_next"

    @property
    def studies(self) -> Path:
        """Directories of the studies."""
        return self.root / "studies"

    def preprocessed(self, configuration: str) -> Path:
        """Store of preprocessed cases of a configuration."""
        return self.root / "preprocessed" / configuration

    def unlabelled(self, configuration: str) -> Path:
        """Store of the preprocessed unlabelled scans of a configuration."""
        return self.root / "preprocessed" / f"{configuration}_unlabelled"

    def model(self, configuration: str) -> Path:
        """Directory of all folds of a configuration."""
        return self.root / "models" / configuration

    def summary(self, configuration: str) -> Path:
        """Metrics of all validation cases of a configuration."""
        return self.model(configuration) / "summary.json"

    def familiarity(self, configuration: str) -> Path:
        """File with how like the training data each held-out case of a configuration is."""
        return self.model(configuration) / "familiarity.json"

    def fold(self, configuration: str, fold: int | str) -> "FoldFolder":
        """Directory of one fold of a configuration."""
        return FoldFolder(self.model(configuration) / f"fold_{fold}")

    def study(self, name: str) -> Path:
        """Directory of a study."""
        return self.studies / name

    @property
    def lock(self) -> Path:
        """Lock of the commands that plan, compare models or segment unlabelled scans."""
        return self.root / LOCK

    def require_plan(self) -> None:
        """Raise a UserError naming the command to run unless the dataset was planned here."""
        if not self.plan.exists():
            raise UserError(f"{self.plan}: no such file. Run `autocrossdim plan_and_preprocess` first.")


@dataclass(frozen=True)
class FoldFolder:
    """The directory of a trained fold and the paths inside it."""

    root: Path

    @property
    def workspace(self) -> Workspace:
        """The workspace of the fold. Links are not resolved: `models` may be on another disk."""
        return Workspace(self.root.absolute().parents[2])

    @property
    def configuration(self) -> str:
        """Name of the configuration that the fold belongs to."""
        return self.root.absolute().parent.name

    @property
    def fold(self) -> str:
        """Number of the fold, or "all"."""
        return self.root.name.removeprefix("fold_")

    @property
    def lock(self) -> Path:
        """Lock of the process that trains the fold; beside the directory, which `--restart` removes."""
        return self.root.with_name(f".{self.root.name}{LOCK}")

    @property
    def model_summary(self) -> Path:
        """Metrics of all folds of the configuration."""
        return self.root.parent / "summary.json"

    @property
    def slices(self) -> "FoldFolder":
        """Directory of the same fold of DX-Net's 2D twin, which is trained before it."""
        return FoldFolder(self.root.parent / "slices" / self.root.name)

    @property
    def latest(self) -> Path:
        """Checkpoint after the last finished epoch, from which training resumes and which prediction uses."""
        return self.root / "checkpoint_latest"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the best validation pseudo-Dice."""
        return self.root / "checkpoint_best"

    @property
    def restart(self) -> Path:
        """File that exists from a request to start over (--restart) until existing checkpoints were discarded."""
        return self.root / "restart"

    @property
    def history(self) -> Path:
        """Training history: one JSON line per epoch."""
        return self.root / "history.jsonl"

    @property
    def progress(self) -> Path:
        """Figure of the training history."""
        return self.root / "progress.png"

    @property
    def validation(self) -> Path:
        """Segmentations of the fold's validation cases and their summary.json."""
        return self.root / "validation"

    @property
    def summary(self) -> Path:
        """Metrics of the fold's validation cases."""
        return self.validation / "summary.json"
