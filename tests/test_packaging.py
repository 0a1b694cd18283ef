"""What users install: the contents of the wheel, the container, and the same version everywhere."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import autocrossdim

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("autocrossdim", "planners", "trainers")
CODE = {".py", ".jinja", ".css", ".js", ".typed"}
# First releases without a published vulnerability in what is used here, by advisories read on 2026-11-30.
WITHOUT_VULNERABILITY = {
    "jinja2": "3.1.6",  # CVE-2025-27516
    "mlflow": "3.11",  # CVE-2026-4137: temporary directories that others can write to; read on 2026-12-01
    "onnx": "1.21",  # CVE-2026-27489 and CVE-2026-34445: external data
    "pillow": "12.3",  # CVE-2026-25990, CVE-2026-40192 and CVE-2026-55379: reading images
    "pydicom": "3.0.2",  # CVE-2026-32711
    "scikit-learn": "1.5",  # CVE-2024-5206
    "setuptools": "78.1.1",  # CVE-2025-47273
    "torch": "2.10",  # CVE-2025-32434 and CVE-2026-24747: torch.load with weights_only=True could run code
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy, because setuptools writes into the directory that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    result = subprocess.run(build, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    (file,) = (folder / "dist").iterdir()
    return zipfile.ZipFile(file)


def test_the_wheel_contains_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    code = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in CODE
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == code
    assert {f"{package}/py.typed" for package in PACKAGES} <= code


def test_the_wheel_offers_the_command_the_planners_and_the_trainer(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    offered = wheel.read(name).decode()
    assert "autocrossdim = autocrossdim.cli:main" in offered
    assert "dx = planners.auto:dx" in offered
    assert "default = trainers.trainer:default" in offered
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    released = re.search(r"^## \[(\S+)\] - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.MULTILINE)
    assert released is not None, "CHANGELOG.md begins with a dated version"
    assert version == released[1] == autocrossdim.__version__
    assert f"\nversion: {version}\n" in text("CITATION.cff")
    assert f'\ndate-released: "{released[2]}"\n' in text("CITATION.cff")


def test_the_container_gets_what_the_wheel_is_built_from() -> None:
    """Building an image needs Docker and a network, but its sources can be checked here."""
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.*)$", text("Dockerfile"), re.MULTILINE)]
    sources = {source for words in copied for source in words}
    assert sources == {"pyproject.toml", "README.md", "LICENSE", *PACKAGES}
    assert {f"!{source}" for source in sources} <= set(text(".dockerignore").splitlines())
    assert all((ROOT / source).exists() for source in sources)


def test_the_container_gets_a_version_of_torch_that_the_package_accepts() -> None:
    (torch,) = (each for each in tomllib.loads(text("pyproject.toml"))["project"]["dependencies"] if "torch>" in each)
    assert f'"{torch}"' in text("Dockerfile")


def test_every_dependency_has_a_lower_bound() -> None:
    description = tomllib.loads(text("pyproject.toml"))
    project = description["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    every = (*description["build-system"]["requires"], *project["dependencies"], *extras)
    others = [each for each in every if not each.startswith("autocrossdim[")]
    assert [each for each in others if not re.search(r"[>=]=\d", each)] == []


def test_no_lower_bound_allows_a_release_with_a_known_vulnerability() -> None:
    description = tomllib.loads(text("pyproject.toml"))
    project = description["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    bounds: dict[str, list[str]] = {}
    for each in (*description["build-system"]["requires"], *project["dependencies"], *extras):
        if found := re.match(r"([\w-]+)>=([\d.]+)", each):
            bounds.setdefault(_normalised(found[1]), []).append(found[2])
    for name, first in WITHOUT_VULNERABILITY.items():
        assert bounds[name], name
        assert all(_numbers(bound) >= _numbers(first) for bound in bounds[name]), f"{name} {bounds[name]} < {first}"


def test_every_imported_distribution_is_declared() -> None:
    """Imports below a function count, too; the standard library and our own packages do not."""
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    declared = {_normalised(re.split(r"[\[<>=!; ]", each)[0]) for each in (*project["dependencies"], *extras)}
    distributions = packages_distributions()
    unknown = {
        name
        for name in _imported() - sys.stdlib_module_names - set(PACKAGES)
        if declared.isdisjoint(map(_normalised, distributions.get(name, [name])))
    }
    assert unknown == set()


def _imported() -> set[str]:
    """Return the top-level names of everything that the packages import."""
    found = set()
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]
