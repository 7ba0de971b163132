"""What identifies a model and its tokenizer, so that a vector can refuse the wrong one."""

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
    """Return the SHA-256 of what in a text configuration decides whether a vector fits.

    Precision, attention kernel, vocabulary padding and library version are left out: a vector
    fits a bfloat16 or fine-tuned copy as well.
    """
    values = {name: getattr(config, name, None) for name in _CONFIG}
    return _sha256({k: v if isinstance(v, int | str) else None for k, v in values.items()})


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return the SHA-256 of the vocabulary and of how a probe text is cut into tokens."""
    return _sha256([sorted(tokenizer.get_vocab().items()), _probed(tokenizer)])


def _probed(tokenizer: Any) -> list[int]:
    with unchanged(tokenizer):
        return list(tokenizer(_PROBE, add_special_tokens=True)["input_ids"])


def tokenizer_marks(tokenizer: Any) -> Marks:
    """Return what tells quickly whether a tokenizer or its chat template was changed."""
    inner = as_chat(tokenizer).tokenizer
    return len(inner), tuple(_probed(inner)), template_of(tokenizer)


def template_fingerprint(tokenizer: Any) -> str:
    """Return the SHA-256 of the chat template, or of the plain format where there is none.

    Arguments that every rendering passes to the template are part of it.
    """
    template, arguments = template_of(tokenizer), dict(as_chat(tokenizer).arguments)
    return _sha256([template, arguments] if arguments else template)


def text_marks(tokenizer: Any) -> tuple[str, str]:
    """Return the fingerprints of a tokenizer and its chat template, empty for None."""
    if tokenizer is None:
        return "", ""
    inner = as_chat(tokenizer).tokenizer
    return tokenizer_fingerprint(inner), template_fingerprint(tokenizer)


def tokenizer_in(folder: Path) -> Any:
    """Return the tokenizer in a folder, or None if there is none."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def config_info(name: str, revision: str | None, config: Any, tokenizer: Any) -> ModelInfo:
    """Return what identifies a model that is not loaded."""
    text = config.get_text_config()
    sizes = (text.num_hidden_layers, text.hidden_size)
    return ModelInfo(name, revision, *sizes, config_fingerprint(text), *text_marks(tokenizer))


def model_info(hf_model: Any, tokenizer: Any, architecture: Architecture) -> ModelInfo:
    """Return what identifies a model with its tokenizer."""
    hf_model = original(hf_model)
    config = hf_model.config
    tokenizer_mark, template_mark = text_marks(tokenizer)
    return ModelInfo(
        model_id=str(getattr(config, "_name_or_path", "") or type(hf_model).__name__),
        revision=getattr(config, "_commit_hash", None),
        n_layers=architecture.n_layers,
        d_model=architecture.d_model,
        config=config_fingerprint(config.get_text_config()),
        tokenizer=tokenizer_mark,
        template=template_mark,
    )


def weights_sample(hf_model: Any) -> str:
    """Return the SHA-256 of some numbers of every weight, bit for bit.

    It tells a trained, merged or quantised copy from its origin and costs next to nothing; logits
    would not do, since they differ in their last bits from device to device. A change of a few
    single numbers may be missed. Of a weight that is not in memory only the shape is known.
    """
    digest = hashlib.sha256()
    for name, value in original(hf_model).state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(sampled(value.detach()))
    return digest.hexdigest()


def sampled(value: Tensor) -> bytes:
    """Return the bytes of numbers that are evenly spread over a tensor, its last among them."""
    if value.is_meta or not value.numel():
        return b""
    steps = min(_SAMPLED, value.numel())
    flat = [(k + 1) * value.numel() // steps - 1 for k in range(steps)]
    places = torch.unravel_index(torch.tensor(flat, device=value.device), value.shape)
    return value[places].reshape(-1).cpu().view(torch.uint8).numpy().tobytes()
