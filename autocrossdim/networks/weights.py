"""2D weights for an encoder, from timm's hub or a file. If requested weights are unavailable, that is an error."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor

from autocrossdim.networks.architecture import arch_of, architecture, check_tag, tags_of
from autocrossdim.records.network import NO_ENCODER
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed

_WORDS = {
    # Trained on ImageNet-1k from the start: neither fine-tuned from other data, nor AdvProp's or noisy students.
    "imagenet": re.compile(r"^(?!ap_|ns_|.*_ft_).*in1k$"),
    "noisy_student": re.compile(r"^ns_"),
}
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_HUB_FILE = "model.safetensors"
_HUB_SECONDS = 5.0


@dataclass(frozen=True)
class EncoderWeights:
    """2D weights of one timm architecture, checked against it, with what is known of their origin.

    Attributes:
        encoder: timm's name of the architecture.
        state_dict: Tensors by timm's names, for three input channels; the classifier may be missing.
        source: File or repository on the hub.
        tag: timm's tag; None if it is unknown.
        licence: Licence that timm states; None if it is unknown.
        sha256: SHA-256 of the file.
        mean: Mean per channel of the RGB images in [0, 1] that the weights were trained on.
        std: Standard deviation per channel of these images.
    """

    encoder: str
    state_dict: dict[str, Tensor] = field(repr=False)
    source: str
    tag: str | None
    licence: str | None
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        origin = [f"tag {self.tag}" if self.tag else "", self.licence or "licence not known", self.sha256[:12]]
        return f"{self.source} ({', '.join(filter(None, origin))})"

    def provenance(self) -> dict[str, Any]:
        """Return everything but the tensors, as JSON-able values for the checkpoint."""
        return {
            "encoder": self.encoder,
            "source": self.source,
            "tag": self.tag,
            "licence": self.licence,
            "sha256": self.sha256,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def resolve_weights(request: str, encoder: str) -> EncoderWeights | None:
    """Return the requested weights, checked against the encoder; None only if `random` was requested.

    Args:
        request: `imagenet` or `noisy_student` for the encoder's own tag of that training, a full timm name of the same
            architecture (`efficientnet_b0.ra_in1k`), a file (`.safetensors`, or `.pth` and the like, read with
            `weights_only=True`) in timm's naming, or `random`.
        encoder: timm's name of the encoder, with or without a tag.

    Raises:
        UserError: There are no such weights, they cannot be fetched or read, or do not fit the encoder.
    """
    if encoder == NO_ENCODER:
        if request != "random":
            raise UserError(
                f"--weights {request}: a plain U-Net has no pretrained encoder and starts from random weights. Leave "
                "out --weights, or choose another configuration with --config."
            )
        return None
    check_tag(encoder)
    if request == "random":
        return None
    arch = arch_of(encoder)
    architecture(arch)  # an encoder that timm does not have is named first
    if request.endswith(_ENDINGS) or Path(request).is_file() or Path(request).name != request:
        config = get_pretrained_cfg(arch, allow_unregistered=False)
        return _read(Path(request), Path(request).name, arch, None, None, config)
    tag = _tag(request, encoder)
    config = get_pretrained_cfg(f"{arch}.{tag}", allow_unregistered=False)
    return _read(_fetch(f"timm/{arch}.{tag}"), f"timm/{arch}.{tag}", arch, tag, config.license, config)


def tags(word: str, encoder: str) -> list[str]:
    """Return the tags of an encoder's weights that `imagenet` or `noisy_student` stands for, in timm's order."""
    return [tag for tag in tags_of(arch_of(encoder)) if _WORDS[word].match(tag)]


def _tag(request: str, encoder: str) -> str:
    arch, _, own = encoder.partition(".")
    known = tags_of(arch)
    if request in _WORDS:
        fitting = tags(request, encoder)
        if not fitting:
            raise UserError(
                f"--weights {request}: {arch} has no such tag, only {', '.join(known) or 'none'}. {_WAYS_OUT}"
            )
        return own if own in fitting else fitting[0]
    other, _, tag = request.partition(".")
    if not tag:
        raise UserError(
            f"--weights {request}: neither a file nor imagenet, noisy_student, random or a full timm name. {_WAYS_OUT}"
        )
    if other != arch:
        raise UserError(f"--weights {request}: weights of {other}, but the encoder is {arch}. {_WAYS_OUT}")
    if tag not in known:
        raise UserError(
            f"--weights {request}: timm has no such tag; {arch} has {', '.join(known) or 'none'}. {_WAYS_OUT}"
        )
    return tag


_WAYS_OUT = "Use --weights FILE for a downloaded file, or --weights random to start from random weights."


def _fetch(repository: str) -> Path:
    cached = try_to_load_from_cache(repository, _HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Asked first with a time limit, because the download retries for half a minute before it gives up.
        get_session().head(hf_hub_url(repository, _HUB_FILE), timeout=_HUB_SECONDS)
        return Path(hf_hub_download(repository, _HUB_FILE))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{repository}: cannot be downloaded from the hub ({reason}). {_WAYS_OUT}") from error


def _read(path: Path, source: str, arch: str, tag: str | None, licence: str | None, config: Any) -> EncoderWeights:
    if not path.is_file():
        raise UserError(f"--weights {path}: no such file. {_WAYS_OUT}")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except Exception as error:  # damaged files end in errors of every kind
        # torch's own message would advise to load it unsafely.
        raise UserError(
            f"--weights {path}: not a readable .safetensors file or .pth of plain tensors ({type(error).__name__}). "
            f"{_WAYS_OUT}"
        ) from error
    for wrapping in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"--weights {path}: not a state_dict; it must contain tensors with timm's names. {_WAYS_OUT}")
    _check(content, arch, str(path))
    return EncoderWeights(arch, content, source, tag, licence, sha256, tuple(config.mean), tuple(config.std))


def _check(state: dict[str, Tensor], arch: str, path: str) -> None:
    expected = architecture(arch)
    missing = [k for k in expected.keys if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in expected.keys and k not in expected.tail]
    shapes = [
        f"{k} ({'x'.join(map(str, state[k].shape))}, not {'x'.join(map(str, shape))})"
        for k, shape in expected.keys.items()
        if k in state and state[k].shape != shape
    ]
    faults = [
        f"{what} {listed(keys, 3)}"
        for what, keys in (("lacks", missing), ("has unknown", extra), ("has other shapes:", shapes))
        if keys
    ]
    if faults:
        raise UserError(
            f"--weights {path}: not weights of {arch} in timm's naming; it {', it '.join(faults)}. {_WAYS_OUT}"
        )
