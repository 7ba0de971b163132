"""Answers that grow while they are generated, for one prompt or a whole batch."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from steer.engine._base import in_place
from steer.engine._options import answer_of, end_tokens
from steer.errors import TextError
from steer.network import PromptLike
from steer.pairs._common_prefix import common_prefix_length

if TYPE_CHECKING:
    from steer.model._model import Model

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


@overload
def stream(
    lm: "Model",
    prompts: str,
    on_text: Callable[[str], object],
    *,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> str: ...
@overload
def stream(
    lm: "Model",
    prompts: Sequence[PromptLike],
    on_text: Callable[[list[str]], object],
    *,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> list[str]: ...
def stream(
    lm: "Model",
    prompts: str | Sequence[PromptLike],
    on_text: Callable[[Any], object],
    *,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> str | list[str]:
    """Generate as `lm.generate` does, in one batch, and report the answers as they grow.

    Args:
        lm: The model, steered or not.
        prompts: A prompt, or several, as `lm.generate` takes them.
        on_text: Called with the answers so far whenever one of them has grown: a string for a
            string, else a list. Each begins with its previous text, except for tokenizers that
            rewrite text they have already decoded. The last call gets the returned value.
        stop: Called after every token; True ends all answers there.
        **options: As for `lm.generate`, without `batch_size`.

    Returns:
        What `lm.generate` returns, up to where it was stopped.

    Raises:
        CapabilityError: The engine does not run the model in this process.
        TextError: See `lm.generate`, or an option that is streaming's own.
        ValueError: Beams were asked for, which have no answer before they end.
    """
    in_place(lm.engine, "streaming")
    if own := sorted({"batch_size", "streamer"} & options.keys()):
        raise TextError(
            "streaming runs one batch with a streamer of its own",
            found=", ".join(own),
            expected="the other options of generate",
            do="leave it out; on_text gets every row",
        )
    one = isinstance(prompts, str)
    shown: list[str] = []

    def tell(texts: list[str]) -> None:
        if texts != shown:
            shown[:] = texts
            on_text(texts[0] if one else list(texts))

    ends = end_tokens(options, lm.hf_model.generation_config)
    if stop is not None:

        def stopped(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            return torch.full(ids.shape[:1], bool(stop()), device=ids.device)

        options["stopping_criteria"] = [*(options.get("stopping_criteria") or ()), stopped]
    options["streamer"] = _Streamer(lm.tokenizer, ends, tell)
    answers: Any = lm.generate(prompts, batch_size=None, **options)
    tell([answers] if one else answers)
    return answers  # type: ignore[no-any-return]


class _Streamer:
    """Decodes every row of a batch while it grows; `generate` hands it the tokens.

    A row shows what two consecutive decodings agree on, so that neither half a character appears
    nor a space that the next token removes.
    """

    def __init__(
        self, tokenizer: Any, ends: Sequence[int], tell: Callable[[list[str]], object]
    ) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._tell = tell
        self._rows: list[_Row] | None = None

    def put(self, tokens: Tensor) -> None:
        """Take the prompts `[batch pos]`, then new tokens `[batch]` or `[batch pos]`."""
        if self._rows is None:
            self._rows = []
            return
        new = tokens.reshape(len(tokens), -1) if tokens.ndim > 1 else tokens[:, None]
        if not self._rows:
            self._rows = [_Row() for _ in new]
        for row, ids in zip(self._rows, new.tolist(), strict=True):
            row.take(ids, self._ends, self._tokenizer)
        if any(row.shown for row in self._rows):
            self._tell([row.shown for row in self._rows])

    def end(self) -> None:
        """Do nothing: the caller of `generate` reports the whole answers."""


class _Row:
    """One answer: its tokens, their text, and the part of it that may be shown."""

    def __init__(self) -> None:
        self.shown = ""
        self._ids: list[int] = []
        self._text = ""

    def take(self, ids: Sequence[int], ends: Sequence[int], tokenizer: Any) -> None:
        """Add tokens; those after the first that ends the answer have no text."""
        self._ids += ids
        text = tokenizer.decode(answer_of(self._ids, ends), skip_special_tokens=True)
        agreed = text[: common_prefix_length(self._text, text)].rstrip(_UNFINISHED)
        self.shown, self._text = max(self.shown, agreed, key=len), text
