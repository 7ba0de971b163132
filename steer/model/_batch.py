"""Texts as batches of token sequences, and the results of their parts in order."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from steer.engine import Batch
from steer.errors import TextError
from steer.network import Architecture, PromptLike, encode_exchange, encode_prompt
from steer.network._positions import position_limit, rotary

_T = TypeVar("_T")
_REDIRECTED: ContextVar[Callable[[str], object] | None] = ContextVar("warnings", default=None)


def prompt_batch(tokenizer: Any, prompts: Sequence[PromptLike]) -> Batch:
    """Return prompts as they are before an answer, through the chat template.

    Args:
        tokenizer: The model's tokenizer, or a `Chat` of it.
        prompts: Texts or sequences of messages.

    Returns:
        One row per prompt, without a response.

    Raises:
        TextError: One is no prompt, or cannot be rendered.
    """
    ids = tuple(encode_prompt(tokenizer, prompt) for prompt in prompts)
    return Batch(ids, tuple(map(len, ids)))


def exchange_batch(
    tokenizer: Any, prompts: Sequence[PromptLike], responses: Sequence[str]
) -> Batch:
    """Return prompts with given responses.

    Args:
        tokenizer: The model's tokenizer, or a `Chat` of it.
        prompts: One prompt per response.
        responses: The responses, as the assistant's turn.

    Returns:
        One row per response, the prompt's tokens first.

    Raises:
        TextError: The numbers differ, a response has no token, or one cannot be rendered.
    """
    if len(prompts) != len(responses):
        raise TextError(
            "prompts and responses differ in number",
            found=f"{len(prompts)} prompts, {len(responses)} responses",
            expected="one prompt per response",
            do="repeat a prompt for each of its responses",
        )
    encoded = [encode_exchange(tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)]
    return Batch(tuple(e.ids for e in encoded), tuple(e.response_start for e in encoded))


def check_lengths(
    architecture: Architecture,
    batch: Batch,
    prompts: Sequence[PromptLike],
    new: int = 0,
    *,
    stacklevel: int = 3,
) -> None:
    """Refuse texts that are too long for the model, or warn where it runs beyond its training."""
    limit = position_limit(architecture)
    lengths = [len(ids) for ids in batch.ids]
    longest = max(lengths, default=0)
    rotates = rotary(architecture)
    room = 0 if limit is None else limit if rotates else limit - max(new - 1, 0)
    if limit is None or longest <= room:
        return
    long = [k for k, length in enumerate(lengths) if length > room]
    first = f"the first: {lengths[long[0]]} tokens, prompt {str(prompts[long[0]])[:60]!r}"
    if rotates:
        said = (
            f"{len(long)} of {len(lengths)} texts are longer than the {limit} positions that the "
            f"model was trained for, and it reads them badly; {first}"
        )
        if (redirected := _REDIRECTED.get()) is None:
            warnings.warn(said, stacklevel=stacklevel)
        else:
            redirected(said)
        return
    fits = limit - longest + 1
    raise TextError(
        "a text is longer than the model's positions",
        found=f"{len(long)} of {len(lengths)} texts, {first}"
        + (f", and up to {new} new ones" if new else ""),
        expected=f"at most {limit} tokens, prompt and response together",
        do=f"pass max_new_tokens={fits} or less, or shorten the longest prompts"
        if new and fits > 0
        else "leave these pairs out, or shorten them",
    )


@contextmanager
def redirect_warnings(to: Callable[[str], object]) -> Iterator[None]:
    """Pass the warning of long texts to a function, in this thread.

    A console shows it beside the answer, where a warning of a worker thread would not be seen.
    """
    token = _REDIRECTED.set(to)
    try:
        yield
    finally:
        _REDIRECTED.reset(token)


def in_order(parts: Sequence[tuple[Batch, Sequence[_T]]]) -> list[_T]:
    """Return the results of parts of a batch in the order of the whole batch."""
    placed: dict[int, Sequence[_T]] = {}
    for batch, results in parts:
        rows = batch.rows or range(len(batch.ids))
        copies = len(results) // len(rows)
        for k, row in enumerate(rows):
            placed[row] = results[k * copies : (k + 1) * copies]
    return [result for row in sorted(placed) for result in placed[row]]
