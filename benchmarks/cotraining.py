"""Do Omnia-Net and DX-Net help each other if they learn together from scans without labels, at equal compute?

    python benchmarks/cotraining.py --data ../shared/data --work FOLDER --cases 8 --weights FILE

Hippocampus: `--cases` labelled cases chosen by the seed, 100 unlabelled scans, tested on the other training cases, all
of them as in `unlabelled.py`. DX-Net first learns from slices as usual (its 2D twin, the same in both arms), then both
networks learn from labelled patches, Omnia-Net twice per step of DX-Net. In the arm `together`, after the first quarter
of the steps, each network also learns from the other's voxels:

- The running averages of both networks segment unlabelled patches, Omnia-Net slice by slice.
- DX-Net learns from Omnia-Net's voxels with a probability of at least 0.95, and Omnia-Net from DX-Net's, both from the
  same patches with strongly changed intensities and a pasted box (`trainers/teacher.py`).

Such steps cost more, so the arm `alone` takes `--ratio` times as many; the CPU seconds of both are recorded. Both
networks and the average of their probabilities are tested. Each run is one line of `<work>/cotraining.jsonl`; runs
already there are skipped. `--unlabelled FILE` names the `unlabelled.jsonl` of DX-Net alone (`without`) and with its
mean teacher (`with`), for the same cases and seeds, to compare with.
"""

import json
import os
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from clock import Clock
from lightning_fabric import Fabric
from paired import differences, mean_difference, scores
from runs import Runs, run_parser
from torch import Tensor, nn
from train_cases import DATASETS
from unlabelled import STEPS_PER_EPOCH, prepare

import autocrossdim
import autocrossdim.inference.folder  # before anything is timed
import autocrossdim.inference.predictor
from autocrossdim.commands.plugins import FoldTask, Unlabelled
from autocrossdim.commands.project import ALL, Project
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from trainers.data import training_batches, unlabelled_batches
from trainers.launch import launch
from trainers.learner import Learner
from trainers.loop import train
from trainers.resume import split_of
from trainers.run import Run
from trainers.schedule import learning_rate_factor
from trainers.slices import run_on_slices, run_on_volumes
from trainers.step import set_learning_rate, training_step
from trainers.teacher import START, pseudo_labelled

ARMS = ("alone", "together")
NETWORKS = {"dx": ["dx"], "omnia": ["omnia"], "both": ["dx", "omnia"]}
OMNIA_STEPS = 2  # of Omnia-Net per step of DX-Net, as its 2D twin takes (`trainers/slices.py`)
TEACHING_WEIGHT = 1.0  # of the loss on unlabelled patches, as in `unlabelled.py`


