from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.data.dataset import load_dataset
from autocrossdim.system.errors import UserError

LABELS = {"background": 0, "left kidney": 1, "right kidney": 2}


def test_pairs_and_axes_are_read(make_dataset: Callable[..., Path]) -> None:
    path = make_dataset(labels=LABELS, sides=[["left kidney", "right kidney"]], mirror_axes=["front-back"])
    dataset = load_dataset(path)
    assert dataset.sides == (("left kidney", "right kidney"),)
    assert dataset.mirror_axes == ("front-back",)


def test_without_the_keys_the_planner_chooses(make_dataset: Callable[..., Path]) -> None:
    dataset = load_dataset(make_dataset(labels=LABELS))
    assert dataset.sides == ()
    assert dataset.mirror_axes is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sides": "left"}, "sides is malformed"),
        ({"sides": [["left kidney"]]}, "sides is malformed"),
        ({"sides": [["left kidney", "spleen"]]}, "names spleen, which labels does not declare"),
        ({"sides": [["left kidney", "left kidney"]]}, "names left kidney more than once"),
        ({"mirror_axes": "x"}, "mirror_axes is malformed"),
        ({"mirror_axes": ["w"]}, "names w, which is not an axis"),
    ],
)
def test_bad_values_are_refused(make_dataset: Callable[..., Path], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(make_dataset(labels=LABELS, **keys))
