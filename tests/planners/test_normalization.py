from collections.abc import Callable
from typing import Any

from planners.normalization import choose_normalization, normalization_note


def test_channel_names_choose_the_normalisation(described: Callable[..., Any]) -> None:
    chosen = choose_normalization(*described((1, 1, 1), (40, 60, 50), channels=("CT", "T1", "noNorm")))
    assert [channel.scheme for channel in chosen] == ["ct", "zscore", "nonorm"]
    assert "nonorm" in normalization_note(chosen)


def test_z_scores_and_ct_suit_pretrained_weights(described: Callable[..., Any]) -> None:
    chosen = choose_normalization(*described((1, 1, 1), (40, 60, 50), channels=("CT", "T1")))
    assert normalization_note(chosen).endswith("as pretrained weights expect.")


def test_the_mask_is_used_where_cropping_removes_much(described: Callable[..., Any]) -> None:
    dataset, fingerprint = described((1, 1, 1), (40, 60, 50), channels=("CT", "T1"))
    assert not any(channel.inside_mask for channel in choose_normalization(dataset, fingerprint))
    cases = tuple(case.model_copy(update={"cropped_shape": (20, 30, 50)}) for case in fingerprint.cases)
    cropped = fingerprint.model_copy(update={"cases": cases})
    assert [channel.inside_mask for channel in choose_normalization(dataset, cropped)] == [False, True], "CT has none"
