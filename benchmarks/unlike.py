"""Are images unlike the training data recognised, and how often are ordinary ones called unlike?

    python benchmarks/unlike.py --data ../shared/data --weights FILE --work FOLDER [--cases 8 32] [--seconds 75 105]

DX-Net is trained on 8 and on 32 cases of Hippocampus, five folds each, followed by `find_best`. Each model then
compares with its training data

- ordinary images: the 16 cases of `imagesTs`, and the scans of `Hippocampus_unlabelled`;
- images of another kind: the volumes of SunnybrookLV (heart, 8 to 10 mm slices);
- altered `imagesTs`: inverted intensities, added noise, and axes in another order or direction under the old header.

`benchmarks/results/unlike.json` receives the score of every image, and `unlike.md` the table. Training that is complete
is skipped.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import SimpleITK as sitk
from train_cases import DATASETS, select, write

import autocrossdim
from autocrossdim.records.best import Best
from autocrossdim.system.files import write_text

RESULTS = Path(__file__).parent / "results"
START, END = "<!-- table of unlike.py -->", "<!-- end of table -->"

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(share: float) -> Change:
    """Return what adds Gaussian noise whose deviation is a share of that of the image."""
    return lambda array, random: array + random.normal(0, share * array.std(), array.shape)


CHANGES: dict[str, Change] = {
    "imagesTs, as they are": lambda array, _: array,
    "inverted": lambda array, _: array.max() + array.min() - array,
    "noise of 0.5 standard deviations": noise(0.5),
    "noise of 1 standard deviation": noise(1.0),
    "noise of 2 standard deviations": noise(2.0),
    "axes zyx read as yxz": lambda array, _: array.transpose(1, 2, 0),
    "axes zyx read as xzy": lambda array, _: array.transpose(2, 0, 1),
    "axes zyx read as xyz": lambda array, _: array.transpose(2, 1, 0),
    "upside down": lambda array, _: array[::-1],
    "front to back": lambda array, _: array[:, ::-1],
}
ORDINARY = ("imagesTs, as they are", "unlabelled")


def images(data: Path) -> Iterator[tuple[str, str, sitk.Image]]:
    """Yield the name of a set, the name of an image, and the image."""
    hippocampus, sunnybrook = (data / DATASETS[name] for name in ("Hippocampus", "SunnybrookLV"))
    for kind, change in CHANGES.items():
        random = np.random.default_rng(0)
        for file in sorted((hippocampus / "imagesTs").glob("*.nii.gz")):
            image = sitk.ReadImage(str(file), sitk.sitkFloat32)
            array = change(sitk.GetArrayFromImage(image), random).astype(np.float32)
            changed = sitk.GetImageFromArray(np.ascontiguousarray(array))
            changed.SetSpacing(image.GetSpacing())
            changed.SetDirection(image.GetDirection())
            yield kind, file.name, changed
    for kind, folder in (("unlabelled", data / "Hippocampus_unlabelled"), ("SunnybrookLV", sunnybrook / "imagesTr")):
        for file in sorted(folder.glob("*.nii.gz")):
            yield kind, file.name, sitk.ReadImage(str(file), sitk.sitkFloat32)


def train(source: Path, folder: Path, cases: int, seconds: float, weights: str) -> Path:
    """Train and validate all folds, and return the directory of the results."""
    training, test = select(source, cases, 0)
    if not (folder / "raw").exists():
        write(source, training, test, folder)
    raw, work = folder / "raw" / source.name, folder / "work"
    autocrossdim.plan_and_preprocess(raw, work=work, encoder="tf_efficientnetv2_b0", trial=False)
    autocrossdim.train(raw, work=work, weights=weights, max_time=seconds, device="cpu", set={"workers": 0})
    autocrossdim.find_best(raw, work=work, device="cpu", processes=1)
    return work / source.name


def measure(results: Path, data: Path, cases: int) -> Iterator[dict[str, Any]]:
    """Yield the score of every image."""
    predictor = autocrossdim.Predictor.load(results, device="cpu")
    for kind, name, image in images(data):
        familiarity = predictor.compare(predictor.prepare(image))
        assert familiarity is not None
        yield {"cases": cases, "set": kind, "image": name, **familiarity.model_dump()}


def table(records: list[dict[str, Any]], held_out: dict[int, tuple[int, int]]) -> str:
    """Return the shares of images called unlike as a Markdown table."""
    sizes = sorted(held_out)
    lines = [
        "| images | " + " | ".join(f"{size} training cases" for size in sizes) + " |",
        "|---|" + "---|" * len(sizes),
        "| held-out cases | " + " | ".join("{1} of {0}".format(*held_out[size]) for size in sizes) + " |",
    ]
    kinds = list(dict.fromkeys(record["set"] for record in records))
    for kind in sorted(kinds, key=lambda kind: kind not in ORDINARY):
        cells = []
        for size in sizes:
            found = [record for record in records if (record["cases"], record["set"]) == (size, kind)]
            unlike = [record for record in found if record["score"] > 1]
            measures = Counter(record["differs_in"] for record in unlike).most_common()
            reasons = ", ".join(f"{name} {count}" for name, count in measures)
            scores = np.quantile([record["score"] for record in found], [0, 0.5, 1])
            cell = f"{len(unlike)} of {len(found)}" + (f" ({reasons})" if reasons else "")
            cells.append(cell + "; score {:.2f}, {:.2f}, {:.2f}".format(*scores))
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, score the images and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--seconds", type=float, nargs="+", default=[75, 105], help="training time per fold")
    arguments = parser.parse_args()
    records: list[dict[str, Any]] = []
    held_out: dict[int, tuple[int, int]] = {}
    for cases, seconds in zip(arguments.cases, arguments.seconds, strict=True):
        source = (arguments.data / DATASETS["Hippocampus"]).resolve()
        results = train(source, arguments.work / f"{cases}cases", cases, seconds, arguments.weights)
        likeness = Best.read(results / "best.json").likeness
        assert likeness is not None
        held_out[cases] = (likeness.n_cases, likeness.n_unlike)
        records += measure(results, arguments.data, cases)
    lines = ",\n".join(json.dumps(record) for record in records)
    write_text(RESULTS / "unlike.json", f"[\n{lines}\n]\n")
    page = (RESULTS / "unlike.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    write_text(RESULTS / "unlike.md", f"{before}{START}\n\n{table(records, held_out)}\n\n{END}{rest.partition(END)[2]}")
    print(table(records, held_out))


if __name__ == "__main__":
    main()
