"""Every module can be imported where the signals and system calls of Unix are missing, as on Windows."""

import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator

import pytest

PACKAGES = ("autocrossdim", "planners", "trainers")
MISSING = {
    signal: ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "pthread_sigmask"),
    os: ("fork", "sched_getaffinity", "sched_setaffinity", "sysconf", "sysconf_names", "geteuid", "getuid", "killpg"),
}
MODULES = ("fcntl", "grp", "pwd", "resource", "termios")


def modules() -> Iterator[str]:
    """Yield the names of all our modules, each importable once its package is."""
    for package in map(importlib.import_module, PACKAGES):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                yield module.name


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports as on Windows, as far as our own modules are concerned; the libraries have been loaded before."""
    for name in modules():
        importlib.import_module(name)
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    for name in ours:
        del sys.modules[name]
    for module, names in MISSING.items():
        for name in names:
            monkeypatch.delattr(module, name, raising=False)
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "platform", "win32")
    yield
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.modules.update(ours)


@pytest.mark.usefixtures("windows")
def test_everything_is_imported_and_stops_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    for name in modules():
        importlib.import_module(name)
    from autocrossdim.jobs.local import run_together, slots
    from autocrossdim.system.processes import default_processes, interrupts_blocked
    from autocrossdim.system.signals import REQUESTS
    from trainers.signals import noting_requests

    assert signal.SIGTERM in REQUESTS
    assert default_processes() >= 1
    with interrupts_blocked(), noting_requests():
        run_together({"one": [sys.executable, "-c", "print('ran')"]}, slots(2, []))
    assert "one: ran" in capfd.readouterr().err
