import numpy as np
import pytest

from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint, LabelMeasurement
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from planners.mirroring import Mirroring, choose_mirroring, plan_axis_names, side_pairs

ORGANS = Labels.from_dataset_json({"background": 0, "a": 1, "b": 2})
KIDNEYS = Labels.from_dataset_json({"background": 0, "left kidney": 1, "right kidney": 2})
NAMES = ("top-bottom", "front-back", "left-right")


def dataset(
    gap: tuple[float, float, float], *, jitter: float = 0.0, contrast: float = 0.0, cases: int = 6
) -> Fingerprint:
    """Cases in which the second label lies `gap` voxels (z, y, x) from the first, give or take `jitter`."""
    random = np.random.default_rng(0)

    def measured(offset: np.ndarray, mean: float) -> LabelMeasurement:
        z, y, x = (20 + offset).tolist()
        return LabelMeasurement(centroid=(z, y, x), mean=(mean,), std=(1.0,))

    return Fingerprint(
        dims=3,
        cases=tuple(
            CaseFingerprint(
                name=f"case_{number}",
                shape=(40, 40, 40),
                cropped_shape=(40, 40, 40),
                spacing=(1, 1, 1),
                orientation="SPL",
                label_voxels={1: 100, 2: 100},
                labels={
                    1: measured(np.zeros(3), 0.0),
                    2: measured(np.array(gap) + random.uniform(-jitter, jitter, 3), contrast),
                },
            )
            for number in range(cases)
        ),
        intensities=(),
    )


def chosen(fingerprint: Fingerprint, labels: Labels = ORGANS, **options: object) -> Mirroring:
    settings = {"transpose": (0, 1, 2), "axis_names": NAMES, "dims": 3, **options}
    return choose_mirroring(fingerprint, labels, **settings)  # type: ignore[arg-type]


def test_labels_without_an_order_may_be_mirrored() -> None:
    mirroring = chosen(dataset((0, 0, 0), jitter=5))
    assert mirroring == Mirroring((0, 1, 2), ("Mirrored axes: left-right, front-back, top-bottom.",))


def test_an_axis_along_which_alike_labels_keep_their_order_is_not_mirrored() -> None:
    mirroring = chosen(dataset((0, 8, 0), jitter=3))
    assert mirroring.axes == (0, 2)
    assert mirroring.reasons == (
        "The front-back axis is not mirrored, because a and b look alike and lie in the same order along it in "
        "all 6 cases that have both.",
    )


def test_labels_of_different_intensity_may_be_mirrored() -> None:
    assert chosen(dataset((0, 8, 0), contrast=3.0)).axes == (0, 1, 2)


def test_the_label_values_of_regions_are_compared_if_regions_tell_them_apart() -> None:
    apart = Labels.from_dataset_json({"kidney A": [1, 3], "kidney B": 2}, [1, 2])
    mirroring = chosen(dataset((0, 8, 0)), apart)
    assert mirroring.axes == (0, 2)
    assert "because label value 1 and label value 2 look alike" in mirroring.reasons[0]
    together = Labels.from_dataset_json({"kidneys": [1, 2], "tumour": 3}, [1, 3])
    assert chosen(dataset((0, 8, 0)), together).axes == (0, 1, 2)


def test_two_cases_are_enough_but_one_is_not() -> None:
    assert chosen(dataset((0, 8, 0), cases=2)).axes == (0, 2)
    assert chosen(dataset((0, 8, 0), cases=1)).axes == (0, 1, 2)


def test_the_axes_are_those_of_the_plan() -> None:
    names = plan_axis_names("SPL", (2, 0, 1))
    assert names == ("left-right", "top-bottom", "front-back")
    assert chosen(dataset((0, 8, 0)), transpose=(2, 0, 1), axis_names=names).axes == (0, 1)


def test_left_and_right_by_name_switch_off_the_left_right_axis_even_with_few_cases() -> None:
    mirroring = chosen(dataset((0, 0, 0), jitter=5, cases=2), KIDNEYS)
    assert mirroring.axes == (0, 1)
    assert "labels differ by their side: left kidney and right kidney" in mirroring.reasons[0]


def test_pairs_declared_in_dataset_json_count_as_sides() -> None:
    assert chosen(dataset((0, 0, 0), jitter=5), sides=[("a", "b")]).axes == (0, 1)


def test_axes_declared_in_dataset_json_replace_the_choice() -> None:
    assert chosen(dataset((0, 8, 0)), KIDNEYS, chosen=["front-back", "x"]).axes == (1, 2)
    assert chosen(dataset((0, 8, 0)), chosen=[]).axes == ()


