"""A student of an ensemble and how it compares with its teachers: the typed content of student.json."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autocrossdim.records.best import contender_name
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.files import read_record, write_text

FILE = "student.json"


class HeldOut(BaseModel):
    """A student beside its teachers on the same held-out cases, each segmented by folds that never saw it.

    Attributes:
        n_cases: Number of cases.
        dice: Mean foreground Dice of the student, without mirroring.
        teachers_dice: That of the teachers of the same fold, averaged, with mirroring.
        difference: The first minus the second.
        interval: Its 95 % interval over cases or groups; None with fewer than two groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_cases: int
    dice: float
    teachers_dice: float
    difference: float
    interval: tuple[float, float] | None


class Student(BaseModel):
    """A student of the ensemble that `find_best` chose.

    Attributes:
        name: Its configuration, such as `omnia_distilled`.
        teachers: Configurations that taught it.
        unlabelled: Number of unlabelled scans.
        saving: Multiply-adds of the ensemble of all folds, with mirroring, divided by those of the student.
        held_out: The comparison; None until every fold of the student has been validated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    teachers: tuple[str, ...]
    unlabelled: int
    saving: float
    held_out: HeldOut | None = None

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        scans = f" and {self.unlabelled} unlabelled scans" if self.unlabelled else ""
        taught = (
            f"{self.name}: one network that learned from {contender_name(self.teachers)} on the training cases{scans}. "
            f"Prediction takes {self.saving:.0f} times fewer multiply-adds than all folds of its teachers with "
            "mirroring."
        )
        found = self.held_out
        if found is None:
            return f"{taught} It was not compared with them, because not all of its folds are trained."
        ends = found.interval
        interval = "" if ends is None else f", 95 % interval {ends[0]:+.3f} to {ends[1]:+.3f}"
        return (
            f"{taught} On {found.n_cases} held-out cases, its mean Dice is {found.dice:.3f}, that of its teachers "
            f"{found.teachers_dice:.3f} (difference {found.difference:+.3f}{interval}; one fold of each, the teachers "
            "with mirroring)."
        )

    @classmethod
    def read(cls, path: Path) -> "Student":
        """Read student.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        return read_record(cls, path, remedy="Run `autocrossdim distil` again, or delete it.")

    def write(self, workspace: Workspace) -> None:
        """Write student.json beside the folds of the student."""
        write_text(workspace.model(self.name) / FILE, self.model_dump_json(indent=2) + "\n")


def students(workspace: Workspace) -> list[Student]:
    """Return the students in a workspace.

    Raises:
        UserError: A file is damaged.
    """
    return [Student.read(path) for path in sorted(workspace.root.glob(f"models/*/{FILE}"))]
