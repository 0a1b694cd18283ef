import inspect

import pytest

from autocrossdim.system.renamed import renamed


@renamed(colour="color")
def paint(wall: str, *, color: str = "white", coats: int = 1) -> str:
    """Paint a wall."""
    return f"{wall} {color} {coats}"


def test_present_calls_are_passed_on() -> None:
    assert paint("north", color="red", coats=2) == "north red 2"
    assert paint(wall="north") == "north white 1"


def test_a_former_name_gives_the_present_one() -> None:
    with pytest.raises(TypeError, match=r"paint\(\) has no 'colour': it is now called 'color'"):
        paint("north", colour="red")  # type: ignore[call-arg]


def test_arguments_that_became_keyword_only_are_named() -> None:
    with pytest.raises(TypeError, match=r"paint\(\) takes only wall by position. Name the others: color=, coats="):
        paint("north", "red")  # type: ignore[misc]


def test_an_unknown_name_stays_an_error_of_python_and_the_signature_stays() -> None:
    with pytest.raises(TypeError, match="smell"):
        paint("north", smell="fresh")  # type: ignore[call-arg]
    assert list(inspect.signature(paint).parameters) == ["wall", "color", "coats"]
    assert paint.__doc__ == "Paint a wall."