def test_an_axis_that_the_images_do_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"left-right, an axis that the images do not have\. Use x, y and z"):
        chosen(dataset((0, 8, 0)), axis_names=plan_axis_names(None, (0, 1, 2)), chosen=["left-right", "x"])


def test_without_known_directions_the_horizontal_axis_is_left_right() -> None:
    names = plan_axis_names(None, (0, 1, 2))
    assert names == ("z", "y", "x")
    mirroring = chosen(dataset((0, 0, 0), jitter=5), KIDNEYS, axis_names=names)
    assert mirroring.axes == (0, 1)
    assert mirroring.reasons[0].startswith(
        "The x axis (taken to be left-right: the images share no known orientation) is not mirrored, because labels"
    )


def test_the_first_axis_of_2d_images_is_not_named_as_mirrored() -> None:
    mirroring = chosen(dataset((0, 0, 0), jitter=5), axis_names=("z", "y", "x"), dims=2)
    assert mirroring.reasons == ("Mirrored axes: x, y.",)


def test_axes_of_2d_images_have_no_anatomical_names() -> None:
    """Files of one slice may state an orientation although ultrasound, for example, has none."""
    assert chosen(dataset((0, 0, 0), jitter=5), dims=2).reasons == ("Mirrored axes: x, y.",)
    ordered = chosen(dataset((0, 8, 0), jitter=3), dims=2)
    assert ordered.axes == (0, 2)
    assert ordered.reasons[0].startswith("The y axis is not mirrored, because a and b look alike")
    # Pairs of labels need the axis on which the sides are, as far as the files state it.
    assert chosen(dataset((0, 0, 0), jitter=5), KIDNEYS, dims=2).reasons[0].startswith("The left-right axis is not")


@pytest.mark.parametrize(
    ("organs", "end"),
    [
        (["kidney"], "left kidney and right kidney."),
        (["kidney", "lung"], "left kidney and right kidney and 1 more pair."),
        (["kidney", "lung", "eye"], "left kidney and right kidney and 2 more pairs."),
    ],
)
def test_pairs_that_are_not_named_are_counted(organs: list[str], end: str) -> None:
    names = ["background", *(f"{side} {organ}" for organ in organs for side in ("left", "right"))]
    labels = Labels.from_dataset_json({name: value for value, name in enumerate(names)})
    (reason,) = chosen(dataset((0, 0, 0), jitter=5), labels).reasons
    assert reason.endswith(f"because labels differ by their side: {end}")


def test_a_label_of_one_side_alone_is_pointed_out() -> None:
    """With a look-alike on the other side that is no label, a mirrored image would be wrong."""
    mirroring = chosen(dataset((0, 0, 0), jitter=5), Labels.from_dataset_json({"left kidney": 1, "spleen": 2}))
    assert mirroring.axes == (0, 1, 2)
    assert "left-right axis is mirrored, although left kidney is named by its side" in mirroring.reasons[-1]
    assert chosen(dataset((0, 0, 0), jitter=5), KIDNEYS).axes == (0, 1)
    heart = Labels.from_dataset_json({"left ventricle": 1, "myocardium": 2})
    assert not any("named by its side" in reason for reason in chosen(dataset((0, 0, 0), jitter=5), heart).reasons)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left kidney", "right kidney", "spleen"], [("left kidney", "right kidney")]),
        (["Kidney_L", "Kidney_R"], [("Kidney_L", "Kidney_R")]),
        (["LeftLung", "RightLung"], [("LeftLung", "RightLung")]),
        (["rein gauche", "rein droit"], [("rein gauche", "rein droit")]),
        (["Niere links", "Niere rechts"], [("Niere links", "Niere rechts")]),
        (["riñón izquierdo", "riñón derecho"], [("riñón izquierdo", "riñón derecho")]),
        (["Linke Niere", "Rechte Niere"], [("Linke Niere", "Rechte Niere")]),
        (["rene_sx", "rene_dx"], [("rene_sx", "rene_dx")]),
        (["polmone sinistro", "polmone destro"], [("polmone sinistro", "polmone destro")]),
        (["rein G", "rein D"], [("rein G", "rein D")]),
        (["rim esquerdo", "rim direito"], [("rim esquerdo", "rim direito")]),
        (["LKidney", "RKidney"], [("LKidney", "RKidney")]),
        (["lh", "rh"], [("lh", "rh")]),
        (["LV", "RV", "MYO"], []),
        (["d", "e", "f", "g"], []),
        (["zone d", "zone e", "zone f", "zone g"], []),
        (["left ventricle", "myocardium", "right atrium"], []),
        (["liver", "lesion"], []),
        (["anterior", "posterior"], []),
    ],
)
def test_pairs_are_found_by_name(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert side_pairs(names) == pairs
