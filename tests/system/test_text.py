import matplotlib
import pytest

matplotlib.use("agg")
from matplotlib import pyplot

from autocrossdim.system.text import counted, duration, for_matplotlib, listed, printable, shown_path


def test_items_are_listed_and_the_rest_is_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(8), shown=3) == "0, 1, 2 and 5 more"


def test_durations_have_about_two_digits() -> None:
    assert [duration(seconds) for seconds in (0.2, 99, 100, 5900, 6000, 3600 * 47.9, 86400 * 3.5)] == [
        *("0 s", "99 s", "2 min", "98 min", "1 h 40 min", "47 h 54 min", "3 d 12 h")
    ]


def test_nouns_follow_their_number() -> None:
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_text_from_files_is_shortened_and_cannot_act_on_a_terminal() -> None:
    assert printable("a\x1b[31mb\n") == "a?[31mb?"
    assert printable("x" * 300) == "x" * 200


def test_long_paths_keep_both_ends() -> None:
    assert shown_path("/data/a.json") == "/data/a.json"
    shown = shown_path("/data/" + "x" * 5000 + "/a.json")
    assert shown.startswith("/data/x")
    assert shown.endswith("x/a.json")
    assert len(shown) < 400


@pytest.mark.parametrize("name", [r"$\foo$", "$x_$", "$", "a$b$c", r"\$x$", "\\", r"50 % \frac", "[/b]", "liver"])
def test_matplotlib_draws_a_name_as_it_is(name: str) -> None:
    figure, axes = pyplot.subplots()
    drawn = axes.set_title(for_matplotlib(name))
    figure.canvas.draw()  # a formula with an error would raise here
    assert drawn._preprocess_math(drawn.get_text()) == (name, False)
    pyplot.close(figure)
