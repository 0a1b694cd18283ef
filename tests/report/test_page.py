"""The page shows what is known at every stage, and contains all its pictures, styles and scripts."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_label, write_label
from autocrossdim.evaluation.metrics import case_metrics
from autocrossdim.evaluation.summary import summarise
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.records import checkpoint
from autocrossdim.records.best import Best, Contender, KeepLargest, checkpoint_digests, plan_digest
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.likeness import Familiarity, HeldOutCases
from autocrossdim.records.plan import Plan
from autocrossdim.records.run_state import RunState
from autocrossdim.records.study import StudyResults
from autocrossdim.records.study import Table as StudyTable
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.records.workspace import Workspace
from autocrossdim.report import results
from autocrossdim.report.pictures import case_picture
from autocrossdim.report.scans import Scan, read_scan
from autocrossdim.report.viewer import volume
from autocrossdim.selection.held_out import uncertainty_file
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json, write_text

CASES = ("a", "b", "c", "d", "e", "f")
NAMES = {"background": 0, "block <b>": 1, "rare": 2}  # a name that would be markup
GROUPS = {case: f"patient {case}" for case in CASES}


@pytest.fixture
def planned(make_dataset: Callable[..., Path], make_plan: Callable[..., Any], tmp_path: Path) -> tuple[Path, Workspace]:
    """A planned dataset of six cases, every second one without the rare label."""
    path = make_dataset(cases=CASES, labels=NAMES, shape=(6, 20, 18), spacing=(4.0, 1.0, 1.5), groups=GROUPS)
    for case in CASES[::2]:
        array, geometry = read_label(path / "labelsTr" / f"{case}.nii.gz")
        write_label(np.where(array == 2, 0, array), geometry, path / "labelsTr" / f"{case}.nii.gz")
    raw = load_dataset(path)
    space = Workspace.of(raw.name, tmp_path / "work")
    fingerprint, _ = extract(raw, 1)
    fingerprint.write(space.fingerprint)
    write_json(space.dataset_json, raw.description)
    make_plan(labels=raw.labels, channel_names=raw.channel_names).write(space.plan)
    return path, space


@pytest.fixture
def trained(planned: tuple[Path, Workspace]) -> tuple[Path, Workspace]:
    """The same dataset after a cross-validation whose segmentations miss more slices with every case."""
    path, space = planned
    raw = load_dataset(path)
    folds = [CASES[:2], CASES[2:4], CASES[4:]]
    splits = [{"train": [case for case in CASES if case not in fold], "val": list(fold)} for fold in folds]
    write_json(space.splits, splits)
    results = []
    for number, fold in enumerate(folds):
        folder = space.fold("dx", number)
        for case in fold:
            reference, prediction = path / "labelsTr" / f"{case}.nii.gz", folder.validation / f"{case}.nii.gz"
            array, geometry = read_label(reference)
            found = array.copy()
            found[: CASES.index(case)] = 0
            write_label(found, geometry, prediction)
            metrics = case_metrics(found, array, raw.labels, spacing=geometry.spacing)
            results.append(
                CaseResult(
                    reference_file=str(reference),
                    prediction_file=str(prediction),
                    group=GROUPS[case],
                    metrics=metrics,
                )
            )
        summarise(results[-2:], raw.labels).write(folder.summary)
        folder.history.write_text(json.dumps({"epoch": 1, "seconds": 90.0}) + "\n")
        write_text(folder.slices.history, json.dumps({"epoch": 1, "seconds": 60.0}) + "\n")
        folder.latest.write_bytes(b"%d" % number)
    summarise(results, raw.labels).write(space.summary("dx"))
    return path, space


def write_uncertainty(path: Path, space: Workspace, case: str) -> None:
    """Write a map of a held-out case that is uncertain wherever the annotation has a label."""
    array, geometry = read_label(path / "labelsTr" / f"{case}.nii.gz")
    segmentation = space.fold("dx", CASES.index(case) // 2).validation / f"{case}.nii.gz"
    write_label(np.where(array, 100, 0), geometry, uncertainty_file(segmentation))


def page_of(path: Path, space: Workspace) -> str:
    return autocrossdim.report(path, work=space.root.parent).read_text(encoding="utf-8")


def without_spans(page: str) -> str:
    """Return a page without the marks that keep the words of a command in one piece."""
    return re.sub("</?span>", "", page)


def test_before_training_the_page_shows_data_and_decision(planned: tuple[Path, Workspace]) -> None:
    page = page_of(*planned)
    assert "6 annotated 3D cases" in page
    assert "No fold has been trained and validated yet" in page
    assert "Histograms over the cases" in page
    assert "A test." in page  # the decision's reason


def test_studies_are_shown_with_conclusion_figure_and_table(planned: tuple[Path, Workspace]) -> None:
    path, space = planned
    folder = space.study("weights")
    table = StudyTable(headings=("arm", "Dice"), rows=(("own <b>.pth", "0.512"),))
    fields = {"study": "weights", "dataset": "any", "question": "What?", "conclusion": "No difference shown."}
    StudyResults(**fields, notes=("Only one seed.",), table=table, runs=()).write(folder)
    (folder / "figure.png").write_bytes(b"a figure")
    page = page_of(path, space)
    assert "<h2>Studies</h2>" in page
    assert "<p>No difference shown.</p>" in page
    assert '<td>own &lt;b&gt;.pth</td><td class="n">0.512</td>' in page
    assert base64.b64encode(b"a figure").decode() in page
    assert "Only one seed." in page


def test_after_a_cross_validation_the_page_shows_results_and_their_limits(trained: tuple[Path, Workspace]) -> None:
    page = page_of(*trained)
    assert "Cross-validation of dx" in page
    assert "&#39;rare&#39; is present in 3 of 6 cases only" in page
    assert "The results rest on 6 cases only" in page
    assert "Run <code>autocrossdim find_best</code> for both." in page
    assert "is hardly segmented" not in page
    assert page.index("lowest Dice: f") < page.index("next lowest: ") < page.index("highest Dice: a")
    assert "1 epoch after 1 of the 2D network, 2.5 minutes" in page


def test_signs_of_overfitting_are_named_once_with_remedies(trained: tuple[Path, Workspace]) -> None:
    _, space = trained
    epochs = [
        {"epoch": n, "seconds": 1.0, "loss": 1.5 / n, "validation_loss": 0.5 + 0.02 * n, "mean_pseudo_dice": 0.7}
        for n in range(1, 31)
    ]
    for fold in range(2):
        write_text(space.fold("dx", fold).history, "".join(json.dumps(epoch) + "\n" for epoch in epochs))
    page = page_of(*trained)
    assert page.count("Overfitting: since about epoch 3, the training loss fell by") == 1
    assert "dx fold 0: Overfitting" in page
    assert "Also seen in 1 more of the 3 folds." in page


def test_the_page_needs_no_other_file_and_names_are_never_markup(trained: tuple[Path, Workspace]) -> None:
    page = page_of(*trained)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    pictures = [source for source in sources if source.startswith("data:image/png;base64,iVBOR")]
    thumbnails = [source for source in sources if source.startswith("data:image/webp;base64,UklGR")]
    # The chart of Dice, five of six cases, the volumes of two labels and the histograms; then the sixth case.
    assert (len(pictures), len(thumbnails), len(sources)) == (9, 1, 10)
    assert "block &lt;b&gt;" in page
    assert "block <b>" not in page
    assert "://" not in page


def content(page: str, name: str) -> Any:
    """Return the JSON that the page hands to its scripts."""
    return json.loads(page.split(f'id="{name}">')[1].split("</script>")[0])


def test_the_viewer_begins_with_the_lowest_dice_and_no_name_ends_a_script(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    evil = "</script><script>alert(1)</script>"
    file = space.summary("dx")
    write_text(file, file.read_text(encoding="utf-8").replace("block <b>", evil).replace("patient a", evil))
    page = page_of(path, space)
    assert evil not in page
    assert page.count("<script") == page.count("</script>") == 7
    assert evil in {row[2] for row in content(page, "all-results-data")["rows"]}
    assert evil in {row[1] for row in content(page, "all-results-data")["rows"]}
    assert content(page, "viewer-shared")["labels"][0]["name"] == "block <b>"
    assert '<label hidden><input type="checkbox" data-role="uncertainty"' in page, "there is no map"
    cases = content(page, "viewer-cases")
    assert [case["name"] for case in cases] == ["f", "e", "d", "c", "b", "a"]
    assert cases[0]["title"].startswith("lowest Dice: f (Dice 0.")
    assert all(len(case["planes"]) == 3 for case in cases)


def test_the_uncertainty_is_offered_where_there_is_a_map(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    write_uncertainty(path, space, "c")
    page = page_of(path, space)
    assert '<label><input type="checkbox" data-role="uncertainty"' in page
    assert "U the uncertainty" in page
    assert [case["name"] for case in content(page, "viewer-cases") if case["uncertainty"]] == ["c"]


BROWSER = shutil.which("chromium")
WATCH = """
const seen = document.documentElement.dataset;
for (const event of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(event, (what) => { seen.wrong = (seen.wrong || "") + event + (what.message || ""); }, true);
"""
LOOK = """
setTimeout(() => {
  const corners = [...document.querySelectorAll("#viewer canvas")].map((canvas) => {
    const read = (x, y) => canvas.getContext("2d").getImageData(x, y, 1, 1).data[0] > 128;
    const right = canvas.width - 3, bottom = canvas.height - 3;
    return [[2, 2], [right, 2], [2, bottom], [right, bottom]].map(([x, y]) => Number(read(x, y))).join("");
  });
  document.body.dataset.seen = corners.join(" ");
  const label = document.querySelector("#viewer [data-role=key] button");
  label.click();
  document.body.dataset.pressed = label.getAttribute("aria-pressed");

  const canvas = document.querySelector("#viewer canvas"), caption = () => canvas.parentElement.children[2].textContent;
  const before = caption();
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -80, cancelable: true }));
  document.body.dataset.scrolled = `${before} then ${caption()}`;
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" }));
  document.body.dataset.keys = caption();
  canvas.setPointerCapture = () => {};  // which needs a real finger
  for (const [type, clientX] of [["pointerdown", 100], ["pointermove", 76], ["pointerup", 76]])
    canvas.dispatchEvent(new PointerEvent(type, { pointerType: "touch", clientX }));
  document.body.dataset.touched = caption();

  const toggle = document.querySelector("#viewer [data-role=uncertainty]");
  const legend = document.querySelector("#viewer [data-role=legend]");
  const corner = () => canvas.getContext("2d").getImageData(canvas.width - 3, canvas.height - 3, 1, 1);
  const colour = () => String(corner().data.slice(0, 3));
  const plain = colour();
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "u", bubbles: true }));
  const [red, green, blue] = colour().split(",");
  const yellow = red > 128 && green > 128 && blue < 128;
  document.body.dataset.uncertainty = `${plain} then ${yellow}, legend ${legend.checkVisibility()}, ${toggle.checked}`;
  const opacity = document.querySelector("#viewer [data-role=opacity]");
  const fade = (value) => { opacity.value = value; opacity.dispatchEvent(new Event("input")); };
  fade(0);
  document.body.dataset.transparent = String(colour() === plain);
  fade(100);
  toggle.click();
  document.body.dataset.certain = `${colour() === plain}, legend ${legend.checkVisibility()}`;

  const table = document.getElementById("all-results");
  const dice = [...table.querySelectorAll("th button")].find((button) => button.textContent === "Dice");
  const column = [...dice.closest("tr").children].indexOf(dice.closest("th"));
  const values = () => [...table.querySelectorAll("tbody tr")].map((row) => Number(row.children[column].textContent));
  dice.click();
  const up = values().filter(Number.isFinite);
  dice.click();
  const down = values().filter(Number.isFinite);
  const sorted = [...up].sort((a, b) => a - b);
  document.body.dataset.sorted = String(up.join() === sorted.join() && down.join() === sorted.reverse().join());

  const filter = table.querySelector("[data-role=filter]");
  filter.value = "rare";
  filter.dispatchEvent(new Event("input"));
  const labels = [...table.querySelectorAll("tbody tr")].map((row) => row.children[2].textContent);
  document.body.dataset.filtered = labels.join(" ");
  URL.createObjectURL = (file) => {
    const third = (text) => text.trim().split("\\r\\n").map((line) => line.split(",")[2]).join(" ");
    file.text().then((text) => { document.body.dataset.saved = third(text); });
    return "#";
  };
  table.querySelector("[data-role=download]").click();

  const curves = () => document.querySelectorAll("details.curves[open]").length;
  const closed = curves();
  dispatchEvent(new Event("beforeprint"));
  document.body.dataset.curves = `${closed} then ${curves()}`;
  const loaded = performance.getEntriesByType("resource").filter((each) => !/^(data|blob):/.test(each.name));
  document.body.dataset.requests = String(loaded.length);
}, 500);
"""
EVIL = "</script><img src='missing.png' onerror='document.body.dataset.evil = 1'>"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_a_browser_shows_scrolls_and_sorts_the_page_without_an_error_or_a_request(
    trained: tuple[Path, Workspace], tmp_path: Path
) -> None:
    label = np.zeros((9, 10, 11), np.uint8)
    image = np.zeros((1, 9, 10, 11))
    image[0, 7:, :2, :2] = 100  # in the order SPL: superior, anterior and right
    label[8, 0, 0] = 1
    undecided = np.zeros((9, 10, 11), np.uint8)
    undecided[:, 6:, 6:] = 100
    scan = Scan(image, label, label, (2.0, 1.0, 1.0), oriented=True, uncertainty=undecided)
    case = {"name": EVIL, "title": EVIL, "text": EVIL, **volume(scan, Labels(foreground={"block": (1,)}), ct=False)}
    path, space = trained
    write_uncertainty(path, space, "f")
    summary = space.summary("dx")
    write_text(summary, summary.read_text(encoding="utf-8").replace("block <b>", EVIL).replace("patient a", EVIL))
    page = page_of(path, space).replace("<style>", f"<script>{WATCH}</script><style>", 1)
    start = page.index('id="viewer-cases">') + len('id="viewer-cases">')
    page = page[:start] + json.dumps([case]).replace("<", "\\u003c") + page[page.index("</script>", start) :]
    page = page.replace('data-role="annotation" checked', 'data-role="annotation"')
    page = page.replace('data-role="prediction" checked', 'data-role="prediction"')
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", f"<script>{LOOK}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += [
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run([str(BROWSER), *options], capture_output=True, encoding="utf-8", timeout=60, check=True)
    shown = done.stdout
    # Top left, top right, bottom left, bottom right: R and A, R and S, A and S are at the top left.
    assert 'data-seen="1000 1000 1000"' in shown
    assert 'data-pressed="false"' in shown, "a click hides a label"
    assert 'data-scrolled="axial, slice 9 of 9 then axial, slice 7 of 9"' in shown
    assert 'data-keys="axial, slice 8 of 9"' in shown
    assert 'data-touched="axial, slice 5 of 9"' in shown, "a finger moves to the side"
    assert 'data-uncertainty="0,0,0 then true, legend true, true"' in shown, "a key shows the uncertainty"
    assert 'data-transparent="true"' in shown, "the overlay has an opacity"
    assert 'data-certain="true, legend false"' in shown, "a click hides it"
    assert 'data-sorted="true"' in shown, "a click sorts, another one in reverse order"
    assert 'data-filtered="rare rare rare rare rare rare"' in shown
    assert 'data-saved="label rare rare rare rare rare rare"' in shown, "what is shown is downloaded"
    assert 'data-curves="0 then 3"' in shown, "in print, all training curves are open"
    assert 'data-requests="0"' in shown
    assert "data-evil" not in shown, "names are never markup"
    assert "data-wrong" not in shown
    # Chromium's advice to this test, which reads pixels.
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line] == []


@pytest.mark.parametrize(
    ("candidates", "steps", "sentence"),
    [
        (1, 0, ""),
        (2, 0, "The model was selected on"),
        (1, 1, "The post-processing was selected on"),
        (2, 1, "The model and post-processing were selected on"),
    ],
)
def test_results_are_called_optimistic_if_they_decided_something(candidates: int, steps: int, sentence: str) -> None:
    contender = Contender(name="dx", configurations=("dx",), multiply_adds=1, dice=0.7)
    best = Best(
        dataset="D",
        configurations=("dx",),
        folds=(0,),
        postprocessing=(KeepLargest(name="liver", values=(1,)),) * steps,
        dice_postprocessed=0.7,
        contenders=(contender,) * candidates,
        reasons=(),
        plan_digest="",
        checkpoints={},
    )
    text = " ".join(results._optimism(best))
    assert text.startswith(sentence)
    assert bool(text) == bool(sentence)


def test_with_best_json_the_page_shows_the_choice_and_whether_it_is_outdated(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    plan = Plan.read(space.plan)
    Best(
        dataset=plan.dataset,
        configurations=("dx",),
        folds=(0, 1, 2),
        dice_postprocessed=0.7,
        contenders=(
            Contender(name="dx", configurations=("dx",), multiply_adds=10**9, dice=0.71, steps_per_fold=1234.0),
        ),
        reasons=("dx is the only one.",),
        budgets=("Training budgets per fold differ: dx 1 steps, omnia 9 steps.",),
        plan_digest=plan_digest(plan, ["dx"]),
        checkpoints=checkpoint_digests(space, ["dx"], (0, 1, 2)),
    ).write(space.best)
    cases = {"c": Familiarity(score=1.25, differs_in="size"), "a": Familiarity(score=0.5, differs_in="features")}
    HeldOutCases(cases=cases).write(space.familiarity("dx"))
    page = page_of(path, space)
    assert "Least like the training data" in page
    assert "1 of the cases below would be flagged" in page
    assert '<td>c</td><td>size in mm (flagged)</td><td class="n">1.25</td>' in page
    assert '<td>a</td><td>features of the network</td><td class="n">0.50</td>' in page
    assert "Chosen on held-out cases: dx" in page
    assert page.index("dx is the only one.") < page.index("Cross-validation of dx")
    assert '<ul class="caution"><li>Training budgets per fold differ' in page
    assert f"<code>autocrossdim predict {plan.dataset} --work WORK -i IMAGES" in without_spans(page)
    assert "1,234" in page
    assert "slightly optimistic" not in page, "nothing was selected"
    assert "Run it again" not in page
    space.fold("dx", 1).latest.write_bytes(b"trained further")
    page = page_of(path, space)
    assert "Run it again" in page
    assert f"<code>autocrossdim find_best {plan.dataset} --work WORK</code>" in without_spans(page)
    assert str(path.parent) not in page, "the page names no directory"


def test_missed_labels_are_counted_named_and_left_out_of_the_distances_where_found(
    trained: tuple[Path, Workspace],
) -> None:
    path, space = trained
    raw = load_dataset(path)
    cases = list(Summary.read(space.summary("dx")).metric_per_case)
    reference, geometry = read_label(path / "labelsTr" / "b.nii.gz")
    missed = case_metrics(np.where(reference == 2, 0, reference), reference, raw.labels, spacing=geometry.spacing)
    cases[1] = cases[1].model_copy(update={"metrics": missed})
    summarise(cases, raw.labels).write(space.summary("dx"))
    page = page_of(path, space)
    assert "HD95 where found" in page
    assert "“rare” was not found in 1 of 3 cases with it: b." in page
    assert re.search(r"1 of 3 cases has no prediction for &#39;rare&#39; and counts as the image diagonal", page)
    assert re.search(r"<td>b</td><td>patient b</td><td>rare</td><td></td>", page)
    assert re.search(r'<td>rare</td>.*?<td class="n">3</td><td class="n">1</td><td class="n">0</td>', page, re.DOTALL)


def test_folds_that_are_not_included_are_named(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    assert "Not all folds" not in page_of(path, space)
    file = space.summary("dx")
    kept = [case for case in Summary.read(file).metric_per_case if not case.file.startswith(("e", "f"))]
    summarise(kept, load_dataset(path).labels).write(file)
    assert "Not all folds are included: fold 2" in page_of(path, space)


def test_a_label_that_is_missing_hides_no_distance(trained: tuple[Path, Workspace]) -> None:
    """Case f has both labels, e only the first; a label that is nowhere has no distance."""
    page = page_of(*trained)
    rows = dict(re.findall(r"<tr><td>([a-f])</td>.*?<td class=\"n\">([^<]*)</td></tr>", page))
    assert set(rows) == set(CASES)
    assert all(float(value) >= 0 for value in rows.values())


def test_files_that_were_moved_are_named_and_the_rest_is_shown(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    (path / "labelsTr" / "f.nii.gz").unlink()
    (space.fold("dx", 0).validation / "a.nii.gz").unlink()
    page = page_of(path, space)
    assert "was moved or deleted: f, a." in page
    assert "Cross-validation of dx" in page


def test_a_fold_from_before_cases_were_added_has_its_own_number_of_cases(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    line = {"epoch": 1, "seconds": 90.0, "training_cases": 2}
    space.fold("dx", 1).history.write_text(json.dumps(line) + "\n")
    page = page_of(path, space)
    assert "dx fold 0: 4 training cases" in page
    assert "dx fold 1: 2 training cases" in page


def test_cases_added_after_training_are_not_counted_as_used(
    trained: tuple[Path, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, space = trained
    old = CASES[:5]
    for number in range(3):
        held_out = [case for case in CASES[2 * number : 2 * number + 2] if case in old]
        Checkpoint(
            plan=Plan.read(space.plan),
            configuration="dx",
            fold=number,
            split={"train": [case for case in old if case not in held_out], "val": held_out},
            network={},
            settings={"max_seconds": 90.0},
            requested=["max_seconds"],
            provenance={"source": "random"},
            run=RunState(epoch=3),
        ).write(space.fold("dx", number).latest)
    loaded: list[Path] = []
    load = checkpoint._load
    monkeypatch.setattr(checkpoint, "_load", lambda file: (loaded.append(file), load(file))[1])
    page = without_spans(page_of(path, space))
    assert sorted(loaded) == [space.fold("dx", number).latest for number in range(3)], "each is read once"
    assert "Cases were added, removed or corrected after training; the model does not reflect these changes." in page
    assert "Train on the cases as they are now.<br>" in page
    assert "--config dx --weights previous --max-time 90s" in page


def test_a_held_out_case_without_a_result_does_not_make_its_fold_untrained(trained: tuple[Path, Workspace]) -> None:
    """As after cases were added: the fold is trained, and its other cases have results."""
    path, space = trained
    file = space.summary("dx")
    kept = [case for case in Summary.read(file).metric_per_case if not case.file.startswith("e")]
    summarise(kept, load_dataset(path).labels).write(file)
    page = page_of(path, space)
    assert "Not all held-out cases are included: e has no result yet." in page
    assert "Not all folds are included" not in page


def test_a_damaged_history_or_summary_is_named(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    space.fold("dx", 1).history.write_text("{")
    with pytest.raises(UserError, match=r"fold_1/history\.jsonl: damaged"):
        page_of(path, space)
    write_json(space.summary("dx"), {"metric_per_case": [{}]})
    with pytest.raises(UserError, match=r"damaged"):
        page_of(path, space)


@pytest.mark.parametrize("shape", [(1, 30, 20), (8, 30, 20), (30, 8, 20)])
@pytest.mark.parametrize("empty", [True, False])
def test_a_case_is_drawn_whatever_its_shape(
    shape: tuple[int, int, int], empty: bool, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    spacing = tuple(5.0 if n == min(shape) else 1.0 for n in shape)
    label = np.zeros(shape, np.uint8)
    if not empty:
        label[tuple(slice(n // 3, n // 2 + 1) for n in shape)] = 1
    image = write_image(tmp_path / "image.nii.gz", label * 9.0, spacing)
    reference = write_image(tmp_path / "label.nii.gz", label, spacing)
    drawn = picture(image, reference, reference, Labels.from_dataset_json({"background": 0, "block": 1}))
    assert min(drawn.shape[:2]) > 200


def picture(image: Path, reference: Path, prediction: Path, labels: Labels) -> np.ndarray:
    return np.array(
        Image.open(io.BytesIO(case_picture(read_scan([image], reference, prediction, labels), labels))).convert("RGB")
    )


def test_regions_are_outlined_with_all_their_values_and_ignored_voxels_are_not(
    write_image: Callable[..., Path], tmp_path: Path
) -> None:
    inner, whole = np.zeros((2, 1, 40, 40), np.uint8)
    whole[0, 10:30, 10:30], inner[0, 15:25, 15:25] = 1, 1
    image = write_image(tmp_path / "image.nii.gz", whole * 5.0)
    nested = write_image(tmp_path / "nested.nii.gz", whole + 2 * inner)
    other = write_image(tmp_path / "other.nii.gz", np.where(inner, 3, 2 * whole).astype(np.uint8))
    regions = Labels.from_dataset_json({"background": 0, "whole": [1, 2, 3], "core": 3}, [1, 3])
    np.testing.assert_array_equal(picture(image, nested, nested, regions), picture(image, nested, other, regions))
    exclusive = Labels.from_dataset_json({"background": 0, "a": 1, "ignore": 2})
    ignored = write_image(tmp_path / "ignored.nii.gz", np.where(inner, 1, 2).astype(np.uint8))
    small, large = (write_image(tmp_path / f"{n}.nii.gz", array) for n, array in enumerate((inner, whole)))
    np.testing.assert_array_equal(picture(image, ignored, small, exclusive), picture(image, ignored, large, exclusive))
