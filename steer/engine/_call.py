"""One model call: its prompts, the positions of its tokens, and the tokens that a scope means.

A decoder block sees chunks of tokens. Only the top-level call knows whether they belong to a
prompt, their positions, and the prompt of each row; all of it is worked out here, once per call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steer.algebra import Composition, Scope
from steer.algebra._scope import token_positions
from steer.engine._runtime import this_thread
from steer.engine._steps import TokenMask
from steer.errors import CapabilityError, RowsError, ScopeError

# Arguments of a forward that hold earlier tokens.
_STATES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
_PROMPTS = ("inputs_embeds", "inputs", "input_ids")  # arguments of `generate`
_OUTPUTS = ("output_hidden_states", "output_attentions", "output_router_logits", "return_dict")
_NOT_AHEAD = (*_STATES, *_OUTPUTS, "cache_position", "labels", "logits_to_keep")


@dataclass(frozen=True, eq=False, slots=True)
class BatchSlice:
    """The subset of a larger batch that a call covers."""

    rows: tuple[int, ...]  # row of the larger call for each prompt of this one
    total: int  # number of prompts of the larger call


@dataclass(eq=False, slots=True)
class Prompts:
    """The prompts of one `generate` call, and the decisions about them."""

    mask: Bool[Tensor, "prompt pos"]  # True at the tokens of each prompt, False at padding
    batch_slice: BatchSlice | None = None  # the subset of a larger call, if they are one
    ids: Int[Tensor, "prompt pos"] | None = None  # if `generate` got the ids of all tokens
    # columns of the prompts that `generate` does not count: in a cache, or embeddings
    before: int = 0
    state: str | None = None  # a state that the caller handed to `generate`, in words
    gates: dict[object, Tensor] = field(default_factory=dict)  # `[batch domain]`, by steering
    # ids of each row from which `generate` prepared the next forward
    so_far: Int[Tensor, "batch pos"] | None = None
    upcoming: "Call | None" = None  # the next forward, if `generate` prepared it
    # for each marker, the ids of each row that were searched, and where it ends there
    found: dict[str, tuple[tuple[list[int], int], ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of prompts."""
        return self.mask.shape[0]

    @property
    def width(self) -> int:
        """Columns of the prompts, padding included."""
        return self.mask.shape[1]

    def columns(self) -> int | None:
        """Columns of the text from which the next forward was prepared; None if not known."""
        if self.so_far is None or (self.state is not None and self.before == 0):
            return None
        return self.before + self.so_far.shape[1]

    def text(self, stop: int, expand: int) -> Int[Tensor, "batch pos"] | None:
        """Return the ids of the first columns of each row; None if not all are known."""
        if self.ids is None:
            return None
        if stop <= self.width:
            return self.ids[:, :stop].repeat_interleave(expand, dim=0)
        known = self.so_far is not None and self.so_far.shape[1] >= stop
        return self.so_far[:, :stop] if self.so_far is not None and known else None

    def prepared(self, given: Mapping[str, object]) -> "Call | None":
        """Return the forward that `generate` prepared, if these are its arguments."""
        call, self.upcoming = self.upcoming, None
        ids = given.get("input_ids")
        if call is None or not isinstance(ids, Tensor) or ids.shape[:2] != (call.rows, call.length):
            return None
        return call

    def tokens(self, stop: int) -> Bool[Tensor, "prompt pos"]:
        """Return which of the first columns are tokens; those after the prompts all are."""
        new = self.mask.new_ones(self.count, max(stop - self.width, 0))
        return torch.cat([self.mask[:, :stop], new], dim=1)


