"""Messages are shown as they are: no markup, no wrapping outside a terminal, nothing that acts on a terminal."""

import logging
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autocrossdim.system import console
from autocrossdim.system.console import advise, bars, say, show, track, warn, without_advice

LONG_PATH = "/data/" + "/".join(["a long name with spaces"] * 20)
TRICKY = ["[/b]", "[red]x", r"$\foo$", ":smile:", "100 %", "%s", "{x}"]


@pytest.fixture
def terminal(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrower terminal than that of other tests."""
    monkeypatch.setattr(console.console, "width", 40)


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lines come without the time, as in a process whose lines another one shows."""
    monkeypatch.setenv(console.RELAYED, "1")


def test_the_level_that_a_program_sets_before_its_first_call_is_kept() -> None:
    program = (
        "import logging, autocrossdim; logging.getLogger('autocrossdim').setLevel(logging.WARNING); "
        "from autocrossdim.system.console import say, warn; say('message'); warn('careful')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert "message" not in done.stderr
    assert "warning: careful" in done.stderr


def test_outside_a_terminal_a_line_starts_with_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as many CI systems set it; rich would show bars in their logs
    say("reading")
    list(track("abc", "Cases", 3))
    with bars() as shown:
        shown.update("row", "epoch 1", 0.5, "loss 0.4")
    first, second, *rest = capsys.readouterr().err.split("\n")
    stamp, text = first[:19], first[20:]
    assert abs(time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) - time.time()) < 60
    assert text == "reading"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d Cases: 3/3", second)
    assert rest == [""]


@pytest.mark.usefixtures("relayed")
@pytest.mark.parametrize("text", [LONG_PATH, *TRICKY])
def test_a_message_is_one_line_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    assert capsys.readouterr().err == f"{text}\n"
    warn(text)
    assert capsys.readouterr().err == f"warning: {text}\n"


def test_a_terminal_breaks_messages_between_words(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"/data/{'long' * 12}/plan.json"
    say(f"The plan was written to {path}. Run `autocrossdim train a_dataset --fold 0` to train one of its folds.")
    assert capsys.readouterr().err.splitlines() == [
        "The plan was written to",
        f"{path}.",
        "Run",
        "`autocrossdim train a_dataset --fold 0`",
        "to train one of its folds.",
    ]


@pytest.mark.usefixtures("relayed")
def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\x07\nc")
    assert capsys.readouterr().err == "a?[2Jb?\nc\n"
    # Not through the logger: pytest keeps what was logged, and its workers cannot send half a surrogate pair.
    assert console.without_control("c\udc80") == "c?"


def test_a_table_is_as_wide_as_its_contents_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("path", "label")
    for text in TRICKY:
        table.add_row(LONG_PATH, console.without_control(text))
    show(LONG_PATH, table, "[/b]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == LONG_PATH
    assert lines[-1] == "[/b]"
    assert sum(LONG_PATH in line for line in lines) == 1 + len(TRICKY)
    assert max(map(len, lines)) < 2 * len(LONG_PATH)


def test_sentences_of_results_are_broken_between_words_and_the_next_command_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_console", lambda **_: Console(width=20, force_terminal=True, soft_wrap=True))
    show("A sentence of several words.", Text("Another of several words."), "Next: autocrossdim plan DATASET")
    lines = ["A sentence of", "several words.", "Another of several", "words.", "Next: autocrossdim plan DATASET"]
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == lines


@pytest.mark.usefixtures("relayed")
def test_a_command_within_another_one_gives_no_advice(capsys: pytest.CaptureFixture[str]) -> None:
    with without_advice():
        advise("Also train another one.", logging.WARNING)
        advise("Run find_best.")
        say("reading")
        warn("few cases")
    advise("Also train a third one.", logging.WARNING)
    assert capsys.readouterr().err == "reading\nwarning: few cases\nwarning: Also train a third one.\n"


@pytest.mark.usefixtures("relayed")
def test_the_loggers_level_decides_what_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.logger, "level", logging.WARNING)
    console.logger.manager._clear_cache()  # type: ignore[attr-defined]
    say("reading")
    warn("few cases")
    assert list(track([1, 2], "Reading", 2)) == [1, 2]
    assert capsys.readouterr().err == "warning: few cases\n"
    monkeypatch.undo()
    console.logger.manager._clear_cache()  # type: ignore[attr-defined]
    say("reading")
    assert capsys.readouterr().err.endswith(" reading\n")


def test_only_the_first_of_several_processes_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    say("reading")
    warn("few cases")
    assert list(track([1, 2], "Reading", 2)) == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("relayed")
def test_progress_is_a_line_at_the_end_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "Reading [/b]", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "Reading [/b]: 3/3\n"


def test_progress_is_a_bar_on_a_terminal(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "[/b]", 3)) == ["a", "b", "c"]
    shown = capsys.readouterr().err
    assert "[/b]" in shown
    assert "3/3" in shown


def test_bars_are_drawn_below_messages_and_fit_the_terminal(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as shown:
        shown.update("fold", "dx [/b]", 0.25, "a text that is far too long for so narrow a terminal")
        say("epoch 1")
        shown.update("fold", "dx [/b]", 1.0, "2 min left")
        shown._progress.refresh()  # type: ignore[union-attr]
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).replace("\r", "\n")
    lines = [line.rstrip() for line in drawn.splitlines()]
    assert "epoch 1" in lines
    assert any(line.startswith("dx [/b] ━") and line.endswith("2 min left") for line in lines)
    assert max(map(len, lines)) <= 40
    assert lines[-1] == ""  # the bars are removed at the end


@pytest.mark.parametrize("quiet", [True, False])
def test_no_bars_for_quiet_commands_and_in_other_processes(
    quiet: bool, terminal: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if quiet:
        monkeypatch.setattr(console.logger, "isEnabledFor", lambda _: False)
    else:
        monkeypatch.setenv("RANK", "1")
    with bars() as shown:
        shown.update("fold", "dx", 0.25, "2 min left")
    assert capsys.readouterr().err == ""
