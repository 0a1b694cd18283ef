import numpy as np
import pytest
import torch

from autocrossdim.inference.assembly import Assembly, average
from autocrossdim.inference.restore import to_label
from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.crop import Box
from autocrossdim.records.labels import Labels

LABELS = Labels.from_dataset_json({"background": 0, "a": 3, "b": 255})


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_cropped_and_transposed_case_is_restored_bit_for_bit(transpose: tuple[int, int, int]) -> None:
    label = np.zeros((7, 8, 9), dtype=np.uint8)
    box: Box = ((1, 5), (2, 6), (0, 7))
    inside = np.random.default_rng(0).choice([0, 3, 255], size=(4, 4, 7)).astype(np.uint8)
    label.transpose(transpose)[1:5, 2:6, 0:7] = inside  # a view: this writes into label
    placement = Placement(
        original_shape=label.shape,
        transpose=transpose,
        box=box,
        spacing=(1, 1, 1),
        target=(1, 1, 1),
        shape=inside.shape,
    )
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(LABELS.to_index(inside).astype(np.int64)), 3)
    assembly = Assembly(LABELS, placement, probabilities=True)
    for z, values in enumerate(one_hot.movedim(-1, 0).float().unbind(1)):
        assembly.add((z, slice(None)), values)
    np.testing.assert_array_equal(assembly.restored_label(), label)
    probabilities = assembly.restored_probabilities()
    assert probabilities is not None
    assert probabilities.shape == (3, *label.shape)
    np.testing.assert_array_equal(to_label(torch.from_numpy(probabilities.astype(np.float32)), LABELS), label)


def test_probabilities_are_kept_on_request_only() -> None:
    placement = Placement(
        original_shape=(1, 1, 1),
        transpose=(0, 1, 2),
        box=((0, 1), (0, 1), (0, 1)),
        spacing=(1, 1, 1),
        target=(1, 1, 1),
        shape=(1, 1, 1),
    )
    assert Assembly(LABELS, placement).restored_probabilities() is None


def test_the_probabilities_of_models_are_averaged() -> None:
    first, second = torch.tensor([0.1, 0.9, 0.0]), torch.tensor([0.3, 0.1, 0.6])
    torch.testing.assert_close(average([first, second]), torch.tensor([0.2, 0.5, 0.3]))
    assert average([first]) is first
