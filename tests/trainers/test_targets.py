import numpy as np
import pytest

from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from trainers.loss import IGNORED
from trainers.targets import Targets


def test_values_become_classes_in_the_order_of_the_labels() -> None:
    labels = Labels(foreground={"a": (2,), "b": (7,)}, ignore=9)
    np.testing.assert_array_equal(Targets(labels)(np.array([[0, 7], [2, 9]], np.uint8)), [[0, 2], [1, IGNORED]])


def test_background_may_be_what_was_not_annotated() -> None:
    labels = Labels(foreground={"a": (1,), "b": (2,)})
    label = np.array([0, 1], np.uint8)
    np.testing.assert_array_equal(Targets(labels, [(0, 2)])(label, ["a"]), [3, 1])
    np.testing.assert_array_equal(Targets(labels)(label, ["a"]), [IGNORED, 1])


@pytest.mark.parametrize("foreground", [{"a": (1,)}, {"a": (3,), "b": (5,)}, {"a": (1, 3), "b": (3,)}])
def test_undeclared_label_values_are_named(foreground: dict[str, tuple[int, ...]]) -> None:
    order = (1, 3) if (1, 3) in foreground.values() else None
    targets = Targets(Labels(foreground=foreground, regions_class_order=order))
    with pytest.raises(UserError, match=r"Label value\(s\) \[4, 9\] are not declared"):
        targets(np.array([[0, 4], [9, 4]], dtype=np.uint8))
