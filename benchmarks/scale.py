"""Do memory and time per case stay constant over a thousand cases?

    python benchmarks/scale.py [--cases 1000] [--processes 2] [--work FOLDER]

Generated volumes of 20 x 28 x 24 voxels go through `verify`, `plan_and_preprocess`, the loader of training patches and
`predict` (network `test_efficientnet`, trained for one step). Each command is a process of its own. After every case,
it records the resident memory of itself and of its worker processes, and the processor time of all of them, which
other programs on the machine disturb least. `benchmarks/results/scale.json` receives the samples, and `scale.md` the
table.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results"
START, END = "<!-- table of scale.py -->", "<!-- end of table -->"
SHAPE, PATCH = (20, 28, 24), "16,24,16"
EARLY = 100  # the case after which memory should no longer grow, and the number of cases whose time is averaged
STAGES = ("verify", "plan_and_preprocess", "patches", "predict")
MEGABYTE = 2**20


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process so far, to 1/100 s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Recorder:
    """Records memory and processor time after every case, per loop over cases.

    Attributes:
        loops: Name of each loop -> a sample (parent MB, MB of the largest worker, processor seconds of all) per case.
    """

    def __init__(self) -> None:
        self.loops: dict[str, list[tuple[float, float, float]]] = {}

    def sample(self, loop: str, cases: int = 1) -> None:
        """Record the state after `cases` further cases."""
        own = os.getpid()
        workers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        largest = max(map(resident, workers), default=0.0)
        seconds = sum(map(cpu_seconds, [own, *workers]))
        self.loops.setdefault(loop, []).extend([(resident(own), largest, seconds)] * cases)

    def track(self, items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        """Stand in for `autocrossdim.system.console.track`, which every loop over cases reports to."""
        for item in items:
            yield item
            self.sample(description)


def run_stage(stage: str, raw: Path, work: Path, processes: int) -> dict[str, Any]:
    """Run one command on the dataset and return the samples of its loops."""
    import autocrossdim
    from autocrossdim.system import processes as pool

    recorder = Recorder()
    pool.track = recorder.track  # type: ignore[attr-defined]
    if stage == "verify":
        autocrossdim.verify(raw, processes=processes)
    elif stage == "plan_and_preprocess":
        options: dict[str, Any] = {"encoder": "test_efficientnet", "patch_size": PATCH, "batch_size": 2, "trial": False}
        autocrossdim.plan_and_preprocess(raw, work=work, planner="dx", processes=processes, **options)
    elif stage == "patches":
        draw_patches(raw, work, recorder)
    else:
        from autocrossdim.inference import folder

        folder.track = recorder.track  # type: ignore[attr-defined]
        settings = {"steps_per_epoch": 1, "validation_batches": 1, "slices_first": False, "workers": 0}
        autocrossdim.train(raw, work=work, fold="all", weights="random", device="cpu", epochs=1, set=settings)
        autocrossdim.predict(raw, raw / "imagesTr", work / "segmented", work=work, mirroring=False, device="cpu")
    return {"loops": recorder.loops}


def draw_patches(raw: Path, work: Path, recorder: Recorder) -> None:
    """Draw one training patch of each case in this process, as a worker of the loader does."""
    from autocrossdim.commands.project import Project
    from trainers.loader import PatchLoader
    from trainers.settings import Settings

    project = Project.open(raw, work=work)
    configuration = project.plan.configuration()
    store = project.store(configuration.name)
    names = [case.name for case in project.dataset.training_cases()]
    loader = PatchLoader(
        store, names, configuration=configuration, labels=project.plan.labels, settings=Settings(augmentation="none")
    )
    for number in range(len(names) // configuration.batch_size):
        loader.batch(number)
        recorder.sample("Training patches", configuration.batch_size)


def measure(stage: str, raw: Path, work: Path, processes: int) -> dict[str, Any]:
    """Run one command in a process of its own."""
    root = Path(__file__).resolve().parents[1]
    row = json.dumps({"stage": stage, "raw": str(raw), "work": str(work), "processes": processes})
    command = [sys.executable, __file__, "--row", row]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(stage: str, loop: str, samples: list[list[float]]) -> dict[str, Any]:
    """Compare a loop at case `EARLY` with its end."""
    early, late = samples[EARLY - 1], samples[-1]

    def milliseconds(part: list[list[float]]) -> float:
        return 1000 * (part[-1][2] - part[0][2]) / (len(part) - 1)

    return {
        "stage": stage,
        "loop": loop,
        "cases": len(samples),
        "parent_mb": [round(early[0], 1), round(late[0], 1)],
        "worker_mb": [round(early[1], 1), round(late[1], 1)] if early[1] else None,
        # Not the first cases: workers import, and caches fill.
        "ms_per_case": [round(milliseconds(samples[EARLY : 2 * EARLY]), 1), round(milliseconds(samples[-EARLY:]), 1)],
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the loops as a Markdown table."""
    lines = [
        "| command | loop | cases | parent: MB after case 100, at the end | largest worker, MB | "
        "ms per case: 101 to 200, last 100 |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        lines.append(
            f"| `{record['stage']}` | {record['loop']} | {record['cases']} | {_change(record['parent_mb'])} | "
            f"{_change(record['worker_mb'])} | {record['ms_per_case'][0]:.1f}, {record['ms_per_case'][1]:.1f} |"
        )
    return "\n".join(lines)


def _change(values: list[float] | None) -> str:
    if values is None:
        return "none"
    early, late = values
    return f"{early:.0f}, {late:.0f} ({100 * (late / early - 1):+.1f} %)"


def write_dataset(folder: Path, cases: int) -> None:
    """Write the generated dataset, unless it is there."""
    from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset

    if (folder / "dataset.json").exists():
        return
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(folder, lambda random: nodules(random, SHAPE), labels, ISOTROPIC_SPACING, training=cases, test=0)


def main() -> None:
    """Measure every command, and write both files of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, help="Directory to keep (default: a temporary one).")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        row = arguments.row
        print(json.dumps(run_stage(row["stage"], Path(row["raw"]), Path(row["work"]), row["processes"])))
        return
    if arguments.cases < 2 * EARLY:
        parser.error(f"--cases: at least {2 * EARLY}, because cases {EARLY + 1} to {2 * EARLY} are timed.")
    file = RESULTS / "scale.json"
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        raw = folder / "Dataset995_Scale"
        write_dataset(raw, arguments.cases)
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"records": [], "samples": {}}
        for stage in arguments.only:
            result = measure(stage, raw, folder / "work", arguments.processes)
            content["records"] = [record for record in content["records"] if record["stage"] != stage]
            for loop, samples in result["loops"].items():
                content["records"].append(summary(stage, loop, samples))
                content["samples"][loop] = [
                    [number, *(round(value, 2) for value in samples[number - 1])]
                    for number in range(EARLY // 2, len(samples) + 1, EARLY // 2)
                ]
            print(table(content["records"]), flush=True)
    content["records"].sort(key=lambda record: STAGES.index(record["stage"]))
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")
    _write_table(table(content["records"]))


def _write_table(lines: str) -> None:
    file = RESULTS / "scale.md"
    text = file.read_text(encoding="utf-8") if file.exists() else f"# Many cases\n\n{START}\n{END}\n"
    before, _, rest = text.partition(START)
    file.write_text(f"{before}{START}\n\n{lines}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
