import numpy as np
import pytest
import SimpleITK as sitk

from autocrossdim.data.itk import image_from_itk, to_itk


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_a_simpleitk_image_becomes_channels_and_goes_back_to_its_place(shape: tuple[int, ...], components: int) -> None:
    array = np.arange(np.prod([*shape, components]), dtype=np.int16).reshape(*shape, components).squeeze()
    source = sitk.GetImageFromArray(array, isVector=components > 1)
    source.SetSpacing([0.5, 0.7, 3.0][: len(shape)])
    source.SetOrigin([-1.5, 20.25, 7.0][: len(shape)])
    source.SetDirection([0, 1, 1, 0] if len(shape) == 2 else [0, 1, 0, 1, 0, 0, 0, 0, -1])
    image = image_from_itk(source)
    channels = np.moveaxis(array, -1, 0) if components > 1 else array[None]
    np.testing.assert_array_equal(image.array, channels.reshape(components, *image.geometry.shape))
    assert image.array.dtype == np.float32
    result = to_itk(image.array[0], image.geometry)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), channels[0])
    for place in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result, place)() == getattr(source, place)()


def test_an_array_of_another_shape_than_its_geometry_is_refused() -> None:
    image = image_from_itk(sitk.Image(4, 5, 6, sitk.sitkUInt8))
    with pytest.raises(ValueError, match="shape"):
        to_itk(np.zeros((5, 5, 5)), image.geometry)
