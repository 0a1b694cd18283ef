"""Networks for other programs: one ONNX file per fold, kept only if it computes what PyTorch does."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from autocrossdim.models.model_file import ModelFile
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.networks.image_norm import use_image_statistics
from autocrossdim.records.plan import Configuration
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import written_whole

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
STACK_TRACE = "pkg.torch.onnx.stack_trace"  # of a node: the lines of source code that it comes from
TOLERANCE = 1e-3  # of the largest logit; sums in another order differ by about 1e-6


@dataclass(frozen=True)
class OnnxNetwork:
    """A written network.

    Attributes:
        path: Path of the file.
        difference: Largest absolute difference from PyTorch's logits, over random patches.
        largest: Largest absolute logit of PyTorch.
    """

    path: Path
    difference: float
    largest: float


def require_packages() -> None:
    """Raise a UserError unless everything is installed that writing and checking ONNX needs."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"--onnx: needs {', '.join(absent)}. Install with: pip install 'autocrossdim[onnx]'")


def write_networks(file: ModelFile, folder: Path) -> Iterator[OnnxNetwork]:
    """Write and check every network of a model file as `<configuration>_<fold>.onnx`, one at a time.

    A network takes patches `image` (batch, C, *patch), preprocessed, and gives `logits` (batch, K, *patch); the batch
    may be of any size, the patch is the plan's. For a cascade, `image` ends with one mask (0 or 1) per label of the
    segmentation by the previous stage.

    Raises:
        UserError: Packages are missing, the network cannot be expressed in ONNX, or its results differ from PyTorch's.
    """
    require_packages()
    for checkpoints in file.checkpoints(config=list(file.folds)):
        for _, checkpoint in checkpoints:
            configuration = file.plan.configurations[checkpoint.configuration]
            network = build_network(file.plan.network_plan(configuration), None)
            network.load_state_dict(checkpoint.network)
            if configuration.image_statistics:
                use_image_statistics(network, configuration.image_statistics)
            path = folder / f"{configuration.name}_fold_{checkpoint.fold}.onnx"
            yield _write(network.eval(), configuration, path)


def _write(network: SegmentationNetwork, configuration: Configuration, path: Path) -> OnnxNetwork:
    channels = network.plan.in_channels
    random = torch.Generator().manual_seed(0)
    # Exported with two patches, because torch takes a batch of one for a constant, and checked with one as well.
    patches = [torch.randn(batch, channels, *configuration.patch_size, generator=random) for batch in (2, 1)]
    with written_whole(path) as temporary:
        try:
            _export(network, patches[0], temporary)
        except Exception as error:  # the exporter raises its own, torch's and Python's errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path}: the network cannot be written as ONNX ({reason}).") from error
        difference, largest = _compare(network, temporary, patches)
        if not difference <= TOLERANCE * largest:
            raise UserError(
                f"{path}: not written, because it differs from PyTorch by {difference:.2g} where logits reach "
                f"{largest:.2g}. Try other versions of torch, onnxscript and onnxruntime."
            )
    return OnnxNetwork(path, difference, largest)


def _export(network: SegmentationNetwork, patches: torch.Tensor, path: Path) -> None:
    """Write a network, without the paths of this computer's source files, which can contain the name of its user."""
    program = torch.onnx.export(
        network,
        (patches,),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    functions = program.model.functions.values()
    for node in chain(program.model.graph.all_nodes(), *(function.all_nodes() for function in functions)):
        node.metadata_props.pop(STACK_TRACE, None)
    program.save(path, external_data=False)


@torch.inference_mode()
def _compare(network: SegmentationNetwork, path: Path, patches: list[torch.Tensor]) -> tuple[float, float]:
    """Largest absolute difference of the logits, and the largest absolute logit."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences, sizes = [], []
    for patch in patches:
        expected = network(patch).numpy()
        (found,) = session.run(["logits"], {"image": patch.numpy()})
        differences.append(float(np.abs(found - expected).max()))
        sizes.append(float(np.abs(expected).max()))
    return max(differences), max(sizes)
