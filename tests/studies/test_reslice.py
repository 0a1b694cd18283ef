import numpy as np
import pytest

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_image, read_label, write_label
from autocrossdim.data.verify import findings
from autocrossdim.studies.datasets import case_digests
from autocrossdim.studies.reslice import average_slices, merge_slices, reslice_dataset, thicker
from autocrossdim.system.errors import UserError


def resliced(source, folder, number):
    return reslice_dataset(source, folder, number, case_digests(source))


def column(*values):
    return np.array(values, float).reshape(-1, 1, 1)


def test_images_are_block_averages_with_the_last_slice_repeated():
    assert average_slices(column(1, 3, 5, 7, 9), 0, 2).ravel().tolist() == [2, 6, 9]
    assert average_slices(column(1, 3, 5).reshape(1, 1, 3), 2, 3).ravel().tolist() == [3]


@pytest.mark.parametrize(
    ("slices", "number", "expected"),
    [
        ([1, 1, 0], 3, [1]),  # the majority
        ([0, 1, 1, 0], 2, [0, 1]),  # ties go to the first slice of the block
        ([0, 1, 1, 2, 2, 0], 6, [0]),
        ([0, 2, 2, 1, 1], 5, [1]),  # the first slice is not among the most frequent: the smallest value
        ([0, 0, 1], 2, [0, 1]),
    ],
)
def test_labels_are_the_majority_of_a_block(slices, number, expected):
    assert merge_slices(column(*slices).astype(np.uint8), 0, number).ravel().tolist() == expected


def test_ties_do_not_shrink_a_structure():
    volume = np.zeros((40, 1, 1), np.uint8)
    sizes = []
    for start in range(10, 14):
        label = volume.copy()
        label[start : start + 11] = 1
        sizes.append(2 * int(merge_slices(label, 0, 2).sum()))
    assert np.mean(sizes) == pytest.approx(11, abs=0.5)


def test_a_thicker_slice_lies_in_the_middle_of_its_block(make_dataset):
    source = load_dataset(make_dataset(shape=(9, 12, 10), spacing=(2.0, 1.0, 1.5)))
    (first, *_) = source.training_cases()
    image = read_image(first.images)
    changed = thicker(image.geometry, 0, 4)
    assert changed.shape == (3, 12, 10)
    assert changed.spacing == (8.0, 1.0, 1.5)
    direction = np.array(image.geometry.direction).reshape(3, 3)
    assert np.allclose(np.array(changed.origin) - image.geometry.origin, direction[:, 2] * 3.0)


def test_a_dataset_of_thicker_slices_is_valid_and_written_once(make_dataset, tmp_path):
    source = load_dataset(make_dataset(shape=(9, 12, 10), groups={"a": "one"}))
    thick = resliced(source, tmp_path / "thick", 3)
    assert [case.name for case in thick.training_cases()] == ["a", "b", "c", "d", "e"]
    assert thick.groups == {"a": "one"}
    for case in thick.training_cases():
        assert findings(thick, case).faults == []
        original = next(each for each in source.training_cases() if each.name == case.name)
        assert case.label is not None
        assert original.label is not None
        image, (label, _) = read_image(case.images), read_label(case.label)
        assert np.allclose(image.array[0], average_slices(read_image(original.images).array[0], 0, 3), atol=1e-3)
        assert np.array_equal(label, merge_slices(read_label(original.label)[0], 0, 3))
    before = (thick.path / "labelsTr" / "a.nii.gz").stat().st_mtime_ns
    resliced(source, tmp_path / "thick", 3)
    assert (thick.path / "labelsTr" / "a.nii.gz").stat().st_mtime_ns == before
    assert resliced(source, tmp_path / "thin", 1) is source


def test_a_corrected_label_is_averaged_again(make_dataset, tmp_path):
    source = load_dataset(make_dataset(direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)))
    thick = resliced(source, tmp_path / "thick", 2)
    label, geometry = read_label(source.path / "labelsTr" / "a.nii.gz")
    write_label(np.zeros_like(label), geometry, source.path / "labelsTr" / "a.nii.gz")
    assert read_label(thick.path / "labelsTr" / "a.nii.gz")[0].any()
    resliced(source, tmp_path / "thick", 2)
    assert not read_label(thick.path / "labelsTr" / "a.nii.gz")[0].any()


def test_a_dataset_whose_labels_have_other_names_is_written_again(make_dataset, edit_json, tmp_path):
    path = make_dataset(direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    resliced(load_dataset(path), tmp_path / "thick", 2)
    edit_json(path, labels={"background": 0, "lump": 1})
    assert resliced(load_dataset(path), tmp_path / "thick", 2).labels.names == ("lump",)


def test_slices_are_averaged_along_the_same_axis_of_the_patient(make_dataset, write_image, tmp_path):
    """Case a is axial (its slices lie from bottom to top), case b coronal and upside down."""
    path = make_dataset(shape=(8, 12, 10), spacing=(2.0, 1.0, 1.5), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    axial = read_image([path / "imagesTr" / "a_0000.nii.gz"]).array[0]
    label = read_label(path / "labelsTr" / "a.nii.gz")[0]
    turned = {"spacing": (1.0, 2.0, 1.5), "direction": (1, 0, 0, 0, 0, 1, 0, -1, 0)}
    for file, array in (("imagesTr/b_0000.nii.gz", axial), ("labelsTr/b.nii.gz", label)):
        write_image(path / file, np.ascontiguousarray(array.transpose(1, 0, 2)[:, ::-1]), **turned)
    thick = resliced(load_dataset(path), tmp_path / "thick", 2)
    first, second, *_ = thick.training_cases()
    a, b = read_image(first.images), read_image(second.images)
    assert (a.geometry.orientation, b.geometry.orientation) == ("SPL", "PIL")
    assert (a.geometry.spacing, b.geometry.spacing) == ((4.0, 1.0, 1.5), (1.0, 4.0, 1.5))
    assert np.allclose(b.array[0][:, ::-1].transpose(1, 0, 2), a.array[0])
    assert first.label is not None
    assert second.label is not None
    labels = [read_label(label) for label in (first.label, second.label)]
    assert labels[1][1].spacing == (1.0, 4.0, 1.5)
    assert np.array_equal(labels[1][0][:, ::-1].transpose(1, 0, 2) > 0, labels[0][0] > 0)
    assert all(findings(thick, case).faults == [] for case in (first, second))


def test_partly_annotated_slices_are_refused(make_dataset, tmp_path):
    source = load_dataset(make_dataset(unannotated_slices="empty"))
    with pytest.raises(UserError, match="only some slices are annotated"):
        resliced(source, tmp_path / "thick", 2)