class SliceBySlice(nn.Module):
    """A 2D network that segments volumes: from (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        """Return the logits of all slices."""
        logits: Tensor = self.network(as_slices(volumes))
        return logits.reshape(len(volumes), -1, *logits.shape[1:]).movedim(1, 2)


def as_slices(volumes: Tensor) -> Tensor:
    """Return the slices (B * Z, ..., Y, X) of volumes (B, ..., Z, Y, X)."""
    return volumes.movedim(-3, 1).flatten(0, 1).contiguous()


class Networks:
    """Both networks under training.

    Args:
        dx: Run of DX-Net, which starts from its trained 2D twin.
        omnia: Run of Omnia-Net.
        scans: The unlabelled scans; None if the networks learn alone.
        fabric: The device.
    """

    def __init__(self, dx: Run, omnia: Run, scans: Unlabelled | None, fabric: Fabric) -> None:
        self.runs, self.scans, self.fabric = (dx, omnia), scans, fabric
        self.dx, self.omnia = (Learner(run, fabric, None) for run in self.runs)
        self.confident: dict[str, list[float]] = {"dx": [], "omnia": []}  # share of the voxels that each teaches

    def learn(self, steps: int) -> None:
        """Take this number of steps of DX-Net, and those of Omnia-Net beside them."""
        dx, omnia = self.runs
        with ExitStack() as stack:
            volumes, slices = (stack.enter_context(training_batches(run, RunState(), self.fabric)) for run in self.runs)
            scans = None
            if self.scans is not None:
                run = replace(dx, task=replace(dx.task, unlabelled=self.scans))
                scans = stack.enter_context(unlabelled_batches(run, RunState(), self.fabric))
            for learner in (self.dx, self.omnia):
                learner.train(frozen=False)
            for step in range(steps):
                torch.manual_seed(dx.settings.seed + step)
                taught: list[list[tuple[Tensor, Tensor]]] = [[]] * (1 + OMNIA_STEPS)
                if scans is not None and step >= START * steps:
                    clean, changed = next(scans).tensors
                    taught = self._taught(clean, changed)
                factor = learning_rate_factor(step / steps, dx.settings.warmup)
                self._step(dx, self.dx, factor, step + 1, [next(volumes).tensors, *taught[0]])
                for part in range(OMNIA_STEPS):
                    number = step * OMNIA_STEPS + part + 1
                    batches = [next(slices).tensors, *taught[1 + part]]
                    self._step(omnia, self.omnia, factor, number, batches)

    def _taught(self, clean: Tensor, changed: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
        """Return what DX-Net learns from Omnia-Net, and then for each step of Omnia-Net what it learns from DX-Net."""
        by_omnia = pseudo_labelled(SliceBySlice(self.omnia.evaluated), clean, changed, regions=False)
        by_dx = pseudo_labelled(self.dx.evaluated, clean, changed, regions=False)
        for name, (_, target) in (("omnia", by_omnia), ("dx", by_dx)):
            self.confident[name].append(float((target >= 0).float().mean()))
        data, target = (as_slices(each) for each in by_dx)
        size = self.runs[1].configuration.batch_size  # as many slices as are labelled
        chosen = torch.randperm(len(data))[: OMNIA_STEPS * size].chunk(OMNIA_STEPS)
        return [[by_omnia], *([(data[part], target[part])] for part in chosen)]

    def _step(
        self, run: Run, learner: Learner, factor: float, number: int, batches: list[tuple[Tensor, Tensor]]
    ) -> None:
        set_learning_rate(learner.optimizer, run.learning_rate * factor)
        losses = training_step(
            learner.model,
            learner.loss,
            learner.optimizer,
            batches,
            weights=[1.0, TEACHING_WEIGHT][: len(batches)],
            gradient_clip=run.settings.gradient_clip,
            engine=self.fabric,
        )
        if not losses.isfinite().all():
            raise SystemExit(f"{run.name}: the loss is not finite in step {number}.")
        assert learner.average is not None
        learner.average.update(learner.network, number)

    def write(self, steps: int) -> None:
        """Write a checkpoint of each network, as `autocrossdim predict` reads it."""
        for run, learner in zip(self.runs, (self.dx, self.omnia), strict=True):
            run.folder.root.mkdir(parents=True, exist_ok=True)
            Checkpoint(
                plan=run.task.plan,
                configuration=run.configuration.name,
                fold=run.task.fold,
                split=split_of(run),
                network=learner.evaluated.state_dict(),
                settings=run.requested.model_dump(),
                provenance=learner.provenance,
                run=RunState(step=steps, complete=True),
            ).write(run.folder.latest)


def learn(raw: Path, work: Path, *, arm: str, seed: int, epochs: int, ratio: float, weights: str) -> dict[str, Any]:
    """Train both networks on all cases; return the time, and how much of the scans each network taught."""
    project = Project.open(raw, work=work)
    scans = None
    if arm == "together":
        scans = Unlabelled(project.unlabelled_store("dx", processes=1), project.unlabelled(ALL))
    settings = {"epochs": epochs, "steps_per_epoch": STEPS_PER_EPOCH, "seed": seed, "workers": 0}
    dx, omnia = (
        Run.of(
            FoldTask(
                plan=project.plan,
                configuration=project.plan.configuration(name),
                store=project.store(name, processes=1),
                groups=project.dataset.groups,
                fold=ALL,
                split=project.split(ALL),
                folder=project.workspace.fold(name, ALL),
                weights=weights,
                device="cpu",
                settings=settings,
            )
        )
        for name in ("dx", "omnia")
    )
    steps = round((1.0 if arm == "together" else ratio) * epochs * STEPS_PER_EPOCH)
    result: dict[str, Any] = {"steps": steps}

    def job(fabric: Fabric) -> None:
        with Clock() as clock:
            twin = run_on_slices(dx)
            train(twin, Learner(twin, fabric, None), fabric, None)
            networks = Networks(run_on_volumes(dx), omnia, scans, fabric)
            networks.learn(steps)
            networks.write(steps)
        result["training"] = clock.record()
        result["confident"] = {name: float(np.mean(each)) for name, each in networks.confident.items() if each}

    launch(job, dx)
    return result


def measure(raw: Path, folder: Path, *, weights: Path | None, **options: Any) -> dict[str, Any]:
    """Train both networks and compare their segmentations of the test cases with the labels."""
    work = folder / "work"
    encoder = {} if weights is None else {"encoder": weights.name.partition(".")[0]}
    autocrossdim.plan_and_preprocess(raw, work=work, trial=False, processes=1, **encoder)
    result = learn(raw, work, weights="random" if weights is None else str(weights), **options)
    for name, config in NETWORKS.items():
        predictions = folder / "segmented" / name
        autocrossdim.predict(
            raw, folder / "images", predictions, work=work, config=config, device="cpu", overwrite=True
        )
        result[name] = scores(autocrossdim.evaluate(predictions, folder / "labels", dataset=raw, processes=1))
    return result


def table(records: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    """Return Markdown tables: each run, and the mean differences of the Dice with their intervals.

    Args:
        records: The runs.
        others: Runs of `unlabelled.py`; those of DX-Net on the same cases are compared.
    """
    lines = [
        "| cases | epochs | arm | seed | steps | Dice dx | omnia | both | HD95 dx | omnia | both | CPU s | confident |",
        "|" + "---|" * 13,
    ]
    found: dict[tuple[int, int], dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for record in sorted(records, key=lambda each: [each[key] for key in ("cases", "epochs", "ratio", "arm", "seed")]):
        values = [f"{record[name]['dice']:.3f}" for name in NETWORKS]
        values += [f"{record[name]['hd95']:.2f}" for name in NETWORKS]
        cells = [*(record[key] for key in ("cases", "epochs", "arm", "seed", "steps")), *values]
        confident = ", ".join(f"{name} {share:.2f}" for name, share in record["confident"].items())
        lines.append(f"| {' | '.join(map(str, cells))} | {record['training']['cpu_seconds']:.0f} | {confident} |")
        for name in NETWORKS:
            found[record["cases"], record["epochs"]][f"{record['arm']}, {name}"][record["seed"]] = record[name]
    for record in others:
        if (record["dataset"], record["config"], record["test"]) == ("Hippocampus", "dx", False):
            for (cases, _), methods in found.items():
                if cases == record["cases"]:
                    methods[f"unlabelled.py {record['arm']}, {record['epochs']} epochs"][record["seed"]] = record
    lines += ["", "| cases | epochs | compared | seeds | difference in Dice, 95 % interval |", "|---|---|---|---|---|"]
    for (cases, epochs), methods in sorted(found.items()):
        pairs = [(f"together, {name}", f"alone, {name}") for name in NETWORKS]
        pairs += [(f"{arm}, both", f"{arm}, {name}") for arm in ARMS for name in ("dx", "omnia")]
        pairs += [(f"{arm}, dx", name) for name in sorted(methods) if name.startswith("unlabelled.py") for arm in ARMS]
        for one, other in pairs:
            seeds = sorted(methods[one].keys() & methods[other].keys())
            if seeds:
                per_seed = [differences(*(methods[each][seed]["per_case"] for each in (one, other))) for seed in seeds]
                cells = [cases, epochs, f"{one} − {other}", len(seeds), mean_difference(per_seed)]
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, each run in a process of its own, and print the tables."""
    parser = run_parser(__doc__, seeds=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--epochs", type=int, default=10, help="Epochs of 25 steps of DX-Net in the arm `together`.")
    parser.add_argument("--ratio", type=float, default=2.0, help="Steps `alone` per step `together`.")
    parser.add_argument("--unlabelled", type=Path, help="Runs of unlabelled.py to compare with (unlabelled.jsonl).")
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "cotraining.jsonl")
    if arguments.only:
        job = json.loads(arguments.only)
        folder, source = runs.folder(job), arguments.data / DATASETS["Hippocampus"]
        options = {key: job[key] for key in ("cases", "seed")}
        raw = prepare(source, folder, unlabelled=job["arm"] == "together", test=False, **options)
        options = {key: job[key] for key in ("arm", "seed", "epochs", "ratio")}
        runs.add({**job, **measure(raw, folder, weights=arguments.weights, **options)})
        return
    common = {key: getattr(arguments, key) for key in ("cases", "epochs", "ratio")}
    runs.run_missing({"arm": arm, "seed": seed, **common} for seed in arguments.seeds for arm in arguments.arms)
    print(table(runs.read(), [] if arguments.unlabelled is None else Runs(arguments.unlabelled).read()))


if __name__ == "__main__":
    main()
