"""Small pieces of text for messages, tables and figures."""

import re
import shlex
from collections.abc import Collection, Iterable

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

MAX_PATH_SHOWN = 300  # characters; Linux allows paths of 4096


def listed(items: Collection[object], shown: int = 5) -> str:
    """Return the first items separated by commas, and how many more there are."""
    words = ", ".join(str(item) for item in list(items)[:shown])
    return words if len(items) <= shown else f"{words} and {len(items) - shown} more"


def counted(number: int, noun: str) -> str:
    """Return the number followed by its noun, singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def by_axis(values: Iterable[float]) -> str:
    """Return one number per axis, such as `12 × 10 × 8` (a shape in voxels) or `3 × 1.5 × 1.5` (a spacing in mm)."""
    return " × ".join(f"{value:.6g}" for value in values)


def duration(seconds: float) -> str:
    """Return a duration with about two significant digits.

    Example:
        >>> [duration(seconds) for seconds in (8, 75, 600, 6000, 200_000)]
        ['8 s', '75 s', '10 min', '1 h 40 min', '2 d 8 h']
    """
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def command_line(command: str, subject: object, *words: str, work: object = None) -> str:
    """Return a command as it can be copied to a shell.

    Args:
        command: Name of the command.
        subject: The dataset or model, as the user named it.
        words: Further words of the command line.
        work: Directory of all results, as the user gave it.

    Example:
        >>> command_line("train", "my data/Dataset001_A", "--fold", "all", work="results")
        "autocrossdim train 'my data/Dataset001_A' --work results --fold all"
    """
    place = [] if work is None else ["--work", str(work)]
    return shlex.join(["autocrossdim", command, str(subject), *place, *words])


def printable(text: str, length: int = 200) -> str:
    """Return at most `length` characters of a text, with `?` for each that a terminal would act on or cannot show."""
    return "".join(character if character.isprintable() else "?" for character in text[:length])


def wrapped(text: str, width: int) -> str:
    r"""Return a text with lines of at most `width` characters, broken between words.

    A command in backticks, and any word that is longer than a line (such as a path), stays in one piece.

    Example:
        >>> wrapped("Run `autocrossdim plan DATA` again.", 20)
        'Run\n`autocrossdim plan DATA`\nagain.'
    """
    lines: list[str] = []
    for line in text.split("\n"):
        words = re.findall(r"\s*(?:`[^`]*`\S*|\S+)", line)
        lines.append(words[0] if words else line)
        for word in words[1:]:
            if len(lines[-1]) + len(word) > width:
                lines.append(word.lstrip())
            else:
                lines[-1] += word
    return "\n".join(lines)


def shown_path(path: object) -> str:
    """Return a path as it is shown in a message: printable, and shortened in the middle if it is very long."""
    text = printable(str(path), len(str(path)))
    if len(text) <= MAX_PATH_SHOWN:
        return text
    half = MAX_PATH_SHOWN // 2
    return f"{text[:half]}…{text[-half:]}"


def for_matplotlib(text: str) -> str:
    r"""Return a text that matplotlib draws as it is: `$` starts a formula there unless it is escaped.

    Example:
        >>> for_matplotlib("$x_1$")
        '\\$x_1\\$'
    """
    return text.replace("$", r"\$")


def without_control(text: str) -> str:
    """Return a text with `?` for characters that would act on a terminal, except tabs and ends of lines."""
    return _CONTROL.sub("?", text)
