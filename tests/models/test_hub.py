"""Models on the Hugging Face Hub, of which a small server on this machine takes the place."""

import errno
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

import autocrossdim
from autocrossdim.commands.train import _starting_weights
from autocrossdim.inference.predictor import Predictor
from autocrossdim.models import hub as hub_module
from autocrossdim.models.about import start
from autocrossdim.models.hub import fetch
from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.source import is_model, open_model
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.errors import UserError
from trainers.start import starting_network

FIRST, SECOND = "1" * 40, "2" * 40


class Hub:
    """A hub with repositories: name -> revision -> (commit, content of model.acd)."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.requests: list[str] = []
        self.status: int | None = None  # answer to everything, if it fails

    def upload(self, name: str, file: Path, commit: str) -> None:
        revisions = self.repositories.setdefault(name, {})
        revisions["main"] = revisions[commit] = (commit, file.read_bytes())

    def use(self, monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
        """Let this address and cache take the place of the hub's."""
        monkeypatch.setattr(hub_module, "hf_hub_url", partial(hf_hub_url, endpoint=address))
        monkeypatch.setattr(hub_module, "hf_hub_download", partial(hf_hub_download, endpoint=address, cache_dir=cache))
        monkeypatch.setattr(hub_module, "try_to_load_from_cache", partial(try_to_load_from_cache, cache_dir=cache))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer `/OWNER/NAME/resolve/REVISION/FILE` as the hub does."""
        self.requests.append(f"{request.command} {request.path}")
        name, _, rest = request.path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        commit, content, missing = "", b"", "RepoNotFound"
        if name in self.repositories:
            commit, content = self.repositories[name].get(revision, ("", b""))
            missing = "RevisionNotFound" if not commit else "" if content and file == "model.acd" else "EntryNotFound"
        if self.status is not None:
            missing = "Failed"
        request.send_response(self.status or (404 if missing else 200))
        if missing:
            request.send_header("X-Error-Code", missing)
        request.send_header("X-Repo-Commit", commit)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("Content-Length", "0" if missing else str(len(content)))
        request.end_headers()
        if request.command == "GET" and not missing:
            request.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub, whose address and cache huggingface_hub uses for the test."""
    stand_in = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            stand_in.answer(self)

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    stand_in.use(monkeypatch, address, tmp_path / "cache")
    yield stand_in
    server.shutdown()
    server.server_close()


