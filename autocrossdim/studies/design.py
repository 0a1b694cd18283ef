"""What a study is: arms that are trained on the same cases with the same seeds, and a summary of their runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocrossdim.records.study import Comparison, StudyRun, Table


@dataclass(frozen=True)
class Arm:
    """One way to train. What is not given here is the same for all arms of a study.

    Attributes:
        name: Name in tables and figures.
        config: Configuration to train; None for an ensemble.
        weights: Starting weights, as for `autocrossdim train`.
        first: Starting weights of an Omnia-Net that is trained first and from which the network then starts.
        planner: Name of the planner.
        plan: Options of the plan that this arm needs.
        settings: Training settings that this arm needs.
        probabilities: Whether an ensemble may need its probabilities.
        members: Arms whose probabilities are averaged; nothing is trained then.
    """

    name: str
    config: str | None = None
    weights: str = "imagenet"
    first: str | None = None
    planner: str = "auto"
    plan: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    probabilities: bool = False
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a study is built from.

    Attributes:
        config: Configuration that the user named, else the decision of the plan.
        weights: Starting weights that the user named, else the default ones.
    """

    config: str
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """What the runs of a study show.

    Attributes:
        conclusion: One sentence.
        table: Means per arm, with intervals.
        draw: Writes the figure to a path, as PNG.
        notes: Sentences that are needed to read the table.
        comparisons: Paired differences.
        numbers: Further results, by name.
    """

    conclusion: str
    table: Table
    draw: Callable[[Path], None]
    notes: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    numbers: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A question, the arms that answer it, and how their runs are summarised.

    Attributes:
        name: Name on the command line.
        question: The question.
        arms: Returns the arms. The first one is the reference that the others are compared with.
        summarise: Returns what the runs show; the runs are those of the arms named.
        sizes: Returns the default numbers of training cases, from the number of cases that can be trained on.
        slicings: Numbers of slices averaged into one.
        volumes: Whether the study needs 3D images.
        curves: Whether held-out patches are scored after every epoch.
        any_config: Whether the user may choose the configuration.
        several_weights: Whether several starting weights are compared.
    """

    name: str
    question: str
    arms: Callable[[Request], list[Arm]]
    summarise: Callable[[Sequence[str], Sequence[StudyRun]], Finding]
    sizes: Callable[[int], list[int]] = lambda available: [available]
    slicings: tuple[int, ...] = (1,)
    volumes: bool = False
    curves: bool = False
    any_config: bool = False
    several_weights: bool = False


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        arm: How to train.
        training: Names of the training cases.
        test: Names of the held-out cases.
        seed: Seed that chose the training cases, and of the training.
        slicing: Number of slices averaged into one.
        plan: Options of the plan, those of the arm included.
        settings: Training settings, those of the arm and the seed included.
        contents: Digests of the files of the training and the held-out cases, in the order of their names.
        described: What dataset.json says about labels, images and patients.
        curves: Whether held-out patches are scored after every epoch.
    """

    arm: Arm
    training: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    slicing: int
    plan: Mapping[str, Any]
    settings: Mapping[str, Any]
    contents: tuple[str, ...] = ()
    described: Mapping[str, Any] = field(default_factory=dict)
    curves: bool = False

    @property
    def title(self) -> str:
        """The run in words."""
        slices = f", {self.slicing} slices averaged" if self.slicing > 1 else ""
        return f"{self.arm.name}, {len(self.training)} cases{slices}, seed {self.seed}"

    @property
    def options(self) -> dict[str, Any]:
        """Everything that determines the result, by name, as values that can be written to JSON."""
        return {
            "config": self.arm.config,
            "weights": self.arm.weights,
            "first": self.arm.first,
            "planner": self.arm.planner,
            "members": list(self.arm.members),
            "plan options": {name: _plain(value) for name, value in sorted(self.plan.items())},
            "training settings": dict(sorted(self.settings.items())),
            "training cases": list(self.training),
            "held-out cases": list(self.test),
            "contents of the files": list(self.contents),
            "keys of dataset.json": dict(self.described),
            "slicing": self.slicing,
        }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
