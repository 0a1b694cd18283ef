"""Against a real SLURM: munged, slurmctld and slurmd are started here, on ports and in a folder of their own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

import autocrossdim

pytestmark = pytest.mark.slow

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# The shortest life of a credential; a job that was queued again waits that long.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# Without cgroups, so that it runs in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=shared Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=40
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""
Command = Callable[..., subprocess.CompletedProcess[str]]

DAEMONS = ("munged", "slurmctld", "slurmd")
ENDLESS = ("--epochs", "100000", "--set", "patience=0")  # which no plateau ends
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")


def eventually(true: Callable[[], bool], seconds: float = 300, why: Callable[[], object] = lambda: "") -> None:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, why()
        time.sleep(0.2)


def output(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, encoding="utf-8").stdout


def state(job: str) -> str:
    found = re.search(r"JobState=(\w+)", output("scontrol", "show", "job", job))
    assert found is not None
    return found[1]


def has_ended(job: str) -> bool:
    return state(job) in ENDED


def restarts(job: str) -> int:
    found = re.search(r"Restarts=(\d+)", output("scontrol", "show", "job", job))
    assert found is not None
    return int(found[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """One node with two processors, idle; all it writes lies in the folder returned."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = {name: shutil.which(name, path=path) for name in (*DAEMONS, "sbatch")}
    missing = [name for name, found in programs.items() if found is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here; apt-get install slurm-wlm munge")
    pytest.importorskip("submitit")
    # Not in pytest's folder: the name of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as folder:
        yield from start(Path(folder), programs)


def start(folder: Path, programs: Mapping[str, str | None]) -> Iterator[Path]:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    host, user = socket.gethostname().partition(".")[0], output("id", "-un").strip()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, user=user, ports=ports, folder=folder))
    version = re.search(r"(\d+)\.", output(programs["slurmd"], "-V"))
    if version is not None and int(version[1]) >= 23:  # earlier ones do not look for cgroups unless told to
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SRUN_"))]:
            patch.delenv(name)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        places = [f"--{option}={folder}/munge.{ending}" for option, ending in files.items()]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for words in (["munged", "--force", "--foreground", *places], ["slurmctld", "-D"], ["slurmd", "-D"]):
                program = programs[words[0]] or ""
                with (folder / f"{words[0]}.out").open("wb") as log:
                    started.append(subprocess.Popen([program, *words[1:]], stdout=log, stderr=log))
                if words[0] == "munged":
                    eventually((folder / "munge.socket").exists, 10)
            eventually(
                lambda: (
                    "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, encoding="utf-8", check=False).stdout
                ),
                30,
                lambda: "\n".join(file.read_text(errors="replace") for file in folder.glob("slurm*.log")),
            )
            yield folder
            subprocess.run(["scancel", "--full", "--signal=KILL", "-u", user], check=False)
            subprocess.run(["scancel", "-u", user], check=False)
            eventually(lambda: output("squeue", "-h") == "")
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait(30)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_nodules: Callable[[Path], Path]) -> Path:
    return write_nodules(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def planned(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("planned")
    autocrossdim.plan_and_preprocess(
        raw, work=work, encoder="test_efficientnet", patch_size=(16, 16, 16), batch_size=2, trial=False
    )
    return work


@pytest.fixture
def work(planned: Path, tmp_path: Path) -> Path:
    """A work folder in which the dataset is planned and nothing is trained."""
    shutil.copytree(planned, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def submit(command: Command, raw: Path, work: Path) -> Command:
    """Submit the training of folds: `submit("--slurm", OPTIONS, "--fold", "0")`."""
    settings = ("steps_per_epoch=2", "validation_batches=1", "slices_first=false", "workers=1")
    options = ["--weights", "random", *(word for setting in settings for word in ("--set", setting))]
    return partial(command, "train", raw, "--work", work, *options)


@pytest.fixture
def submitted(submit: Command) -> Callable[..., list[str]]:
    """Submit and return the jobs' numbers."""

    def numbers(*words: object) -> list[str]:
        result = submit("--slurm", "partition=shared,time=10", *words)
        assert result.returncode == 0, result.stderr
        return re.findall(r"job (\d+)", result.stderr)

    return numbers


def log(work: Path, job: str) -> str:
    file = work / "Dataset901_Nodules" / "slurm" / f"{job}_0_log.out"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def epochs_of(fold: Path) -> list[int]:
    file = fold / "history.jsonl"
    return (
        [json.loads(line)["epoch"] for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    )


def test_a_dataset_is_planned_and_preprocessed_as_a_job(
    cluster: Path, raw: Path, tmp_path: Path, command: Command
) -> None:
    words = ("plan_and_preprocess", raw, "--work", tmp_path, "--encoder", "test_efficientnet", "--no-trial")
    result = command(*words, "--slurm", "partition=shared,time=10")
    (job,) = re.findall(r"job (\d+)", result.stderr)
    eventually(lambda: has_ended(job), why=lambda: log(tmp_path, job))
    assert state(job) == "COMPLETED", log(tmp_path, job)
    assert "Decision: dx" in log(tmp_path, job)
    assert len(list((tmp_path / raw.name / "preprocessed" / "dx").glob("*.json"))) == 5


def test_folds_train_as_jobs_and_their_summaries_are_merged(
    cluster: Path, raw: Path, work: Path, submitted: Callable[..., list[str]]
) -> None:
    jobs = submitted("--fold", "0", "--fold", "1", "--epochs", "1")
    assert len(jobs) == 2
    for job in jobs:
        eventually(lambda job=job: has_ended(job), why=lambda job=job: log(work, job))
        assert state(job) == "COMPLETED", log(work, job)
    model = work / raw.name / "models" / "dx"
    assert {file.name for file in model.iterdir()} == {"fold_0", "fold_1", "summary.json"}
    cases = json.loads((model / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]
    splits = json.loads((work / raw.name / "splits.json").read_text(encoding="utf-8"))
    validated = {Path(case["prediction_file"]).name.removesuffix(".nii.gz") for case in cases}
    assert validated == {*splits[0]["val"], *splits[1]["val"]}


def test_jobs_segment_a_folder_together(cluster: Path, raw: Path, work: Path, tmp_path: Path, command: Command) -> None:
    settings = {"steps_per_epoch": 1, "slices_first": False, "workers": 0}
    autocrossdim.train(raw, work=work, weights="random", fold="all", epochs=1, set=settings)
    segmented = tmp_path / "segmented"
    predict = ["predict", str(raw), "--work", str(work), "-i", str(raw / "imagesTs"), "-o", str(segmented)]
    result = command(*predict, "--slurm", "partition=shared,time=10", "--jobs", "2", "--no-mirroring")
    jobs = re.findall(r"job (\d+)", result.stderr)
    assert len(jobs) == 2, result.stderr
    for job in jobs:
        eventually(lambda job=job: has_ended(job))
        assert state(job) == "COMPLETED", (segmented / "slurm" / f"{job}_0_log.out").read_text(encoding="utf-8")
    labels = {file.name for file in (raw / "labelsTs").iterdir()}
    assert {file.name for file in segmented.glob("*.nii.gz")} == labels
    table = (segmented / "volumes.csv").read_text(encoding="utf-8")
    assert all(name.removesuffix(".nii.gz") in table for name in labels)
    refused = command(*predict, "--slurm", "partition=shared,time=10", "--overwrite")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "a requeued job would start over" in refused.stderr


@pytest.mark.parametrize("how", ["requeued by hand", "pre-empted", "out of time"])
def test_a_job_that_loses_its_place_goes_on_from_its_checkpoint(
    cluster: Path, raw: Path, work: Path, submitted: Callable[..., list[str]], how: str
) -> None:
    fold = work / raw.name / "models" / "dx" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest").write_text("of another run")
    (job,) = submitted("--fold", "0", "--restart", "--max-time", "12s", "--set", "patience=0")
    eventually(lambda: bool(epochs_of(fold)), why=lambda: log(work, job))
    if how == "requeued by hand":
        output("scontrol", "requeue", job)
    elif how == "pre-empted":  # for which there is no place beside it: the node is wanted as a whole
        output("sbatch", "-p", "urgent", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    else:  # what SLURM sends some time before the limit
        output("scancel", "--signal=USR2", job)
    eventually(lambda: restarts(job) == 1 or has_ended(job), why=lambda: log(work, job))
    eventually(lambda: has_ended(job), why=lambda: log(work, job))
    assert state(job) == "COMPLETED", log(work, job)
    assert restarts(job) == 1
    assert "resuming after" in log(work, job)
    assert epochs_of(fold) == list(range(1, len(epochs_of(fold)) + 1))
    assert (fold / "validation" / "summary.json").exists()


def test_the_job_array_of_the_documentation_trains_its_folds(
    cluster: Path, raw: Path, work: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
    (script,) = (each for each in re.findall(r"```text\n(#!.*?)```", page, re.DOTALL) if "--array" in each)
    quick = "--epochs 1 --set steps_per_epoch=1 --set validation_batches=1 --set slices_first=false --set workers=0"
    for documented, here in (
        ("--gres=gpu:1 --cpus-per-task=8 ", ""),
        ("0-4%2", "0-1%2"),
        ("exec autocrossdim", f"exec {sys.executable} -m autocrossdim"),
        ("Dataset004_Hippocampus", f"{raw} --work {work} --weights random {quick}"),
    ):
        assert documented in script
        script = script.replace(documented, here)
    file = tmp_path / "folds.sh"
    file.write_text(script, encoding="utf-8")
    array = output("sbatch", "--parsable", "-o", tmp_path / "%a.out", file).strip()
    for fold in ("0", "1"):
        log = tmp_path / f"{fold}.out"
        eventually(lambda job=f"{array}_{fold}": has_ended(job), why=log.read_text)
        assert state(f"{array}_{fold}") == "COMPLETED", log.read_text(encoding="utf-8")
        assert (work / raw.name / "models" / "dx" / f"fold_{fold}" / "validation" / "summary.json").exists()


def test_a_cancelled_job_is_not_queued_again(
    cluster: Path, raw: Path, work: Path, submitted: Callable[..., list[str]]
) -> None:
    fold = work / raw.name / "models" / "dx" / "fold_0"
    (job,) = submitted("--fold", "0", *ENDLESS)
    eventually((fold / "checkpoint_latest").exists, why=lambda: log(work, job))
    output("scancel", job)
    eventually(lambda: job not in output("squeue", "-h", "-o", "%i").split())
    assert state(job) == "CANCELLED"


def test_a_fold_that_fails_fails_its_job_with_the_reason_in_its_log(
    cluster: Path, work: Path, submitted: Callable[..., list[str]]
) -> None:
    (job,) = submitted("--fold", "0", "--weights", "nowhere.pth")
    eventually(lambda: has_ended(job))
    assert state(job) == "FAILED"
    assert "error: " in log(work, job)
    assert "nowhere.pth" in log(work, job)


def test_two_jobs_never_train_the_same_fold_at_a_time(cluster: Path, submitted: Callable[..., list[str]]) -> None:
    (first,) = submitted("--fold", "0", *ENDLESS)
    (second,) = submitted("--fold", "0", *ENDLESS)
    eventually(lambda: state(first) == "RUNNING")
    time.sleep(3)  # two of the scheduler's rounds; there is a second processor
    assert state(second) == "PENDING"
    assert "Dependency" in output("squeue", "-h", "-j", second, "-o", "%r")
    output("scancel", first, second)
    eventually(lambda: output("squeue", "-h") == "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("partition=shared,time=10,partitoin=shared", "partitoin"),
        ("partition=nowhere,time=10", "partition"),
        ("partition=shared", "time"),
        ("partition", "KEY=VALUE"),
        ("time=10,output=log", "output"),
    ],
)
def test_options_sbatch_does_not_take_are_one_clear_line(
    cluster: Path, submit: Command, options: str, message: str
) -> None:
    result = submit("--slurm", options)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert output("squeue", "-h") == ""


@pytest.mark.parametrize(("present", "missing"), [((), "sbatch"), (("sbatch",), "srun")])
def test_without_sbatch_or_srun_it_says_so(
    submit: Command, tmp_path: Path, present: tuple[str, ...], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in present:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = submit("--slurm", "time=10")
    assert result.returncode == 2
    assert f"`{missing}` was not found" in result.stderr
