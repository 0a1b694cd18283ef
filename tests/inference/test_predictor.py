"""`Predictor` takes an image in any form, and gives the same segmentation on the grid of that image."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_image, write_array
from autocrossdim.inference.inputs import ImageSource
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.inference.segmentation import Segmentation
from autocrossdim.networks.build import build_network
from autocrossdim.records.normalization import Normalization
from autocrossdim.system.errors import UserError

SHAPE, SPACING = (10, 12, 14), (2.0, 1.5, 1.0)
DIRECTION = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def untrained(plan: Any, *, folds: int = 1, mirroring: bool = False) -> Predictor:
    torch.manual_seed(0)
    networks = [build_network(plan.network_plan(plan.configuration()), None).eval() for _ in range(folds)]
    return Predictor([Model(plan, plan.configuration(), networks)], mirroring=mirroring)


@pytest.fixture(scope="module")
def predictor(make_plan: Callable[..., Any]) -> Predictor:
    """An untrained 3D model of one channel at 1 mm."""
    return untrained(make_plan())


@pytest.fixture(scope="module")
def two_channels(make_plan: Callable[..., Any]) -> Predictor:
    """An untrained 3D model of two channels."""
    return untrained(make_plan(channel_names=("T1", "T2")))


@pytest.fixture(scope="module")
def slices(make_plan: Callable[..., Any]) -> Predictor:
    """An untrained 2D model of three channels, for colour pictures."""
    return untrained(make_plan(2, channel_names=("red", "green", "blue"), file_ending=".png"))


def noise(channels: int = 1, shape: Sequence[int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)


def write(path: Path, array: np.ndarray, spacing: Sequence[float] = SPACING) -> Path:
    z, y, x = (float(mm) for mm in spacing)
    write_array(array, Geometry(SHAPE, (z, y, x), (5.0, 6.0, 7.0), DIRECTION, 3), path)
    return path


def as_itk(array: np.ndarray, spacing: Sequence[float] = SPACING) -> sitk.Image:
    """Return an array (C, Z, Y, X) or (C, Y, X) as a SimpleITK image, a vector image if C > 1."""
    several = len(array) > 1
    image = sitk.GetImageFromArray(np.moveaxis(array, 0, -1) if several else array[0], isVector=several)
    dims = image.GetDimension()
    image.SetSpacing([float(mm) for mm in spacing][::-1][:dims])
    image.SetOrigin([5.0, 6.0, 7.0][:dims])
    image.SetDirection(DIRECTION if dims == 3 else (0.0, 1.0, 1.0, 0.0))
    return image


def assert_in_place(segmentation: Segmentation, image: sitk.Image) -> None:
    """The segmentation as a SimpleITK image has the label values and the geometry of the image."""
    result = segmentation.to_sitk()
    assert result.GetSize() == image.GetSize()
    assert result.GetSpacing() == pytest.approx(image.GetSpacing())
    assert result.GetOrigin() == pytest.approx(image.GetOrigin())
    assert result.GetDirection() == pytest.approx(image.GetDirection())
    array = sitk.GetArrayFromImage(result)
    np.testing.assert_array_equal(array.reshape(segmentation.label.shape), segmentation.label)


def test_a_notebook_shows_predictor_and_segmentation_in_one_line(predictor: Predictor) -> None:
    assert repr(predictor) == "<Predictor: dx of Dataset001_Tiny, 1 network, without mirroring>"
    segmentation = predictor(noise(), spacing=SPACING)
    assert repr(segmentation) == "<Segmentation: 10 × 12 × 14 voxels of 2 × 1.5 × 1 mm (z, y, x)>"


def test_a_path_instead_of_models_is_answered_with_how_to_load_it() -> None:
    with pytest.raises(TypeError, match=r"Use Predictor\.load\('work/Dataset001'\)"):
        Predictor("work/Dataset001")  # type: ignore[arg-type]


def test_a_call_warns_of_an_unclear_orientation_and_of_a_spacing_far_from_training(
    make_plan: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings(predictor: Predictor, image: ImageSource, **spacing: Any) -> list[str]:
        predictor(image, **spacing)
        return [line.partition(" warning: ")[2] for line in capsys.readouterr().err.splitlines() if "warning" in line]

    oriented, stored = untrained(make_plan(orientation="SPL")), untrained(make_plan())
    path, near, far = tmp_path / "a.nrrd", (1.0, 1.0, 1.0), (1.0, 1.0, 0.4)
    sitk.WriteImage(as_itk(noise(), near), str(path))
    path.write_bytes(path.read_bytes().replace(b"space: left-posterior-superior", b"space dimension: 3"))
    (warning,) = warnings(oriented, path)
    assert warning.startswith(f"{path}: the file does not state its orientation")
    (warning,) = warnings(stored, as_itk(noise(), near))
    assert warning.startswith("Image: the orientation is ")
    assert "the training images did not state theirs" in warning
    assert warnings(oriented, noise(), spacing=near) == []  # an array cannot state its orientation
    (warning,) = warnings(oriented, noise(), spacing=far)
    assert warning.startswith("Image: spacing 0.4 mm along x, but dx was trained at 1 mm")


def test_every_form_of_an_image_gives_the_same_segmentation(two_channels: Predictor, tmp_path: Path) -> None:
    array = noise(2)
    paths = [write(tmp_path / f"a_000{c}.nii.gz", channel) for c, channel in enumerate(array)]
    expected = two_channels(array, spacing=SPACING).label
    assert len(np.unique(expected)) > 1
    itk = as_itk(array)
    sitk.WriteImage(itk, str(tmp_path / "vector.nrrd"))
    forms = {
        "first channel": paths[0],
        "path as text": str(paths[0]),
        "one path per channel": paths,
        "one file with both channels": tmp_path / "vector.nrrd",
        "directory with one case": tmp_path,
        "SimpleITK": itk,
        "one SimpleITK image per channel": [as_itk(channel[None]) for channel in array],
    }
    for name, image in forms.items():
        segmentation = two_channels(image)
        np.testing.assert_array_equal(segmentation.label, expected, err_msg=name)
        assert_in_place(segmentation, itk)


def test_a_dicom_directory_is_one_image(predictor: Predictor, tmp_path: Path) -> None:
    array = (100 * noise()).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, values in enumerate(array[0]):
        image = sitk.GetImageFromArray(values[None])
        image.SetSpacing((1.0, 1.5, 2.0))
        tags = {"0020|000d": "1.2", "0020|000e": "1.2.3", "0020|0013": str(z), "0020|0032": f"0\\0\\{2 * z}"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{z}.dcm"))
        writer.Execute(image)
    expected = predictor(array.astype(np.float32), spacing=SPACING)
    found = predictor(tmp_path)
    np.testing.assert_array_equal(found.label, expected.label)
    assert found.geometry.spacing == pytest.approx(SPACING)


def test_the_components_of_a_2d_vector_image_are_channels_and_the_result_is_2d(
    slices: Predictor, tmp_path: Path
) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (3, 21, 17)).astype(np.uint8)
    expected = slices(picture[:, None].astype(np.float32), spacing=(1, 1, 1)).label
    itk = as_itk(picture, (1.0, 1.0))
    segmentation = slices(itk)
    assert segmentation.label.shape == (1, 21, 17)
    assert_in_place(segmentation, itk)
    sitk.WriteImage(itk, str(tmp_path / "colour.png"))
    for found in (segmentation, slices(tmp_path / "colour.png"), slices([tmp_path / "colour.png"])):
        np.testing.assert_array_equal(found.label, expected)


def test_an_array_keeps_its_spacing_and_lies_at_the_origin(predictor: Predictor) -> None:
    result = predictor(noise(), spacing=SPACING).to_sitk()
    assert result.GetSpacing() == SPACING[::-1]
    assert result.GetOrigin() == (0, 0, 0)
    assert result.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_an_array_is_not_changed(predictor: Predictor) -> None:
    image = noise()
    before = image.copy()
    predictor(image, spacing=SPACING)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("spacing", [None, (1, 1), (1, 1, 0), (1, 1, np.nan), (1, -1, 1)])
def test_an_array_needs_a_valid_spacing(predictor: Predictor, spacing: Any) -> None:
    with pytest.raises(UserError, match=r"spacing=.*in mm"):
        predictor(noise(), spacing=spacing)


def test_the_spacing_may_be_an_array(predictor: Predictor) -> None:
    assert predictor(noise(), spacing=np.array(SPACING)).geometry.spacing == tuple(SPACING)


@pytest.mark.parametrize("wrong", [torch.zeros(1, *SHAPE), [torch.zeros(SHAPE)], [noise()[0]], None, 3])
def test_an_object_that_is_no_image_is_refused(predictor: Predictor, wrong: Any) -> None:
    with pytest.raises(UserError, match=r"An image of type \w+ was given\. Give paths, SimpleITK images, or one NumPy"):
        predictor(wrong, spacing=SPACING)


def test_images_of_the_channels_have_one_geometry(two_channels: Predictor) -> None:
    with pytest.raises(UserError, match=r"SimpleITK image 2: its geometry differs from that of image 1: spacing"):
        two_channels([as_itk(noise()), as_itk(noise(), spacing=(3, 2, 2))])


def test_only_an_array_needs_a_spacing(predictor: Predictor, tmp_path: Path) -> None:
    for image in (as_itk(noise()), write(tmp_path / "a.nii.gz", noise()[0])):
        with pytest.raises(UserError, match="spacing= applies to arrays only"):
            predictor(image, spacing=SPACING)


@pytest.mark.parametrize("array", [noise()[0], noise()[0, 0], np.zeros((1, 0, 3, 4)), noise().astype(str)])
def test_an_array_without_channels_or_numbers_is_refused(predictor: Predictor, array: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"of shape .*needs real numbers of shape \(C, Z, Y, X\)"):
        predictor(array, spacing=SPACING)


def test_several_cases_or_none_are_not_one_image(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No file was given"):
        predictor([])
    with pytest.raises(UserError, match=r"nowhere: no such file or directory"):
        predictor(tmp_path / "nowhere")
    for name in "ab":
        write(tmp_path / f"{name}.nii.gz", noise()[0])
    with pytest.raises(UserError, match=r"contains 2 cases, but one image is needed.*autocrossdim\.predict"):
        predictor(tmp_path)


def test_a_4d_simpleitk_image_is_refused(predictor: Predictor) -> None:
    volume = as_itk(noise())
    with pytest.raises(UserError, match="a 4D image"):
        predictor(sitk.JoinSeries([volume, volume]))


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_an_image_that_would_be_segmented_as_background_is_refused(
    predictor: Predictor, tmp_path: Path, value: float
) -> None:
    array = noise().astype(np.float64)
    array[0, 2, 3, 4] = value
    with np.errstate(over="ignore"):
        path = write(tmp_path / "a_0000.nii.gz", array[0])
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: 1 of 1680 voxels are NaN or infinite"):
        predictor([path])
    with pytest.raises(UserError, match=r"^1 of 1680 voxels are NaN or infinite"):
        predictor(as_itk(array))


def test_a_wrong_number_of_channels_names_the_file(predictor: Predictor, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"a_000{c}.nii.gz", np.ones(SHAPE)) for c in (0, 1)]
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: .*needs .* 1 channel"):
        predictor(paths)
    with pytest.raises(UserError, match=r"^An image of shape \(2, 10, 12, 14\) .*needs .* 1 channel"):
        predictor(noise(2), spacing=SPACING)


@pytest.mark.parametrize("spacing", [(1, 1, 1e4), (1e3, 1e3, 1e3)])
def test_an_implausible_spacing_names_the_file(predictor: Predictor, tmp_path: Path, spacing: Sequence[float]) -> None:
    path = write(tmp_path / "a_0000.nii.gz", noise()[0], spacing)
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: .* in mm"):
        predictor([path])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (4, 0.5, 0.5), (1e-3, 1e-3, 1e-3)])
def test_a_segmentation_is_on_the_grid_of_its_image(
    predictor: Predictor, tmp_path: Path, spacing: Sequence[float]
) -> None:
    path = write(tmp_path / "a_0000.nii.gz", noise()[0], spacing)
    segmentation = predictor(path)
    assert segmentation.geometry == read_image([path]).geometry
    assert segmentation.label.shape == SHAPE
    assert set(np.unique(segmentation.label)) <= {0, 1}


def test_uncertainty_does_not_change_the_segmentation(make_plan: Callable[..., Any]) -> None:
    alone = untrained(make_plan()).models[0]
    predictor = Predictor([Model(alone.plan, alone.configuration, [*alone.networks] * 2)], mirroring=False)
    plain = predictor(noise(), spacing=SPACING, probabilities=True)
    uncertain = predictor(noise(), spacing=SPACING, probabilities=True, uncertainty=True)
    assert plain.uncertainty is None
    np.testing.assert_array_equal(uncertain.label, plain.label)
    assert uncertain.probabilities is not None
    assert plain.probabilities is not None
    np.testing.assert_allclose(uncertain.probabilities, plain.probabilities, atol=1e-3)
    assert uncertain.uncertainty is not None
    assert uncertain.uncertainty.entropy.shape == SHAPE
    # Both folds are the same network.
    assert uncertain.uncertainty.disagreement is not None
    assert not uncertain.uncertainty.disagreement.any()


def test_a_fold_and_a_configuration_may_be_given_alone(write_model: Callable[..., Path], tmp_path: Path) -> None:
    model = write_model(tmp_path / "models" / "dx")
    for fold in (0, "0", [0], ()):
        assert Predictor.load(model, fold=fold, device="cpu").members == 1
    with pytest.raises(UserError, match="--config dx"):
        Predictor.load(model, config="dx", device="cpu")


def test_the_image_has_a_share_in_the_statistics_of_batch_norms(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    model, image = write_model(tmp_path / "models" / "dx"), noise()

    def probabilities(share: float) -> np.ndarray:
        predictor = Predictor.load(model, device="cpu", mirroring=False, image_statistics=share)
        assert predictor.origin.image_statistics == share
        assert any("--image-statistics" in note for note in predictor.notes) is (share > 0)
        values = predictor(image, spacing=SPACING, probabilities=True).probabilities
        assert values is not None
        return values

    assert np.abs(probabilities(0.5) - probabilities(0)).max() > 0.01
    with pytest.raises(UserError, match="--image-statistics 20: use a share from 0 to 1, such as 0.2"):
        Predictor.load(model, device="cpu", image_statistics=20)
    without = write_model(tmp_path / "models" / "unet", kind="plain", encoder="none")
    with pytest.raises(UserError, match="has no batch normalisation, so it would have no effect. Omit it"):
        Predictor.load(without, device="cpu", image_statistics=0.2)


def test_the_plan_gives_the_share_unless_another_is_asked_for(write_model: Callable[..., Path], tmp_path: Path) -> None:
    model = write_model(tmp_path / "models" / "dx", image_statistics=0.2)
    planned, without = (Predictor.load(model, device="cpu", image_statistics=share) for share in (None, 0))
    assert planned.origin.image_statistics == 0.2
    assert without.origin.image_statistics == 0
    assert not any("--image-statistics" in note for note in planned.notes)
    assert any("--image-statistics" in note for note in without.notes)


def test_the_origin_tells_ensembles_apart_in_which_only_one_network_adapts(predictor: Predictor) -> None:
    (model,) = predictor.models
    adapting = replace(model, image_statistics=0.2)
    shares = [
        Predictor(models, mirroring=False).origin.image_statistics for models in ([model, model], [model, adapting])
    ]
    assert shares == [0, 0.2]


def test_calls_of_the_former_interface_name_the_present_one(predictor: Predictor, tmp_path: Path) -> None:
    load: Any = Predictor.load
    with pytest.raises(TypeError, match="no 'folds': it is now called 'fold'"):
        load(tmp_path, folds=[0])
    with pytest.raises(TypeError, match="no 'configurations': it is now called 'config'"):
        load(tmp_path, configurations=["dx"])
    with pytest.raises(TypeError, match=r"takes only model by position. Name the others: work=, fold=, config="):
        load(tmp_path, tmp_path)
    call: Any = predictor
    with pytest.raises(TypeError, match="no 'keep_probabilities': it is now called 'probabilities'"):
        call(noise(), keep_probabilities=True)
    with pytest.raises(TypeError, match=r"takes only image by position. Name the others: spacing="):
        call(noise(), SPACING)


def test_a_missing_channel_is_0_after_normalisation(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    schemes = tuple(Normalization(scheme="zscore", inside_mask=inside) for inside in (True, False))
    plan = make_plan(channel_names=("T1", "T2"), normalization=schemes)
    files = [write(tmp_path / f"a_{n:04d}.nii.gz", array) for n, array in enumerate(50 + noise(2))]
    predictor = untrained(plan)
    complete = predictor.prepare(files).inputs[0].image
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz: A channel is missing\. .*channel_dropout"):
        predictor([None, files[1]])
    predictor.models[0].channel_dropout = True
    for missing in (0, 1):
        given = [None if number == missing else file for number, file in enumerate(files)]
        prepared = predictor.prepare(given)
        image = prepared.inputs[0].image
        assert image.shape == complete.shape
        assert not image[missing].any()
        np.testing.assert_array_equal(image[1 - missing], complete[1 - missing])
        assert prepared.geometry == read_image(files[1 - missing : 2 - missing]).geometry
        assert predictor(given).label.shape == SHAPE
        itk = [None if file is None else sitk.ReadImage(str(file)) for file in given]
        np.testing.assert_array_equal(predictor(itk).label, predictor(given).label)
    for wrong in ([None, None], [None, *files]):
        with pytest.raises(UserError, match=r"one file"):
            predictor(wrong)
