from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from autocrossdim.inference import residence
from autocrossdim.inference.body import find_body
from autocrossdim.inference.model import Model, strips_for
from autocrossdim.inference.predictor import Predictor
from autocrossdim.preprocessing.case import preprocess
from autocrossdim.records.labels import Labels
from autocrossdim.records.normalization import Normalization

REGIONS = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
MASKED = (Normalization(scheme="zscore", inside_mask=True),)


class Blur(nn.Module):
    """Predicts from the surroundings of a voxel, and prefers the second label where they are 0."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = (nn.Conv3d if dims == 3 else nn.Conv2d)(1, 2, 5, padding=2)
        with torch.no_grad():
            self.conv.bias.copy_(torch.tensor([0.0, 0.1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def ball(shape: tuple[int, int, int], transpose: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Noise in a corner and in the middle, zeros elsewhere, so that the box is nearly the whole image."""
    image = np.zeros((1, *shape), np.float32)
    random = np.random.default_rng(0)
    image[:, :3, :3, :3] = random.normal(2, 1, (3, 3, 3))
    image[:, -5:, -5:, -5:] = random.normal(2, 1, (5, 5, 5))
    return image


def test_zeros_are_background_only_if_the_plan_normalises_within_a_mask(make_plan: Callable[..., Any]) -> None:
    image = ball((12, 12, 12))
    for normalization, expected in ((MASKED, True), ((Normalization(scheme="zscore"),), False)):
        plan = make_plan(normalization=normalization)
        case = preprocess(image, (1.0, 1.0, 1.0), plan, plan.configuration())
        assert (find_body(image, case.placement, plan) is not None) == expected


def test_outside_the_body_is_certainly_background_for_labels_and_regions(make_plan: Callable[..., Any]) -> None:
    image = ball((12, 12, 12))
    for labels in (REGIONS, Labels.from_dataset_json({"background": 0, "a": 1, "b": 2})):
        plan = make_plan(normalization=MASKED, labels=labels)
        case = preprocess(image, (1.0, 1.0, 1.0), plan, plan.configuration())
        body = find_body(image, case.placement, plan)
        assert body is not None
        outside = body.outside.sigmoid() if labels.has_regions else body.outside.softmax(dim=0)
        expected = [0, 0] if labels.has_regions else [1, 0, 0]
        np.testing.assert_allclose(outside, expected, atol=1e-12)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spacing=st.tuples(*[st.floats(0.4, 2.5)] * 3),
    transpose=st.sampled_from([(0, 1, 2), (2, 0, 1), (1, 2, 0)]),
    dims=st.sampled_from([2, 3]),
    seed=st.integers(0, 100),
)
def test_skipping_tiles_does_not_change_the_segmentation_of_the_body(
    make_plan: Callable[..., Any], spacing: Any, transpose: Any, dims: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    image = ball(tuple(random.integers(14, 24, 3)))
    plan = make_plan(
        dims, (1.0, 1.0, 1.0), transpose=transpose, normalization=MASKED, patch_size=(6, 6, 6)[-dims:], batch_size=4
    )
    predictor = Predictor([Model(plan, plan.configuration(), [Blur(dims).eval()])], mirroring=False)
    prepared = predictor.prepare(image, spacing=spacing)
    assert prepared.inputs[0].body is not None
    found = predictor.segment(prepared, probabilities=True)
    prepared.inputs[0].body = None
    expected = predictor.segment(prepared, probabilities=True)
    imaged = image[0] != 0
    assert found.probabilities is not None
    assert expected.probabilities is not None
    np.testing.assert_array_equal(found.probabilities[:, imaged], expected.probabilities[:, imaged])
    np.testing.assert_array_equal(found.label[imaged], expected.label[imaged])
    assert found.label[~imaged].sum() <= expected.label[~imaged].sum(), "outside, the network itself prefers the label"


@pytest.mark.parametrize("uncertainty", [False, True])
def test_processing_in_strips_gives_the_same_result(
    make_plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, uncertainty: bool
) -> None:
    image = np.random.default_rng(1).normal(size=(1, 11, 17, 13)).astype(np.float32)
    models = []
    for dims, spacing in ((3, (1.3, 0.8, 1.1)), (2, (1.0, 1.4, 0.7))):
        plan = make_plan(dims, spacing, patch_size=(6, 6, 6)[-dims:])
        models.append(Model(plan, plan.configuration(), [Blur(dims).eval(), Blur(dims).eval()]))
    predictor = Predictor(models, mirroring=False)
    whole = predictor(image, spacing=(1.0, 1.0, 1.0), probabilities=True, uncertainty=uncertainty)
    monkeypatch.setattr(residence, "HELD_BYTES", 4 * 2 * 6 * 15 * 10)
    placements = [case.placement for case in predictor.prepare(image, spacing=(1.0, 1.0, 1.0)).inputs]
    of_one = strips_for(predictor.models[:1], placements[:1], mirroring=False)
    of_both = strips_for(predictor.models, placements, mirroring=False)
    assert 1 < of_one < of_both, "the logits of both models are held at the same time"
    assert strips_for(predictor.models, placements, mirroring=False, by_fold=True) > of_both
    strips = predictor(image, spacing=(1.0, 1.0, 1.0), probabilities=True, uncertainty=uncertainty)
    np.testing.assert_array_equal(strips.label, whole.label)
    assert strips.probabilities is not None
    assert whole.probabilities is not None
    np.testing.assert_allclose(strips.probabilities, whole.probabilities, atol=1e-3)
    if uncertainty:
        np.testing.assert_allclose(strips.uncertainty.entropy, whole.uncertainty.entropy, atol=1e-5)
