"""Fingerprints of a model, its tokenizer and its chat template, stored with every vector."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer.algebra import ModelInfo
from steer.network._architecture.architecture import Architecture
from steer.network._architecture.probe import original
from steer.network._chat import as_chat, template_of
from steer.network._checkpoint import TOKENIZERS
from steer.network._text import unchanged

_CONFIG = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)
_SAMPLED = 256  # numbers of each weight
Marks = tuple[int, tuple[int, ...], str]
_PROBE = "The quick brown fox, 1234 jumps\nover Größe 猫.  End"


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def config_fingerprint(config: Any) -> str:
    """Return the SHA-256 of a text configuration's sizes; precision and kernels do not count."""
    values = {name: getattr(config, name, None) for name in _CONFIG}
    return _sha256({k: v if isinstance(v, int | str) else None for k, v in values.items()})


def _probed(tokenizer: Any) -> list[int]:
    with unchanged(tokenizer):
        return list(tokenizer(_PROBE, add_special_tokens=True)["input_ids"])


def tokenizer_marks(tokenizer: Any) -> Marks:
    """Return vocabulary size, probe tokens and template: a quick check for changes."""
    inner = as_chat(tokenizer).tokenizer
    return len(inner), tuple(_probed(inner)), template_of(tokenizer)


def text_marks(tokenizer: Any) -> tuple[str, str]:
    """Return the SHA-256 of a tokenizer and of its template with its arguments; empty for None."""
    if tokenizer is None:
        return "", ""
    chat = as_chat(tokenizer)
    vocabulary = sorted(chat.tokenizer.get_vocab().items())
    template, arguments = template_of(chat), dict(chat.arguments)
    return (
        _sha256([vocabulary, _probed(chat.tokenizer)]),
        _sha256([template, arguments] if arguments else template),
    )


def tokenizer_in(folder: Path) -> Any:
    """Return the tokenizer in a folder, or None if there is none."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def config_info(name: str, revision: str | None, config: Any, tokenizer: Any) -> ModelInfo:
    """Return the info of a model that is not loaded."""
    text = config.get_text_config()
    sizes = (text.num_hidden_layers, text.hidden_size)
    return ModelInfo(name, revision, *sizes, config_fingerprint(text), *text_marks(tokenizer))


def name_of(hf_model: Any) -> str:
    """Return the name or path that a model was loaded from, else the name of its class."""
    config = getattr(hf_model, "config", None)
    return str(getattr(config, "_name_or_path", "") or type(hf_model).__name__)


def model_info(hf_model: Any, tokenizer: Any, architecture: Architecture) -> ModelInfo:
    """Return the info of a loaded model."""
    hf_model = original(hf_model)
    config = hf_model.config
    return ModelInfo(
        name_of(hf_model),
        getattr(config, "_commit_hash", None),
        architecture.n_layers,
        architecture.d_model,
        config_fingerprint(config.get_text_config()),
        *text_marks(tokenizer),
    )


def weights_sample(hf_model: Any) -> str:
    """Return the SHA-256 of a sample of every weight.

    It distinguishes a trained, merged or quantised copy from its origin, and does not depend on the
    device as logits do. It may miss a change of a few values; of a weight that is not in memory,
    only the shape counts.
    """
    digest = hashlib.sha256()
    for name, value in original(hf_model).state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(sampled(value.detach()))
    return digest.hexdigest()


def sampled(value: Tensor) -> bytes:
    """Return the bytes of values evenly spread over a tensor, including its last one."""
    if value.is_meta or not value.numel():
        return b""
    steps = min(_SAMPLED, value.numel())
    flat = [(k + 1) * value.numel() // steps - 1 for k in range(steps)]
    places = torch.unravel_index(torch.tensor(flat, device=value.device), value.shape)
    return value[places].reshape(-1).cpu().view(torch.uint8).numpy().tobytes()
