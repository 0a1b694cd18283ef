"""Small pieces of text for messages."""

from collections.abc import Collection


def listed(items: Collection[object], shown: int = 5) -> str:
    """Return `items` as words: the first few, and how many more."""
    words = ", ".join(str(item) for item in list(items)[:shown])
    return words if len(items) <= shown else f"{words} and {len(items) - shown} more"


def counted(number: int, noun: str) -> str:
    """Return the number with its noun in singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str, length: int = 200) -> str:
    """Return at most `length` characters of a text, with `?` for each that a terminal would act on or cannot show."""
    return "".join(character if character.isprintable() else "?" for character in text[:length])


def for_matplotlib(text: str) -> str:
    r"""Return a text that matplotlib draws as it is: `$` starts a formula there unless it is escaped.

    Example:
        >>> for_matplotlib("$x_1$")
        '\\$x_1\\$'
    """
    return text.replace("$", r"\$")