def test_a_model_is_loaded_from_the_hub_and_the_newest_revision_is_found(
    hub: Hub, exported: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    assert fetch("hf://clinic/heart").name == f"hf://clinic/heart@{FIRST}"
    assert f"hf://clinic/heart: revision {FIRST}." in capfd.readouterr().err
    image = torch.randn(1, 12, 12, 12).numpy()
    expected = Predictor.load(exported)(image, spacing=(1, 1, 1)).label
    assert (Predictor.load("hf://clinic/heart")(image, spacing=(1, 1, 1)).label == expected).all()

    hub.upload("clinic/heart", autocrossdim.export(trained, tmp_path / "one.acd", fold=0), SECOND)
    assert list(open_model("hf://clinic/heart").selection()["dx"]) == ["fold_0"]
    assert list(open_model(f"hf://clinic/heart@{FIRST}").selection()["dx"]) == ["fold_0", "fold_1"]
    asked = len(hub.requests)
    fetch(f"hf://clinic/heart@{FIRST}")
    assert len(hub.requests) == asked, "a commit never changes, so the copy in the cache is enough"


def test_the_command_line_predicts_with_it(
    hub: Hub,
    exported: Path,
    write_image: Callable[..., Path],
    tmp_path: Path,
    command: Callable[..., Any],
) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    write_image(tmp_path / "images" / "a_0000.nii.gz", torch.rand(8, 8, 8).numpy())
    result = command("predict", "hf://clinic/heart", "-i", tmp_path / "images", "-o", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == [str(tmp_path / "out" / "a.nii.gz")]
    assert FIRST in result.stderr


def test_all_jobs_of_a_prediction_use_the_same_revision(
    hub: Hub,
    exported: Path,
    write_image: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    write_image(tmp_path / "images" / "a_0000.nii.gz", torch.rand(8, 8, 8).numpy())
    jobs: dict[str, Any] = {}
    monkeypatch.setattr("autocrossdim.jobs.slurm.submit", lambda submitted, *_: jobs.update(submitted))
    options = {"slurm": "time=10", "jobs": 2}
    autocrossdim.predict("hf://clinic/heart", tmp_path / "images", tmp_path / "out", **options)
    assert hub.requests.count("HEAD /clinic/heart/resolve/main/model.acd") <= 2  # before and by the download
    assert [f"hf://clinic/heart@{FIRST}" in job.words for job in jobs.values()] == [True, True]


def test_all_folds_that_are_started_use_the_same_revision(hub: Hub, exported: Path, tmp_path: Path) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    folders = {number: FoldFolder(tmp_path / f"fold_{number}") for number in range(3)}
    folders[0].latest.mkdir(parents=True)
    pinned = f"hf://clinic/heart@{FIRST}"
    weights = _starting_weights("hf://clinic/heart", folders, restarted=[])
    assert weights == {0: "hf://clinic/heart", 1: pinned, 2: pinned}
    assert _starting_weights("hf://clinic/heart", folders, restarted=[0])[0] == pinned
    for unchanged in ("imagenet", "hf://clinic/heart@main"):
        assert _starting_weights(unchanged, folders, restarted=[]) == dict.fromkeys(range(3), unchanged)


def test_training_starts_from_it_and_records_the_revision(
    hub: Hub, exported: Path, make_plan: Callable[..., Any], tmp_path: Path
) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    plan = make_plan(patch_size=(8, 8, 8))
    assert is_model("hf://clinic/heart")
    fold = FoldFolder(tmp_path / plan.dataset / "models" / "dx" / "fold_1")
    network, provenance = starting_network(plan.network_plan(plan.configuration()), "hf://clinic/heart", fold)
    assert provenance["model"] == f"hf://clinic/heart@{FIRST}"
    (checkpoints,) = ModelFile.read(exported).checkpoints(fold=[1], config=["dx"])
    _, checkpoint = next(checkpoints)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, checkpoint.network[name]), name
    # A model that is exported later tells it too.
    assert start(provenance).source == f"hf://clinic/heart@{FIRST}"


@pytest.mark.parametrize("way", ["offline", "no network"])
def test_without_a_connection_the_cache_is_used_or_the_error_says_how_to_get_the_file(
    hub: Hub,
    exported: Path,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    fetch("hf://clinic/heart")
    capfd.readouterr()
    if way == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        hub.use(monkeypatch, "http://127.0.0.1:1", tmp_path / "cache")  # where nothing listens
    assert fetch("hf://clinic/heart").name.endswith(FIRST)
    assert "The copy in the cache is used." in capfd.readouterr().err
    with pytest.raises(UserError, match="hf download clinic/liver model.acd --revision v1 --local-dir") as caught:
        fetch("hf://clinic/liver@v1")
    assert "give its path instead" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cache_does_not_stand_in_for_a_newer_revision_that_cannot_be_had(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    fetch("hf://clinic/heart")
    hub.status = 503  # the hub's own fault, which passes
    capfd.readouterr()
    assert fetch("hf://clinic/heart").name.endswith(FIRST)
    assert "The copy in the cache is used." in capfd.readouterr().err
    hub.status = 403
    with pytest.raises(UserError, match=r"hf://clinic/heart: cannot be downloaded from the hub .*Check your access"):
        fetch("hf://clinic/heart")

    hub.status = None
    fault: Exception

    def fail(*_: object, **__: object) -> str:
        raise fault

    monkeypatch.setattr(hub_module, "hf_hub_download", fail)
    fault = OSError(errno.ENOSPC, "No space left on device", "blob.incomplete")
    with pytest.raises(UserError, match=r"blob\.incomplete: cannot be written \(the disk is full\)"):
        fetch("hf://clinic/heart")
    fault = TypeError("a fault of this program")
    with pytest.raises(TypeError):
        fetch("hf://clinic/heart")


def test_what_is_not_on_the_hub_is_one_clear_error(hub: Hub, exported: Path) -> None:
    hub.upload("clinic/heart", exported, FIRST)
    hub.repositories["timm/resnet18"] = {"main": (SECOND, b"")}
    for name, said in {
        "hf://clinic/liver": "there is no such model on the hub, or it is private or gated",
        "hf://clinic/heart@v9": "the repository has no revision 'v9'",
        "hf://timm/resnet18": r"the repository has no model\.acd, so it is not a model of autocrossdim",
        "hf://own--er/heart": "not an address on the hub",
        "hf://clinic/na..me": "not an address on the hub",
        "hf://clinic/heart.git": "not an address on the hub",
        "hf://clinic/-x": "not an address on the hub",
        f"hf://clinic/{'x' * 97}": "not an address on the hub",
        "hf://clinic": "not an address on the hub. Use hf://OWNER/NAME",
        "hf://clinic/heart/model.acd": "not an address on the hub",
    }.items():
        with pytest.raises(UserError, match=f"^{name}: {said}"):
            open_model(name)
    with pytest.raises(UserError, match="is already exported"):
        autocrossdim.export("hf://clinic/heart", "again.acd")


def test_a_truncated_download_is_refused(hub: Hub, exported: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.acd"
    half.write_bytes(exported.read_bytes()[:-100])
    hub.upload("clinic/heart", half, FIRST)
    with pytest.raises(UserError, match="damaged"):
        open_model("hf://clinic/heart")
