import json
import shutil
import threading

import pytest

from autocrossdim.commands.study import present
from autocrossdim.data.dataset import load_dataset
from autocrossdim.records.study import StudyResults
from autocrossdim.studies.comparison import compare_arms
from autocrossdim.studies.design import Arm, Study
from autocrossdim.studies.engine import plan_jobs, read_runs, run_folder, run_jobs, summarise
from autocrossdim.system import lock
from autocrossdim.system.errors import UserError

ARMS = [
    Arm("random", weights="random"),
    Arm("ImageNet", settings={"warmup": 0.1}),
    Arm("both", members=("random", "ImageNet")),
]
STUDY = Study("toy", "What is better?", lambda _: ARMS, compare_arms)


@pytest.fixture
def jobs(make_dataset, edit_json):
    folder = make_dataset(cases=[f"case_{index}" for index in range(8)])

    def build(**changes):
        edit_json(folder, **{key: changes.pop(key) for key in ("labels", "description") if key in changes})
        source = load_dataset(folder)
        options = {"sizes": [2, 4], "seeds": 2, "test_cases": None, "plan": {"slices": 1}, "settings": {"epochs": 3}}
        options["digests"] = {case.name: f"digest of {case.name}" for case in source.training_cases()}
        return plan_jobs(STUDY, ARMS, source, **(options | changes))

    return build


@pytest.fixture
def performed(make_runs):
    """A stand-in for training, whose Dice is better for 'ImageNet', and the runs it was asked for."""
    asked = []

    def perform(job, place):
        asked.append(job.title)
        value = 0.5 if job.arm.name == "random" else 0.7
        (run,) = make_runs(job.arm.name, [[value + 0.01 * case for case in range(4)]], size=len(job.training))
        return run.model_copy(update={"seed": job.seed, "options": job.options})

    return perform, asked


def test_all_arms_have_the_same_cases_and_settings_but_for_what_they_vary(jobs):
    found = jobs()
    assert len(found) == 2 * 2 * 3
    assert len({job.test for job in found}) == 1
    for job in found:
        same = [other for other in found if (other.seed, len(other.training)) == (job.seed, len(job.training))]
        assert {other.training for other in same} == {job.training}
        assert not set(job.training) & set(job.test)
        assert job.settings["seed"] == job.seed
        assert job.settings.get("warmup") == (0.1 if job.arm.name == "ImageNet" else None)
    small, large = (next(job for job in found if len(job.training) == size) for size in (2, 4))
    assert set(small.training) < set(large.training)


def test_by_default_all_cases_are_used(jobs):
    assert {len(job.training) for job in jobs(sizes=[])} == {6}
    with pytest.raises(UserError, match="at most 6 can be trained on"):
        jobs(sizes=[7])


def test_finished_runs_are_skipped_and_more_seeds_can_be_added(jobs, performed, tmp_path):
    perform, asked = performed
    run_jobs(jobs(), tmp_path, perform)
    assert len(asked) == 12
    run_jobs(jobs(), tmp_path, perform)
    assert len(asked) == 12
    run_jobs(jobs(seeds=3), tmp_path, perform)
    assert len(asked) == 18
    assert len(read_runs(jobs(), tmp_path)) == 12


def test_an_interrupted_run_is_repeated(jobs, performed, tmp_path):
    perform, asked = performed

    def fail(job, place):
        if len(asked) == 3:
            raise KeyboardInterrupt
        return perform(job, place)

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs(), tmp_path, fail)
    assert len(read_runs(jobs(), tmp_path)) == 3
    run_jobs(jobs(), tmp_path, perform)
    assert len(asked) == len(set(asked)) == 12


def test_runs_with_other_options_are_refused_unless_they_may_be_discarded(jobs, performed, tmp_path):
    perform, asked = performed
    run_jobs(jobs(sizes=[2]), tmp_path, perform)
    other = jobs(settings={"epochs": 4})
    with pytest.raises(UserError, match=r"6 runs of this study were made with other options \(different: training set"):
        run_jobs(other, tmp_path, perform)
    assert len(asked) == 6
    assert read_runs(other, tmp_path) == []
    run_jobs(other, tmp_path, perform, overwrite=True)
    assert len(asked) == 6 + 12


