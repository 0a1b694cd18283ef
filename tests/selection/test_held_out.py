import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.special import entr, expit

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.data.images import read_label
from autocrossdim.data.splits import Split
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.labels import Labels
from autocrossdim.selection import held_out
from autocrossdim.selection.calibration import VOXELS_PER_CASE, Evidence, confidence_at
from autocrossdim.selection.held_out import EvidenceCollector, evidence_file, uncertainty_file
from tests.selection.conftest import LABELS, RIGHT, Trained
from trainers.validation import validate


def test_validation_writes_the_evidence_for_calibration(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    evidence = Evidence.read(evidence_file(trained.space.fold("dx", 0), "a"))
    truth, _ = read_label(trained.raw / "labelsTr" / "a.nii.gz")
    np.testing.assert_allclose(evidence.probabilities.sum(axis=1), 1, rtol=1e-5)
    # Voxels in and near the block, each at most once; the network is almost always right.
    assert truth.sum() < len(evidence.target) <= min(truth.size, VOXELS_PER_CASE)
    assert evidence.target.sum() == truth.sum()
    assert (evidence.probabilities.argmax(axis=1) == evidence.target).mean() > 0.99


def test_validation_writes_a_map_of_where_the_network_was_undecided(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    folder = trained.space.fold("dx", 0)
    segmentation = folder.validation / "a.nii.gz"
    entropy, geometry = read_label(uncertainty_file(segmentation))
    assert geometry == read_label(segmentation)[1]
    image = sitk.GetArrayFromImage(sitk.ReadImage(trained.raw / "imagesTr" / "a_0000.nii.gz"))
    inside = expit((image - RIGHT) / 2)  # the probability of the block
    expected = 100 * (entr(inside) + entr(1 - inside)) / np.log(2)
    assert entropy.max() > 1
    np.testing.assert_allclose(entropy, expected, atol=0.6)
    store, others = Store(trained.space.preprocessed("dx")), trained.splits[0].val[1:]
    split, dx = Split(train=trained.splits[0].train, val=others), trained.plan.configuration("dx")
    validate(FoldTask(trained.plan, dx, store, {}, 0, split, folder, device="cpu"))
    assert not uncertainty_file(segmentation).exists(), "the case left the fold"


def test_the_number_of_voxels_is_bounded_and_each_is_equally_likely_to_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_out, "VOXELS_PER_CASE", 20)
    counts = np.zeros(4)
    for seed in range(200):
        collector = EvidenceCollector(LABELS)
        collector._random = np.random.default_rng(seed)
        for z in range(4):
            values = torch.full((2, 5, 5), 0.5)
            values[1] = 0.6
            collector.add(values, np.full((5, 5), z % 2))
            collector._truth[collector._truth < 10] += 10 * (z + 1)  # remember the slice
        assert len(collector._truth) == 20
        counts += np.bincount(collector._truth // 10, minlength=5)[1:]
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.03)


def test_evidence_leaves_out_ignored_voxels_and_treats_regions_as_binary() -> None:
    ignoring = Labels.from_dataset_json({"background": 0, "block": 1, "ignore": 2})
    collector = EvidenceCollector(ignoring)
    collector.add(torch.tensor([[[0.2, 0.3]], [[0.8, 0.7]]]), np.array([[1, 2]]))
    assert collector.result().target.tolist() == [1]
    regions = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    collector = EvidenceCollector(regions)
    collector.add(torch.tensor([[[0.9]], [[0.4]]]), np.array([[1]]))
    found = collector.result()
    np.testing.assert_allclose(found.probabilities, [[0.1, 0.9], [0.6, 0.4]], rtol=1e-6)
    assert found.target.tolist() == [1, 0]


def test_evidence_says_nothing_about_labels_that_were_not_annotated() -> None:
    three = Labels(foreground={"first": (1,), "second": (2,)})
    values = torch.tensor([[[0.2, 0.1]], [[0.1, 0.8]], [[0.7, 0.1]]])
    complete, partial = EvidenceCollector(three), EvidenceCollector(three, annotated=("first",))
    for collector in (complete, partial):
        collector.add(values, np.array([[0, 1]]))
    found = partial.result()
    order = np.argsort(found.target)
    np.testing.assert_allclose(found.probabilities[order], [[0.9, 0.1, 0], [0.2, 0.8, 0]], rtol=1e-6)
    assert found.target[order].tolist() == [0, 1]
    assert confidence_at(found, 1.0) == pytest.approx(2 * 0.8 / (0.9 + 1))
    assert confidence_at(complete.result(), 1.0) < confidence_at(found, 1.0)

    regions = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    collector = EvidenceCollector(regions, annotated=("whole",))
    collector.add(torch.tensor([[[0.9]], [[0.4]]]), np.array([[1]]))
    np.testing.assert_allclose(collector.result().probabilities, [[0.1, 0.9]], rtol=1e-6)
