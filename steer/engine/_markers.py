"""Where a text ends among the tokens of a model: the border of `after:` and `before:`."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from steer.algebra import Composition
from steer.algebra._scope import NEVER
from steer.engine._call import Call
from steer.errors import CompositionError, ScopeError
from steer.network import as_chat, encode_prompt
from steer.network._text import unchanged
from steer.pairs._common_prefix import common_prefix_length


class Marker:
    """Finds a text among token ids, however the tokenizer splits it."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        chat = as_chat(tokenizer)
        tokenizer = chat.tokenizer
        self.tokenizer, self.text = tokenizer, text
        self._reach = len(text.encode())  # a token writes at least one byte
        with unchanged(tokenizer):
            own = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if text not in self._decoded(own):
            raise CompositionError(
                "the tokenizer cannot write this marker",
                found=f"{text!r}, which it writes {self._decoded(own)!r}",
                expected="a text that comes back from its tokens",
                do="name the marker as the model writes it",
            )
        added = getattr(tokenizer, "added_tokens_decoder", {})
        begins = {k for k in encode_prompt(chat, "a") if k in added}  # the template's own
        begins = {k for k in begins if self._decoded([k]).strip()}
        self._turns = (begins | set(tokenizer.all_special_ids)) - set(own)

    def end(
        self, ids: Sequence[int], prompt_length: int, known: "tuple[Sequence[int], int] | None"
    ) -> int:
        """Return the position of the token with which the marker first ends, or `NEVER`.

        Only the prompt's last turn and the response are searched.
        """
        if len(ids) < prompt_length:
            return NEVER  # there is no response yet, and the last turn may be still to come
        if known is not None:
            before, found = known
            alike = len(before)
            if ids[:alike] != before:
                alike = common_prefix_length(ids, before)
            if alike >= prompt_length:
                return found if found < alike else self._first(ids, alike)
        turns = (k + 1 for k in reversed(range(prompt_length)) if ids[k] in self._turns)
        return self._first(ids, next(turns, 0))

    def _first(self, ids: Sequence[int], start: int) -> int:
        """Return the first position from `start` on at which an occurrence ends."""
        begin = max(0, start - self._reach)
        seen = self._count(ids[begin:start])
        if self._count(ids[begin:]) == seen:
            return NEVER
        ends = range(start, len(ids))
        return start + bisect_left(
            ends, True, key=lambda at: self._count(ids[begin : at + 1]) > seen
        )

    def _count(self, ids: Sequence[int]) -> int:
        return self._decoded(ids).count(self.text)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def markers_of(composition: Composition, tokenizer: Any) -> dict[str, Marker]:
    """Return the markers of a composition's scopes, by their text."""
    scopes = [part.scope for part in composition.parts.values() if part.scope.marker is not None]
    if scopes and tokenizer is None:
        raise CompositionError(
            f"the scope {str(scopes[0])!r} needs a tokenizer",
            found="a model without a tokenizer",
            expected="the model's tokenizer",
            do="pass it: steer.Model(hf_model, tokenizer)",
        )
    texts = dict.fromkeys(scope.marker for scope in scopes if scope.marker is not None)
    return {text: Marker(tokenizer, text) for text in texts}


def ends_in(
    markers: Mapping[str, Marker], rows: Iterable[Sequence[int]], lengths: Iterable[int]
) -> dict[str, Int[Tensor, " batch"]]:
    """Return where each marker ends in whole texts."""
    texts = list(zip(rows, lengths, strict=True))
    return {
        text: torch.tensor([marker.end(ids, n, None) for ids, n in texts])
        for text, marker in markers.items()
    }


def ends_of(
    markers: Mapping[str, Marker], call: Call, given: Mapping[str, object]
) -> dict[str, Int[Tensor, " batch"]]:
    """Return where each marker ends in the rows of a forward, as far as they go."""
    if not markers:
        return {}
    rows, lengths = _texts(call, given), call.prompt_lengths().tolist()
    if call.prompts is None:
        return ends_in(markers, rows, lengths)
    found = {}
    for text, marker in markers.items():
        known = call.prompts.found.get(text, ())
        ends = [
            marker.end(ids, n, known[k] if len(known) == len(rows) else None)
            for k, (ids, n) in enumerate(zip(rows, lengths, strict=True))
        ]
        if call.past + call.length >= call.prompts.width:  # the prompts are complete
            call.prompts.found[text] = tuple(zip(rows, ends, strict=True))
        found[text] = torch.tensor(ends)
    return found


def _texts(call: Call, given: Mapping[str, object]) -> list[list[int]]:
    """Return the ids of each row from its beginning to the end of a forward, without padding."""
    stop, tokens, ids = call.past + call.length, given.get("input_ids"), None
    if call.reason is None and call.prompts is not None:
        ids = call.prompts.text(stop, call.expand)
    elif call.reason is None and not call.past and isinstance(tokens, Tensor):
        ids = tokens
    if ids is None:
        raise ScopeError(
            "a scope with a marker needs the tokens of each row from its beginning",
            found=call.reason or f"{call.length} tokens after {call.past} that are not known",
            expected="token ids of the whole text, or those of the prompts in generate()",
            do="pass input_ids without past_key_values, or use generate() with all of the prompt",
        )
    if (mask := call.tokens()) is None:
        return [row.tolist() for row in ids]
    return [row[m[:stop]].tolist() for row, m in zip(ids.cpu(), mask.cpu(), strict=True)]
