"""One run of a study, by the commands that a user would type: plan, train, predict and evaluate."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.commands.ensemble import ensemble
from autocrossdim.commands.evaluate import evaluate
from autocrossdim.commands.plan import plan
from autocrossdim.commands.predict import predict
from autocrossdim.commands.project import ALL, Project
from autocrossdim.commands.train import train
from autocrossdim.records.history import read_history
from autocrossdim.records.study import CurvePoint, StudyRun, case_metrics
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.studies.engine import RAW, RECORD, WORK, run_folder
from autocrossdim.system.console import without_advice

if TYPE_CHECKING:
    from autocrossdim.data.dataset import Dataset
    from autocrossdim.studies.design import Job

SHARED = ("epochs", "max_seconds")  # settings that are the budget of a run
SEGMENTED = "segmented"


@dataclass(frozen=True)
class Performer:
    """Carries out the runs of a study.

    Attributes:
        datasets: The dataset that the cases come from, by the number of slices averaged into one.
        folder: Directory of the study.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        processes: Worker processes of planning, preprocessing and evaluation.
    """

    datasets: Mapping[int, "Dataset"]
    folder: Path
    device: str
    processes: int | None

    def __call__(self, job: "Job", place: Path) -> StudyRun:
        """Carry out a run in the directory `place`, or resume it."""
        with without_advice():
            return self._averaged(job, place) if job.arm.members else self._trained(job, place)

    def _trained(self, job: "Job", place: Path) -> StudyRun:
        from autocrossdim.studies.datasets import write_training_dataset

        arm, work = job.arm, place / WORK
        fold: int | str = 0 if job.curves else ALL
        dataset = write_training_dataset(
            self.datasets[job.slicing], place / RAW, train=job.training, val=job.test if job.curves else ()
        )
        planned = plan(dataset, work=work, planner=arm.planner, processes=self.processes, trial=False, **job.plan)
        configuration = planned.configuration(arm.config)
        workspace = Workspace.of(dataset.name, work)
        settings, before = dict(job.settings), 0.0
        for name in (*(["omnia"] if arm.first is not None else []), configuration.name):
            # `train` would do this with its default number of processes.
            Project.open(dataset, work=work).store(name, processes=self.processes)
        if arm.first is not None:
            settings = _half(settings)
            train(dataset, work=work, config="omnia", fold=fold, weights=arm.first, device=self.device, set=settings)
            before = _history(workspace.fold("omnia", fold))[-1]["total"]
        train(
            dataset,
            work=work,
            config=configuration.name,
            fold=fold,
            weights=arm.weights,
            device=self.device,
            set=settings,
        )
        output, started = place / SEGMENTED, time.monotonic()
        predict(
            dataset,
            held_out_folder(self.folder, job.slicing, job.test) / "images",
            output,
            work=work,
            fold=fold,
            config=configuration.name,
            probabilities=arm.probabilities,
            device=self.device,
            overwrite=True,  # so that the time includes all cases
        )
        seconds = (time.monotonic() - started) / len(job.test)
        history = _history(workspace.fold(configuration.name, fold))
        twin = _history(workspace.fold(configuration.name, fold).slices)
        before += twin[-1]["total"] if twin else 0.0
        return StudyRun(
            **self._evaluated(job, output),
            anisotropy=planned.decision.anisotropy,
            configuration=configuration.name,
            training_seconds=before + history[-1]["total"],
            prediction_seconds=seconds,
            memory_bytes=configuration.memory.estimated_bytes,
            steps=history[-1]["step"],
            curve=tuple(
                CurvePoint(seconds=before + line["total"], loss=line["loss"], dice=line["mean_pseudo_dice"])
                for line in history
            ),
        )

    def _averaged(self, job: "Job", place: Path) -> StudyRun:
        places = [run_folder(self.folder, name, job) for name in job.arm.members]
        members = [StudyRun.read(each / RECORD) for each in places]
        output = place / SEGMENTED
        ensemble([each / SEGMENTED for each in places], output, dataset=self.datasets[job.slicing].path)
        return StudyRun(
            **self._evaluated(job, output),
            anisotropy=members[0].anisotropy,
            configuration=" + ".join(member.configuration for member in members),
            training_seconds=sum(member.training_seconds for member in members),
            prediction_seconds=sum(member.prediction_seconds for member in members),
            memory_bytes=max(member.memory_bytes for member in members),
            steps=sum(member.steps for member in members),
        )

    def _evaluated(self, job: "Job", output: Path) -> dict[str, Any]:
        """Return the identity of the run and the metrics of the held-out cases."""
        dataset = self.datasets[job.slicing]
        labels = held_out_folder(self.folder, job.slicing, job.test) / "labels"
        summary = evaluate(output, labels, dataset=dataset.path, processes=self.processes)
        return {
            "arm": job.arm.name,
            "size": len(job.training),
            "slicing": job.slicing,
            "seed": job.seed,
            "options": job.options,
            "cases": case_metrics(summary, dataset.file_ending),
            "unit": summary.unit,
            "scope": summary.scope,
        }


def held_out_folder(folder: Path, slicing: int, names: Collection[str]) -> Path:
    """Return the directory of held-out cases in which `slicing` slices are averaged into one.

    Each set of held-out cases has its own directory, so a command with other `--test-cases` does not change the files
    of a running one. Directories of earlier sets are kept.
    """
    digest = sha256("\0".join(sorted(names)).encode()).hexdigest()[:8]
    return folder / "test" / f"{len(names)}_cases_{digest}" / f"slicing_{slicing}"


def _half(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with half of the budget, for two networks that are trained one after the other."""
    halves = {name: settings[name] / 2 for name in SHARED if settings.get(name) is not None}
    if "epochs" in halves:
        halves["epochs"] = max(1, round(halves["epochs"]))
    return settings | halves


def _history(folder: FoldFolder) -> list[dict[str, Any]]:
    """Return the epochs of a fold with the training time so far as `total`; empty if it was not trained."""
    epochs = read_history(folder.history)
    totals = accumulate(epoch["seconds"] for epoch in epochs)
    return [{**epoch, "total": total} for epoch, total in zip(epochs, totals, strict=True)]
