"""Imports run one way through the rooms of the package, downwards, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("autocrossdim", "planners", "trainers")

ROOMS = (
    *("system", "records", "data", "preprocessing", "networks", "models", "inference", "evaluation", "selection"),
    *("report", "jobs", "studies", "commands", "top"),
)
"""The rooms of `autocrossdim` from the bottom up; a file may import its own room and those before it."""
TOP = ("__init__", "__main__", "cli")
"""Files beside the rooms, all of them at the top."""

PLANNERS_MAY_IMPORT = "trainers/step.py"
"""The training step, whose memory and time the planner has to know. Nothing else of `trainers` concerns planning."""

Edge = tuple[str, str]


def imports(root: Path) -> set[Edge]:
    """Return every import between files below `root`, as (importing file, imported file).

    Imports inside functions and under `TYPE_CHECKING` count: they tie two files together all the same.
    """
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    return {
        (path.relative_to(root).as_posix(), files[target].relative_to(root).as_posix())
        for name, path in files.items()
        for target in _targets(path, name, set(files))
        if target != name
    }


def _targets(path: Path, name: str, modules: set[str]) -> Iterator[str]:
    """Yield the modules that a file imports, as far as they are among `modules`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            above = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from package import name` imports a module of that name or takes a name from the package.
                submodule = f"{source}.{alias.name}"
                if submodule in modules:
                    yield submodule
                elif source in modules:
                    yield source


def room(file: str) -> str:
    """Return the room of a file of `autocrossdim`, such as `system` for autocrossdim/system/files.py."""
    _, first, *inside = file.split("/")
    if inside:
        return first
    return "top" if first.removesuffix(".py") in TOP else first


def violations(edges: set[Edge]) -> set[Edge]:
    """Return the imports that the order of the rooms forbids."""
    return {(importer, imported) for importer, imported in edges if not _is_allowed(importer, imported)}


def _is_allowed(importer: str, imported: str) -> bool:
    package, other = importer.split("/")[0], imported.split("/")[0]
    if package == other == "autocrossdim":
        return ROOMS.index(room(imported)) <= ROOMS.index(room(importer))
    if package == other or other == "autocrossdim":
        return True
    return package == "planners" and imported == PLANNERS_MAY_IMPORT


def cycle(edges: set[Edge]) -> list[str]:
    """Return the files or folders of an import cycle, the first one repeated at the end; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for importer, imported in edges:
        graph.setdefault(imported, set()).add(importer)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def between_folders(edges: set[Edge]) -> set[Edge]:
    """Return the imports as (importing folder, imported folder); a folder inside another one is one of its own."""
    pairs = {(importer.rpartition("/")[0], imported.rpartition("/")[0]) for importer, imported in edges}
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def _listed(edges: set[Edge]) -> str:
    return "\n".join(f"{importer} -> {imported}" for importer, imported in sorted(edges))


EDGES = imports(ROOT)


def test_every_file_belongs_to_a_room() -> None:
    folder = ROOT / "autocrossdim"
    files = [path.relative_to(ROOT).as_posix() for path in sorted(folder.rglob("*.py"))]
    assert [file for file in files if room(file) not in ROOMS] == []


def test_imports_run_downwards() -> None:
    found = violations(EDGES)
    assert not found, f"Imports that run upwards or between packages:\n{_listed(found)}"


def test_there_are_no_import_cycles() -> None:
    for edges in (EDGES, between_folders(EDGES)):
        found = cycle(edges)
        assert not found, f"Import cycle:\n{' -> '.join(found)}"


# The checks themselves, tested on packages of a few lines.


def write(root: Path, **files: str) -> None:
    """Write Python files whose paths have `__` in place of `/`."""
    for package in PACKAGES:
        (root / package).mkdir()
    for name, content in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    "statement",
    [
        "from autocrossdim.jobs.local import run",
        "from autocrossdim.jobs import local",
        "import autocrossdim.jobs.local",
        "from ..jobs import local",
        "from ..jobs.local import run",
        "def f():\n    from autocrossdim.jobs.local import run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from autocrossdim.jobs.local import run",
    ],
)
def test_an_upward_import_is_found_wherever_it_is_written(tmp_path: Path, statement: str) -> None:
    write(tmp_path, autocrossdim__records__plan=statement, autocrossdim__jobs__local="")
    expected = {("autocrossdim/records/plan.py", "autocrossdim/jobs/local.py")}
    assert violations(imports(tmp_path)) == expected


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("autocrossdim__jobs__local", "autocrossdim.records.plan", True),
        ("autocrossdim__records__plan", "autocrossdim.records.labels", True),
        ("autocrossdim__records__plan", "autocrossdim.cli", False),
        ("autocrossdim__cli", "autocrossdim.commands.train", True),
        ("autocrossdim__cli", "trainers.fit", False),
        ("autocrossdim__cli", "planners.auto", False),
        ("planners__auto", "autocrossdim.records.plan", True),
        ("planners__memory", "trainers.step", True),
        ("planners__memory", "trainers.fit", False),
        ("trainers__fit", "planners.auto", False),
    ],
)
def test_what_may_import_what(tmp_path: Path, importer: str, imported: str, allowed: bool) -> None:
    write(tmp_path, **{importer: f"import {imported}", imported.replace(".", "__"): ""})
    edges = imports(tmp_path)
    assert len(edges) == 1
    assert bool(violations(edges)) is not allowed


def test_a_cycle_is_found_and_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        trainers__a="from trainers import b",
        trainers__b="def f():\n    import trainers.c",
        trainers__c="from trainers.a import x",
    )
    found = cycle(imports(tmp_path))
    assert found[0] == found[-1]
    assert set(found) == {"trainers/a.py", "trainers/b.py", "trainers/c.py"}


def test_a_cycle_between_a_folder_and_one_inside_it_is_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        autocrossdim__data__a="from autocrossdim.data.formats.c import x",
        autocrossdim__data__b="",
        autocrossdim__data__formats__c="import autocrossdim.data.b",
    )
    edges = imports(tmp_path)
    assert cycle(edges) == []
    assert set(cycle(between_folders(edges))) == {"autocrossdim/data", "autocrossdim/data/formats"}
