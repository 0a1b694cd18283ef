"""Images and labels without a description of their own: two directories, or a table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.images import read_label
from autocrossdim.system.errors import UserError


@pytest.fixture
def write_pair(write_image):
    def write(image: Path, label: Path | None, *, values=(0, 3, 255), channels: int = 1, seed: int = 0) -> None:
        array = np.random.default_rng(seed).integers(0, 255, (10, 8)).astype(np.uint8)
        if image.suffix != ".png":
            array = np.stack([array] * 4).astype(np.int16)
        write_image(image, array)
        if label is not None:
            mask = np.full(array.shape, values[0], np.uint8)
            for number, value in enumerate(values[1:]):
                mask[..., 1 + 3 * number : 4 + 3 * number, 2:6] = value
            write_image(label, mask)

    return write


def test_values_of_masks_become_consecutive(tmp_path: Path, convert, write_pair) -> None:
    source = tmp_path / "skin"
    for number in range(5):
        write_pair(source / "images" / f"s{number}_image.png", source / "masks" / f"s{number}_mask.png", seed=number)
    write_pair(source / "images" / "s9_image.png", None, seed=9)
    dataset, content = convert(source)
    assert content["file_ending"] == ".png"
    assert content["labels"] == {"background": 0, "label 1": 1, "label 2": 2}
    stored, _ = read_label(source / "masks" / "s2_mask.png")
    label, _ = read_label(dataset / "labelsTr" / "s2.png")
    np.testing.assert_array_equal(label, np.select([stored == 3, stored == 255], [1, 2]))
    assert (dataset / "imagesTs" / "s9_0000.png").is_file()


def test_labels_and_channels_can_be_named(tmp_path: Path, convert, write_pair) -> None:
    source = tmp_path / "mr"
    for number in range(5):
        write_pair(
            source / "imagesTr" / f"p{number}_0000.nii.gz", source / "labelsTr" / f"p{number}.nii.gz", seed=number
        )
        write_pair(source / "imagesTr" / f"p{number}_0001.nii.gz", None, seed=number + 50)
    _, content = convert(source, channel=["T1", "T2"], label=["tumour=255", "organ=3"])
    assert content["channel_names"] == {"0": "T1", "1": "T2"}
    assert content["labels"] == {"background": 0, "organ": 1, "tumour": 2}
    assert "--label tumour=255" in content["converted_from"]["command"]
    with pytest.raises(UserError, match="contains the value 255, but only 0, 3 are expected"):
        autocrossdim.convert(source, tmp_path / "other", label={"organ": 3}, processes=1)


def test_a_case_whose_channels_have_other_numbers_is_a_fault(tmp_path: Path, write_pair) -> None:
    """Its second channel would be taken for the first one of the others."""
    source = tmp_path / "mr"
    for name, numbers in (("a", (0, 1)), ("b", (1, 2)), ("c", (0, 1))):
        for number in numbers:
            write_pair(source / "images" / f"{name}_{number:04d}.nii.gz", source / "labels" / f"{name}.nii.gz")
    with pytest.raises(UserError, match="case 'b': its channels are numbered 0001, 0002 instead of 0000, 0001"):
        autocrossdim.convert(source, tmp_path / "out", processes=1)


def test_labels_without_a_name_are_reported_with_their_values(
    tmp_path: Path, write_pair, succeed: Callable[..., str]
) -> None:
    """A stray 254 beside 255 becomes a label of its own, which must not go unnoticed."""
    source = tmp_path / "skin"
    for number in range(5):
        values = (0, 255) if number else (0, 255, 254)
        write_pair(source / "images" / f"s{number}.png", source / "masks" / f"s{number}.png", values=values)
    said = succeed("convert", source, "-o", tmp_path / "Dataset001_A", "--processes", "1")
    assert "'label 1' is 254 (12 voxels in 1 of 5 files), 'label 2' is 255 (60 voxels in 5 of 5 files)" in said
    assert "Labels: label 1 = 1, label 2 = 2." in said
    (source / "masks" / "s0.png").unlink()
    said = succeed("convert", source, "-o", tmp_path / "Dataset002_B", "--label", "lesion=255", "--processes", "1")
    assert "Labels: lesion = 1." in said
    assert "became a label" not in said


def test_a_label_that_cannot_be_read_is_one_problem(tmp_path: Path, write_pair) -> None:
    source = tmp_path / "skin"
    for number in range(3):
        write_pair(source / "images" / f"s{number}.png", source / "masks" / f"s{number}.png")
    (source / "masks" / "s1.png").write_bytes(b"")
    with pytest.raises(UserError, match="^1 problem found"):
        autocrossdim.convert(source, tmp_path / "out", processes=1)


def test_colour_pictures_stay_one_file(tmp_path: Path, convert) -> None:
    from PIL import Image

    source = tmp_path / "colour"
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
    for number in range(5):
        picture = np.random.default_rng(number).integers(0, 255, (8, 9, 3)).astype(np.uint8)
        Image.fromarray(picture).save(source / "images" / f"c{number}.png")
        Image.fromarray((picture[..., 0] > 99).astype(np.uint8)).save(source / "labels" / f"c{number}.png")
    dataset, content = convert(source)
    assert content["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert next(file.name for file in sorted((dataset / "imagesTr").iterdir())) == "c0_0000.png"


@pytest.mark.parametrize("channel", ["", "_0000"])
def test_numbers_of_four_digits_that_labels_have_too_are_part_of_the_name(
    tmp_path: Path, convert, write_pair, channel: str
) -> None:
    source = tmp_path / "numbered"
    for number in range(5):
        image, label = f"images/scan_{number:04d}{channel}.nii.gz", f"labels/scan_{number:04d}.nii.gz"
        write_pair(source / image, source / label, seed=number)
    dataset, content = convert(source)
    assert content["channel_names"] == {"0": "channel 0"}
    assert content["numTraining"] == 5
    assert (dataset / "imagesTr" / "scan_0003_0000.nii.gz").is_file()


def test_files_without_a_partner_are_faults(tmp_path: Path, write_pair) -> None:
    source = tmp_path / "odd"
    write_pair(source / "images" / "a.nii.gz", source / "labels" / "a.nii.gz")
    write_pair(source / "images" / "b_0000.nii.gz", source / "labels" / "b.nii.gz")
    write_pair(source / "images" / "b_0001.nii.gz", source / "labels" / "c.nii.gz")
    with pytest.raises(UserError) as error:
        autocrossdim.convert(source, tmp_path / "out", processes=1)
    assert "c.nii.gz: a label without an image called c" in str(error.value)
    assert "case 'b': 2 image files instead of 1" in str(error.value)


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_names_channels_and_groups(tmp_path: Path, convert, write_pair, separator: str) -> None:
    lines = [["case", "T1", "T2", "label", "group"]]
    for number in range(5):
        files = [f"scans/{number}_{channel}.nii" for channel in ("t1", "t2")]
        write_pair(tmp_path / files[0], tmp_path / f"drawn/{number}.nii.gz", values=(0, 1), seed=number)
        write_pair(tmp_path / files[1], None, seed=number + 50)
        lines.append([f"k{number}", *files, f"drawn/{number}.nii.gz", f"patient {number // 2}"])
    lines.append(["unlabelled", *files, "", ""])
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(separator.join(line) for line in lines))
    dataset, content = convert(table)
    assert content["channel_names"] == {"0": "T1", "1": "T2"}
    assert content["groups"] == {f"k{number}": f"patient {number // 2}" for number in range(5)}
    assert content["file_ending"] == ".nii.gz"
    assert (dataset / "imagesTs" / "unlabelled_0001.nii.gz").is_file()


def test_lines_with_faults_are_all_named(tmp_path: Path, write_pair) -> None:
    write_pair(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    table = tmp_path / "cases.csv"
    table.write_text(
        "case,CT,label\nx,a.nii.gz,b.nii.gz\ny,gone.nii.gz,b.nii.gz\n,a.nii.gz,b.nii.gz\nx,a.nii.gz,b.nii.gz\n"
    )
    with pytest.raises(UserError) as error:
        autocrossdim.convert(table, tmp_path / "out", processes=1)
    message = str(error.value)
    assert "line 3: " in message
    assert "gone.nii.gz: no such file" in message
    assert "line 4: case is empty" in message
    assert "case 'x': the source contains 2 cases of that name" in message
    table.write_text("case;CT\nx;a.nii.gz\n")
    with pytest.raises(UserError, match="its first line names case, CT"):
        autocrossdim.convert(table, tmp_path / "out", processes=1)