@dataclass(eq=False, slots=True)
class Call:
    """One forward: `rows` of `length` tokens, beginning at column `past`."""

    rows: int
    length: int
    past: int  # columns already in the cache
    mask: Bool[Tensor, "batch pos"] | None = None  # non-padding columns up to `past + length`
    prompts: Prompts | None = None  # the surrounding `generate` call, if any
    lengths: Int[Tensor, " batch"] | None = None  # prompt tokens of the rows of a bare forward
    reason: str | None = None  # why positions are not known, if so
    batch_slice: BatchSlice | None = None  # the subset of a larger call, if it is one
    gates: dict[object, Tensor] = field(default_factory=dict)  # `[batch domain]`, by steering
    # for each marker of a scope, the position of its last token in each row
    ends: Mapping[str, Int[Tensor, " batch"]] = field(default_factory=dict)
    kept: slice | Tensor | None = None  # the columns that the unembedding gets, if not all
    waiting: tuple[object, ...] = ()  # steerings that do not act in this forward
    reader: object = None  # the one of them whose gate it evaluates
    thread: int | None = field(default_factory=this_thread)  # whose call it is
    # whether all that steering needs was computed before the forward, which may be compiled
    ready: bool = False
    _masks: dict[tuple[Scope, torch.device], TokenMask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prompts is not None:
            self.gates, self.batch_slice = self.prompts.gates, self.prompts.batch_slice
            if self.rows % self.prompts.count:
                raise RowsError(
                    "a forward inside generate() has rows of no prompt",
                    found=f"{self.rows} rows for {self.prompts.count} prompts",
                    expected="a multiple of the prompts (beams, sampled copies)",
                    do="generate with a method that keeps one group of rows per prompt",
                )

    def reading(self, reader: object, waiting: tuple[object, ...]) -> "Call":
        """Return the same forward as it runs ahead, to evaluate one gate."""
        call = replace(self, waiting=waiting, reader=reader)
        call.gates = dict(self.gates)
        return call

    def prompt_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a forward of the same tokens without the caller's cache."""
        kept = {k: v for k, v in given.items() if k not in _NOT_AHEAD and v is not None}
        if self.prompts is not None:  # a static cache comes with a mask of its own shape
            mask = self.prompts.mask[:, : self.length].repeat_interleave(self.expand, dim=0)
            kept["attention_mask"] = mask.long()
        return kept | {"use_cache": False}

    def row(self, row: int, columns: slice) -> "Call":
        """Return one row of this forward, at some of its columns, as a forward of its own."""
        start, stop, _ = columns.indices(self.length)
        of = self.batch_slice or BatchSlice(tuple(range(self.rows)), self.rows)
        return Call(
            1,
            stop - start,
            self.past + start,
            lengths=None if self.lengths is None else self.lengths[row : row + 1],
            batch_slice=BatchSlice((of.rows[row],), of.total),
            gates={key: weights[row : row + 1] for key, weights in self.gates.items()},
            ends={marker: ends[row : row + 1] for marker, ends in self.ends.items()},
        )

    @property
    def expand(self) -> int:
        """Rows per prompt: beams or sampled copies."""
        return self.rows // self.prompts.count if self.prompts is not None else 1

    @property
    def decoding(self) -> bool:
        """Whether every token of this forward was generated."""
        return self.prompts is not None and self.past >= self.prompts.width

    def token_mask(self, scope: Scope, device: torch.device) -> TokenMask:
        """Return the tokens of this forward that a scope means: None for all, False for none."""
        if scope.everything:
            return None
        key = (scope, device)
        if key not in self._masks:
            self._masks[key] = self._mask(scope, device)
        return self._masks[key]

    def _mask(self, scope: Scope, device: torch.device) -> TokenMask:
        whole = scope.marker is None and scope.start == 0 and scope.stop is None
        if self.decoding and whole:
            return None if scope.part == "response" else False
        lengths = self.prompt_lengths() if scope.needs_prompt_lengths else None
        positions = self._positions()
        ends = self.ends.get(scope.marker or "")
        if ends is not None:
            ends = ends.to(positions.device)
        return scope.mask(positions, lengths, ends)[:, :, None].to(device)

    def last_prompt_columns(self) -> Int[Tensor, " batch"]:
        """Return the column of each row's last prompt token in this forward."""
        lengths = self.prompt_lengths()
        positions = self._positions()
        if self.past or (self.prompts is not None and self.length < self.prompts.width):
            raise CapabilityError(
                "a gate needs the whole prompt in one forward",
                found=f"{self.length} tokens after {self.past} already in the cache",
                expected="an empty cache and no chunked prefill",
                do="leave out past_key_values and prefill_chunk_size, or take the gate away",
            )
        hit = positions == (lengths - 1)[:, None]
        if not bool(hit.any(dim=1).all()):
            raise ScopeError(
                "a prompt ends outside this forward",
                found=f"prompt lengths {lengths.tolist()}, {self.length} columns",
                expected="1 <= prompt length <= tokens of the row",
                do="count the tokens of each prompt without padding",
            )
        return hit.int().argmax(dim=1)

    def prompt_lengths(self) -> Int[Tensor, " batch"]:
        """Return the tokens of each row's prompt."""
        if self.prompts is not None:
            return self.prompts.mask.sum(dim=1).repeat_interleave(self.expand)
        if self.lengths is None:
            raise ScopeError(
                "this forward does not say where the prompts end",
                found="a bare forward without prompt_lengths",
                expected="prompt_lengths, one count of tokens per row",
                do="call model(input_ids, ..., prompt_lengths=[...]), use generate(), or scope all",
            )
        return self.lengths

    def _positions(self) -> Int[Tensor, "batch pos"]:
        if self.reason is not None:
            raise CapabilityError(
                "the positions of these tokens are not known",
                found=self.reason,
                expected="no mask or a two-dimensional one, and a cache that knows its length",
                do="pass a [batch, pos] attention mask, or use the scope 'all'",
            )
        mask = self.tokens()
        if mask is not None:
            return token_positions(mask)[:, self.past : self.past + self.length]
        device = None if self.lengths is None else self.lengths.device
        columns = torch.arange(self.past, self.past + self.length, device=device)
        return columns.expand(self.rows, -1)

    def tokens(self) -> Bool[Tensor, "batch pos"] | None:
        """Return which columns up to the end of this forward are tokens; None if all are."""
        if self.prompts is None:
            return self.mask
        return self.prompts.tokens(self.past + self.length).repeat_interleave(self.expand, dim=0)


def describe(kwargs: Mapping[str, object], prompts: Prompts | None, lengths: object) -> Call:
    """Return the call that a forward's arguments describe."""
    tokens = kwargs.get("input_ids")
    tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
    if not isinstance(tokens, Tensor):
        return Call(0, 0, 0, reason="a forward without input_ids or inputs_embeds")
    rows, length = tokens.shape[:2]
    mask = kwargs.get("attention_mask")
    known = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
    past, reason = _past(kwargs, prompts, length, known)
    if prompts is None and reason is None:
        reason = _unclear(mask, kwargs.get("position_ids"), past + length)
    counts = None if lengths is None else torch.as_tensor(lengths, device=tokens.device)
    if counts is not None and counts.shape != (rows,):
        raise RowsError(
            "prompt_lengths does not match the rows",
            found=f"{tuple(counts.shape)} for {rows} rows",
            expected="one count of tokens per row",
            do="give one length per row, padding not counted",
        )
    compiling = torch.compiler.is_compiling()  # what values decide cannot be compiled
    if counts is not None and not compiling and bool((counts < 0).any()):
        raise ScopeError(
            "a prompt of negative length",
            found=f"prompt_lengths={counts.tolist()}",
            expected="the number of prompt tokens of each row",
            do="count the tokens of each prompt without padding",
        )
    visible = None if known is None else known.bool()
    kept = _kept(kwargs.get("logits_to_keep"))
    return Call(rows, length, past, visible, prompts, counts, reason, kept=kept)


def _kept(asked: object) -> slice | Tensor | None:
    if isinstance(asked, int):
        return slice(-asked, None) if asked else None
    return asked if isinstance(asked, Tensor) else None


def _unclear(mask: object, position_ids: object, columns: int) -> str | None:
    """Return why the arguments of a bare forward do not give positions, or None."""
    if isinstance(mask, Tensor) and mask.ndim == 2:
        if mask.shape[1] < columns:
            return f"an attention mask of {mask.shape[1]} columns for {columns} tokens so far"
        return None
    if mask is not None:
        return "an attention mask that is not [batch, pos]"
    if isinstance(position_ids, Tensor) and bool((position_ids.diff(dim=-1) < 0).any()):
        return "position_ids that begin anew within a row"
    return None


def _past(
    kwargs: Mapping[str, object], prompts: Prompts | None, length: int, mask: Tensor | None
) -> tuple[int, str | None]:
    """Return how many columns precede this forward, or why that is unknown."""
    cached = _cached_length(kwargs.get("past_key_values"))
    if cached is not None:
        return cached, None
    state = state_in(kwargs)
    columns = prompts.columns() if prompts is not None else None
    if columns is not None:
        return max(columns - length, 0), None
    if state is not None and prompts is None and mask is not None and mask.shape[1] > length:
        return mask.shape[1] - length, None
    return 0, state


def _cached_length(cache: object) -> int | None:
    """Return the tokens in a cache, or None if it does not know."""
    length = getattr(cache, "get_seq_length", None)
    try:
        return None if length is None else int(length())
    except ValueError:  # a cache of states without attention
        return None


def state_in(kwargs: Mapping[str, object]) -> str | None:
    """Describe the argument that holds an unknown number of earlier tokens, if there is one."""
    for name in _STATES:
        if (state := kwargs.get(name)) is not None:
            return f"{name} of type {type(state).__name__}, which does not tell its length"
    return None


def prompts_of(
    kwargs: Mapping[str, object], pad: object, eos: object, batch_slice: BatchSlice | None = None
) -> Prompts:
    """Return the prompts of a `generate` call from its arguments.

    Without an attention mask, padding is what `generate` itself takes for it: the pad token, unless
    it is an end-of-sequence token.
    """
    mask = kwargs.get("attention_mask")
    given = {name: t for name in _PROMPTS if isinstance(t := kwargs.get(name), Tensor)}
    first = next(iter(given.values()), None)  # embeddings before ids
    if isinstance(mask, Tensor) and mask.ndim == 2:
        real = mask.bool()
    elif first is None:
        real = torch.ones(1, 1, dtype=torch.bool)
    else:
        real = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
        ends = eos if isinstance(eos, list | tuple) else [eos]
        if first.ndim == 2 and isinstance(pad, int) and pad not in ends:
            real = torch.ne(first, pad)
    embedded = given.pop("inputs_embeds", None) is not None
    ids = next(iter(given.values()), None)
    before = 0 if first is None else real.shape[1] - (0 if ids is None else ids.shape[1])
    return Prompts(real, batch_slice, None if before or embedded else ids, before, state_in(kwargs))


def check_rows(composition: Composition, prompts: int) -> None:
    """Refuse a call with another number of prompts than there are coefficient rows."""
    rows = composition.coefficients.shape[0]
    if composition.per_row and rows != prompts:
        raise RowsError(
            "coefficient rows and prompts differ in number",
            found=f"{rows} rows for {prompts} prompts",
            expected="one row per prompt of the call",
            do="give one row per prompt, or one setting for all of them",
        )
