"""Small pieces of text for messages."""

from collections.abc import Collection


def listed(items: Collection[object], shown: int = 5) -> str:
    """Return `items` as words: the first few, and how many more."""
    words = ", ".join(str(item) for item in list(items)[:shown])
    return words if len(items) <= shown else f"{words} and {len(items) - shown} more"


def counted(number: int, noun: str) -> str:
    """Return the number with its noun in singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The beginning of a text from a file, without signs that would act on a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:200])
