"""What `autocrossdim demo` does: the full workflow on two small generated datasets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autocrossdim.commands.evaluate import evaluate
from autocrossdim.commands.plan_and_preprocess import plan_and_preprocess
from autocrossdim.commands.predict import predict
from autocrossdim.commands.train import train
from autocrossdim.data.images import read_image, read_label
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, ISOTROPIC_SPACING, chambers, nodules, write_dataset
from autocrossdim.records.summary import Summary
from autocrossdim.system.console import say
from autocrossdim.system.files import written_whole

TRAINING = 8  # cases of each dataset
FOLDS = (0, 1)
SECONDS_PER_FOLD = 35.0  # four folds and everything around them stay under 4 minutes on two cores


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo for one of its datasets.

    Attributes:
        name: Name of the dataset.
        anisotropy: Largest / smallest median spacing.
        configuration: The configuration decided on.
        patch_size: Its patch size (voxels).
        summary: Metrics of the test cases.
    """

    name: str
    anisotropy: float
    configuration: str
    patch_size: tuple[int, ...]
    summary: Summary


@dataclass(frozen=True)
class Demo:
    """What the demo wrote and found.

    Attributes:
        datasets: Directories of the generated datasets.
        results: Results of each dataset; empty if only the datasets were generated.
        picture: Images, references and predictions of the test cases; None likewise.
    """

    datasets: list[Path]
    results: tuple[DemoResult, ...] = ()
    picture: Path | None = None


def write_datasets(output: Path) -> list[Path]:
    """Generate the two datasets in `raw` below `output`, with 8 training cases and 2 test cases each.

    Args:
        output: Directory of the demo.

    Returns:
        Directories of the datasets.
    """
    say(
        "Generating two small datasets: nodules inside and outside an organ (isotropic voxels), and a heart chamber "
        "among discs that resemble it (thick slices)."
    )
    nodules_folder, chambers_folder = output / "raw" / "Dataset901_Nodules", output / "raw" / "Dataset902_Chambers"
    organ = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(nodules_folder, nodules, organ, ISOTROPIC_SPACING, training=TRAINING)
    heart = {"background": 0, "chamber": 1, "wall": 2}
    write_dataset(chambers_folder, chambers, heart, ANISOTROPIC_SPACING, training=TRAINING)
    for folder in (nodules_folder, chambers_folder):
        say(f"{folder}: {TRAINING} training cases and 2 test cases.")
    return [nodules_folder, chambers_folder]


def run_demo(output: Path) -> Demo:
    """Generate two datasets, run the full workflow on both, and draw `demo.png`.

    Args:
        output: Directory for raw data, results and picture.

    Returns:
        Datasets, results and picture.
    """
    folders = write_datasets(output)
    say("Training starts from random weights.")
    results = tuple(_run_on(folder, output) for folder in folders)
    picture = output / "demo.png"
    _draw(results, output, picture)
    return Demo(folders, results, picture)


def _run_on(folder: Path, output: Path) -> DemoResult:
    say(f"\n{folder.name}")
    work = output / "work"
    plan = plan_and_preprocess(folder, work=work)
    train(folder, work=work, fold=FOLDS, weights="random", max_time=SECONDS_PER_FOLD)
    predictions = output / "predictions" / folder.name
    predict(folder, folder / "imagesTs", predictions, work=work)
    summary = evaluate(predictions, folder / "labelsTs", dataset=folder)
    chosen = plan.configuration()
    return DemoResult(folder.name, plan.decision.anisotropy, chosen.name, chosen.patch_size, summary)


def _draw(results: tuple[DemoResult, ...], output: Path, picture: Path) -> None:
    """Draw image, truth and prediction of the middle slice of every test case."""
    from matplotlib.figure import Figure

    rows = [(each, case) for each in results for case in each.summary.metric_per_case]
    figure = Figure(figsize=(7.5, 2.5 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3)
    for (each, case), row in zip(rows, axes, strict=True):
        truth, _ = read_label(Path(case.reference_file))
        found, _ = read_label(Path(case.prediction_file))
        name = Path(case.reference_file).name
        source = output / "raw" / each.name / "imagesTs" / name.replace(".nii.gz", "_0000.nii.gz")
        image = read_image([source]).array[0]
        middle = int(np.argmax((truth > 0).sum(axis=(1, 2))))
        for axis, title, shown_label in zip(row, ("image", "truth", "prediction"), (None, truth, found), strict=True):
            axis.imshow(image[middle], cmap="gray")
            if shown_label is not None:
                axis.imshow(
                    np.ma.masked_equal(shown_label[middle], 0),
                    cmap="tab10",
                    alpha=0.6,
                    vmin=0,
                    vmax=9,
                    interpolation="none",
                )
            axis.set_title(f"{title}, {each.configuration}" if shown_label is found else title, fontsize=9)
            axis.set_axis_off()
    with written_whole(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
