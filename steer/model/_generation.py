"""Generating answers to prompts, in batches whose rows do not change each other."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steer.engine import Engine
from steer.engine._options import known_options, new_tokens, setting
from steer.errors import CapabilityError, TextError
from steer.model._batch import check_lengths, in_order, prompt_batch
from steer.network import Continuation, PromptLike
from steer.network._text import stopped

if TYPE_CHECKING:
    from steer.model._model import Model


def answers(
    lm: "Model", prompts: Sequence[PromptLike], size: int | None, options: dict[str, Any]
) -> list[Continuation]:
    """Return the answers to prompts, `size` of them at once, with the options of `generate`."""
    if options.get("generation_config") is None:
        if options.get("max_length") is None:
            options.setdefault("max_new_tokens", 64)
        options.setdefault("do_sample", False)
    batch = prompt_batch(lm.chat, prompts)
    default = getattr(lm.hf_model, "generation_config", None)
    if (stops := setting(options, default, "stop_strings")) is not None:
        _check_stops(options.setdefault("tokenizer", lm.tokenizer), stops)
    new = new_tokens(options, default, max(map(len, batch.ids)))
    check_lengths(lm.architecture, batch, prompts, new, stacklevel=4)
    size = _rows_at_once(lm.engine, len(batch.ids), size, options)
    parts = [batch] if size >= len(batch.ids) else list(batch.parts(size))
    with known_options(options):
        rows = in_order([(part, lm.engine.generate(part, **options)) for part in parts])
    if stops is not None:
        rows = [stopped(lm.tokenizer, row, stops) for row in rows]
    texts = (lm.tokenizer.decode(row, skip_special_tokens=True) for row in rows)
    return [Continuation(text) for text in texts]


def _check_stops(tokenizer: Any, stops: Any) -> None:
    """Refuse stop strings that transformers cannot look for in the tokens of this tokenizer."""
    from transformers import StopStringCriteria

    try:
        StopStringCriteria(tokenizer, stops)  # which transformers makes again, from its cache
    except (ValueError, TypeError, AttributeError) as error:
        raise TextError(
            "generation cannot stop at these strings",
            found=f"stop_strings={stops!r}, {type(tokenizer).__name__}: {error}"[:300],
            expected="one string or several, and a tokenizer of subwords, not of whole words",
            do='end at a token: eos_token_id=tokenizer("…", add_special_tokens=False)["input_ids"]',
        ) from error


def _rows_at_once(
    engine: Engine, prompts: int, size: int | None, options: Mapping[str, Any]
) -> int:
    """Return how many prompts run in one batch: one where a batch would change its rows."""
    size = min(size or prompts, prompts)
    default = getattr(engine.architecture.model, "generation_config", None)
    copies = [setting(options, default, n) or 1 for n in ("num_beams", "num_return_sequences")]
    if max(size, *copies) == 1 or not engine.one_by_one(**options):
        return size
    if prompts > 1 and options.get("streamer") is not None:
        raise CapabilityError(
            "several answers of this model cannot be streamed at once",
            found=f"{prompts} prompts, which it must generate one by one",
            expected="one prompt",
            do="stream one prompt after the other",
        )
    return 1


def check_one_answer(options: Mapping[str, Any], default: Any) -> None:
    """Refuse options that ask for several answers, which one string cannot hold."""
    answers = setting(options, default, "num_return_sequences")
    if answers not in (None, 1):
        raise TextError(
            "one string cannot hold several answers",
            found=f"num_return_sequences={answers} for a single text",
            expected="a list of prompts",
            do="pass [prompt]; the answers come as a list",
        )
