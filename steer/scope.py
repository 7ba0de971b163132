"""On which tokens a vector acts, by meaning and not by slice."""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steer.errors import CompositionError, ScopeError

Part = Literal["all", "prompt", "response", "last_prompt"]
_PARTS = ("all", "prompt", "response", "last_prompt")
_RANGE = re.compile(r"\[([0-9]{0,18}):([0-9]{0,18})\]")
_END = 10**18


@dataclass(frozen=True, slots=True)
class Scope:
    """The tokens steered: a part of the text, cut to a range of absolute positions.

    Positions count the tokens of a row from 0 without padding. The first response token is
    *produced* at the last prompt position: `response` steers the tokens after the prompt, so it
    leaves the distribution of the first response token alone, and `last_prompt` moves just that.

    Args:
        part: `all`, `prompt`, `response` (every token after the prompt) or `last_prompt`.
        start: First absolute position steered.
        stop: First absolute position no longer steered; None means no end.

    Raises:
        CompositionError: Unknown part, or a range that is empty, negative or not of integers.
    """

    part: Part = "all"
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.part not in _PARTS:
            raise CompositionError(
                "unknown scope",
                found=repr(self.part),
                expected=" | ".join(_PARTS),
                do="name a part; cut it with Scope(part, start=…, stop=…)",
            )
        stop = _END if self.stop is None else self.stop
        integers = all(isinstance(p, int) and not isinstance(p, bool) for p in (self.start, stop))
        if not integers or not 0 <= self.start < stop <= _END:
            raise CompositionError(
                "a scope's range is empty, negative or not of integers",
                found=f"start={self.start!r}, stop={self.stop!r}",
                expected="integers 0 <= start < stop",
                do="count absolute positions from 0, padding left out",
            )

    @property
    def needs_prompt_lengths(self) -> bool:
        """Whether the end of the prompt must be known."""
        return self.part != "all"

    @property
    def everything(self) -> bool:
        """Whether every token is steered."""
        return self.part == "all" and self.start == 0 and self.stop is None

    def mask(
        self,
        positions: Int[Tensor, "batch pos"],
        prompt_lengths: Int[Tensor, " batch"] | None,
    ) -> Bool[Tensor, "batch pos"]:
        """Return which tokens are steered.

        Args:
            positions: Absolute position of each token, padding not counted; negative at padding.
            prompt_lengths: Tokens of each row's prompt; not needed for part `all`.

        Returns:
            True where the token is steered; False at padding.

        Raises:
            ScopeError: The part depends on the prompt's end, and no prompt lengths are given.
        """
        chosen = positions >= self.start
        if self.stop is not None:
            chosen = chosen & (positions < self.stop)
        if self.part == "all":
            return chosen
        if prompt_lengths is None:
            raise ScopeError(
                f"the scope {str(self)!r} needs to know where the prompt ends",
                found="no prompt lengths",
                expected="the number of prompt tokens of each row",
                do="pass prompt_lengths=, or use the scope 'all'",
            )
        end = prompt_lengths[:, None]
        if self.part == "prompt":
            return chosen & (positions < end)
        if self.part == "response":
            return chosen & (positions >= end)
        return chosen & (positions == end - 1)

    def __str__(self) -> str:
        if self.start == 0 and self.stop is None:
            return self.part
        return f"{self.part}[{self.start}:{'' if self.stop is None else self.stop}]"


ALL = Scope()


def parse_scope(value: "Scope | str") -> Scope:
    """Return a scope from its name, for instance `response` or `all[3:]`.

    Args:
        value: A scope, or its printed form.

    Returns:
        The scope; `parse_scope(str(scope)) == scope`.

    Raises:
        CompositionError: The text names no scope.
    """
    if isinstance(value, Scope):
        return value
    name, bracket, rest = str(value).partition("[")
    if not bracket:
        return Scope(name)  # type: ignore[arg-type]  # checked by Scope
    if match := _RANGE.fullmatch(bracket + rest):
        start, stop = match.groups()
        return Scope(name, int(start or 0), int(stop) if stop else None)  # type: ignore[arg-type]
    raise CompositionError(
        "unreadable scope",
        found=repr(value),
        expected="all | prompt | response | last_prompt, or one of them with [start:stop]",
        do="write for instance 'response' or 'all[3:]'",
    )


def token_positions(mask: Bool[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """Return the absolute position of each token, padding not counted and marked -1.

    Args:
        mask: True at tokens, False at padding.

    Returns:
        Positions from 0 in each row; -1 at padding.
    """
    return torch.where(mask, mask.long().cumsum(dim=-1) - 1, -1)
