"""Does it help if batch norms use a share of the statistics of the image to be segmented?

    python benchmarks/image_statistics.py --runs FOLDER --results FILE --shares 0 0.2

Segments the test cases of finished runs of ours (each a folder that `train.py` left in its `--work`) once more with
each share, without mirroring unless `--mirroring` is given, and compares the segmentations with the labels. Nothing is
trained. Each run with one share is one line of FILE; those already there are skipped.
"""

import argparse
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from clock import Clock
from paired import differences, mean_difference, scores
from runs import Runs

import autocrossdim
import autocrossdim.inference.folder  # before anything is timed


def measure(folder: Path, share: float, *, mirroring: bool) -> dict[str, Any]:
    """Segment the test cases of a run with a share of the image's statistics, and compare them with their labels."""
    (raw,), (trained,) = (folder / "raw").iterdir(), (folder / "work").glob("*/models/*/fold_all")
    output = folder / f"segmented_{share:g}"
    with Clock() as clock:
        autocrossdim.predict(
            raw,
            folder / "images",
            output,
            work=folder / "work",
            config=trained.parent.name,
            fold="all",
            mirroring=mirroring,
            device="cpu",
            image_statistics=share,
            overwrite=True,
        )
    summary = autocrossdim.evaluate(output, folder / "labels", dataset=raw, processes=1)
    return {"run": folder.name, "share": share, "prediction": clock.record(), **scores(summary)}


def table(records: list[dict[str, Any]]) -> str:
    """Return the Dice of every run with each share, and the mean differences from the share of 0."""
    by_run: dict[str, dict[float, Any]] = defaultdict(dict)
    for record in records:
        by_run[record["run"]][record["share"]] = record
    shares = sorted({record["share"] for record in records})
    lines = ["| run | " + " | ".join(f"{share:g}" for share in shares) + " |", "|---" * (len(shares) + 1) + "|"]
    found_by_seed: dict[tuple[str, float], list[dict[str, float]]] = defaultdict(list)
    for run, found in sorted(by_run.items()):
        lines.append(f"| {run} | " + " | ".join(f"{found[s]['dice']:.3f}" if s in found else "" for s in shares) + " |")
        for share in shares[1:]:
            if 0 in found and share in found:
                found_by_seed[run.rpartition("_seed")[0], share].append(
                    differences(found[share]["per_case"], found[0]["per_case"])
                )
    lines += ["", "| runs | share | seeds | difference in Dice, 95 % interval |", "|---|---|---|---|"]
    for (run, share), each in sorted(found_by_seed.items()):
        lines.append(f"| {run} | {share:g} | {len(each)} | {mean_difference(each)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder whose subfolders are runs of train.py")
    parser.add_argument("--results", type=Path, required=True, help="file for the results, one line each")
    parser.add_argument("--shares", nargs="+", type=float, default=[0, 0.2])
    parser.add_argument("--mirroring", action="store_true", help="average over mirrored images")
    arguments = parser.parse_args()
    runs = Runs(arguments.results)
    for folder in sorted(arguments.runs.iterdir()):
        for share in arguments.shares:
            if not runs.has({"run": folder.name, "share": share}):
                runs.add(measure(folder, share, mirroring=arguments.mirroring))
    print(table(runs.read()))


if __name__ == "__main__":
    main()