def test_runs_from_before_a_correction_are_not_mixed_with_new_ones(jobs, performed, tmp_path):
    run_jobs(jobs(), tmp_path, performed[0])
    corrected = jobs()[0].test[0]
    digests = {f"case_{index}": f"digest of case_{index}" for index in range(8)} | {corrected: "another digest"}
    with pytest.raises(UserError, match=r"12 runs of this study .* \(different: contents of the files\)"):
        run_jobs(jobs(digests=digests), tmp_path, performed[0])
    assert read_runs(jobs(digests=digests), tmp_path) == []


def test_runs_with_other_labels_are_not_mixed_with_new_ones(jobs, performed, tmp_path):
    run_jobs(jobs(), tmp_path, performed[0])
    other = jobs(labels={"background": 0, "lump": 1})
    with pytest.raises(UserError, match=r"12 runs of this study .* \(different: keys of dataset\.json\)"):
        run_jobs(other, tmp_path, performed[0])
    assert read_runs(other, tmp_path) == []
    same = jobs(labels={"background": 0, "block": 1}, description="another description")
    assert len(read_runs(same, tmp_path)) == 12


def test_a_run_is_recorded_before_its_training_is_deleted(jobs, performed, tmp_path, monkeypatch):
    perform, asked = performed
    (job, *_) = jobs()
    work = run_folder(tmp_path, job.arm.name, job) / "work"

    def train(job, place):
        (place / "work").mkdir(parents=True)
        return perform(job, place)

    def stop(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            run_jobs([job], tmp_path, train)
    assert work.exists()
    run_jobs([job], tmp_path, train)
    assert len(asked) == 1
    assert not work.exists()


def test_two_identical_commands_share_the_runs(jobs, performed, tmp_path):
    """While one process carries out a run, the other one waits for it and uses its record."""
    perform, asked = performed
    (job, *_) = jobs()
    second = threading.Thread(target=run_jobs, args=([job], tmp_path, perform))

    def slowly(job, place):
        (place / "work").mkdir()
        second.start()
        second.join(0.3)
        assert (place / "work").exists()
        return perform(job, place)

    run_jobs([job], tmp_path, slowly)
    second.join(10)
    assert asked == [job.title]
    assert [run.arm for run in read_runs([job], tmp_path)] == ["random"]
    assert not list(tmp_path.glob("runs/*/.*"))


def test_a_run_that_another_process_carries_out_is_not_discarded(jobs, performed, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_TO_END", 0.0)
    (job, *_), (other, *_) = jobs(), jobs(settings={"epochs": 4})

    def meanwhile(job, place):
        with pytest.raises(UserError, match=r"2_cases_seed_0: process .* is writing to it"):
            run_jobs([other], tmp_path, performed[0], overwrite=True)
        return performed[0](job, place)

    run_jobs([job], tmp_path, meanwhile)
    assert len(read_runs([job], tmp_path)) == 1


def test_arms_whose_names_have_the_same_ascii_letters_have_their_own_directories(jobs, tmp_path):
    arms = ("模型.pt", "权重.pt", "模型", "权重", "a-b.pt", "a_b.pt")
    assert len({run_folder(tmp_path, arm, jobs()[0]).parent for arm in arms}) == len(arms)
    assert {run_folder(tmp_path, arm, jobs()[0]).parents[1].name for arm in arms} == {"runs"}


def test_results_are_written_and_read_again(jobs, performed, tmp_path):
    run_jobs(jobs(), tmp_path, performed[0])
    results = summarise(STUDY, ARMS, "Dataset001_Tiny", read_runs(jobs(), tmp_path), tmp_path)
    assert "better than random: ImageNet by 0.200 Dice" in results.conclusion
    assert StudyResults.read(tmp_path / "results.json") == results
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert page.startswith("# What is better?\n\n" + results.conclusion)
    assert page.count("\n| ") == 2 + 6
    assert (tmp_path / "figure.png").stat().st_size
    json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)  # strict JSON


def test_results_say_that_only_annotated_slices_count(jobs, performed, make_runs, tmp_path):
    run_jobs(jobs(), tmp_path, performed[0])
    runs = read_runs(jobs(), tmp_path)
    scope = "annotated slices only (42 of 160)"
    assert not any("annotated" in note for note in summarise(STUDY, ARMS, "Dataset001_Tiny", runs, tmp_path).notes)
    sparse = [run.model_copy(update={"scope": scope}) for run in runs]
    results = summarise(STUDY, ARMS, "Dataset001_Tiny", sparse, tmp_path)
    assert results.notes[0] == "The held-out cases were evaluated on annotated slices only (42 of 160)."
    assert scope in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert results.notes[0] in present(results)


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"results\.json: damaged"):
        StudyResults.read(tmp_path / "results.json")
