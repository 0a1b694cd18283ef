import numpy as np

from autocrossdim.data.geometry import Geometry, label_fault, same_place


def test_same_place_says_what_differs():
    a = Geometry((4, 5, 6), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), 3)

    def but(**changes: object) -> Geometry:
        return Geometry.from_json({**a.to_json(), **changes})

    assert same_place(a, a) is None
    assert same_place(a, but(spacing=(3.002, 1.0, 1.0), origin=(0.0, 0.0005, 0.0))) is None
    assert same_place(a, but(pixel_type="float", header="nifti:")) is None
    assert "shape 4 × 5 × 6 and 4 × 5 × 7" in str(same_place(a, but(shape=(4, 5, 7))))
    assert "spacing" in str(same_place(a, but(spacing=(3.01, 1.0, 1.0))))
    assert "origin" in str(same_place(a, but(origin=(0.0, 0.0, 0.002))))
    assert "direction" in str(same_place(a, but(direction=(0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1))))
    assert str(same_place(a, but(direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)))) == "orientation SPL and SPR (z, y, x)"
    assert "2D" in str(same_place(a, Geometry((1, 5, 6), (1, 1, 1), (0, 0), (1, 0, 0, 1), 2)))


def test_a_label_of_the_same_shape_may_only_have_a_wrong_header():
    image = Geometry((4, 5, 6), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), 3)
    rounded = Geometry.from_json({**image.to_json(), "spacing": (3.01, 1.0, 1.0)})
    smaller = Geometry.from_json({**image.to_json(), "shape": (4, 5, 5)})
    assert "correct its header, in Python: label.CopyInformation(image)" in str(label_fault(image, rounded))
    assert str(label_fault(image, smaller)).endswith("Resample the label to the grid of the image.")


def test_an_image_halfway_between_two_axes_has_the_orientation_of_its_label():
    half = np.sqrt(0.5)
    low, high = (
        Geometry((4, 5, 6), (3.0, 1.0, 1.0), (0.0,) * 3, (half + d, half - d, 0, d - half, half + d, 0, 0, 0, 1), 3)
        for d in (-1e-6, 1e-6)
    )
    assert low.orientation != high.orientation
    assert same_place(low, high) is None
