"""Scopes: the tokens on which a vector acts, named by meaning instead of by slice."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steer.errors import CompositionError, ScopeError

# Each part by the positions of tokens and the number of tokens of the prompt.
PARTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "all": lambda position, prompt: position >= 0,
        "prompt": lambda position, prompt: position < prompt,
        "response": lambda position, prompt: position >= prompt,
        "last_prompt": lambda position, prompt: position == prompt - 1,
    }
)
_MARKED = ("after:", "before:")
_RANGE = re.compile(r"\[([0-9]{0,18}):([0-9]{0,18})\]")
_LONGEST = 100  # characters of a marker
NEVER = 10**18  # the position of a marker that has not come; later than any


@dataclass(frozen=True, slots=True)
class Scope:
    """The tokens steered: a part of the text, cut to a range of absolute positions.

    Positions count the tokens of a row from 0 without padding. The first response token is
    *produced* at the last prompt position: `response` steers the tokens after the prompt, so it
    leaves the distribution of the first response token alone, and `last_prompt` moves just that.

    `after:</think>` is the part of the response after the text `</think>`, and `before:</think>`
    the part up to and including it: the answer and the thinking of a reasoning model. The token
    with the marker's last character counts as before it. The marker may be any text. It is
    searched in the response, and in the prompt from its last special token on: a prompt that ends
    with the marker has only `after`, and text of the user or of earlier turns does not count.

    Args:
        part: `all`, `prompt`, `response` (every token after the prompt), `last_prompt`,
            `after:MARKER` or `before:MARKER`.
        start: First absolute position steered.
        stop: First absolute position no longer steered; None means no end.

    Raises:
        CompositionError: Unknown part, or a range that is empty, negative or not of integers.
    """

    part: str = "all"
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.marker is not None:
            _check_marker(self.marker)
        elif self.part not in PARTS:
            raise CompositionError(
                "unknown scope",
                found=repr(self.part)[:_LONGEST],
                expected=_known(),
                do="name a part; cut it with Scope(part, start=…, stop=…)",
            )
        stop = NEVER if self.stop is None else self.stop
        integers = all(isinstance(p, int) and not isinstance(p, bool) for p in (self.start, stop))
        if not integers or not 0 <= self.start < stop <= NEVER:
            raise CompositionError(
                "a scope's range is empty, negative or not of integers",
                found=f"start={self.start!r}, stop={self.stop!r}",
                expected="integers 0 <= start < stop",
                do="count absolute positions from 0, padding left out",
            )

    @property
    def marker(self) -> str | None:
        """The text after or before which tokens are steered, if the part is one of these."""
        if not isinstance(self.part, str) or not self.part.startswith(_MARKED):
            return None
        return self.part.partition(":")[2]

    @property
    def needs_prompt_lengths(self) -> bool:
        """Whether the scope depends on the length of the prompt."""
        return self.part != "all"

    @property
    def everything(self) -> bool:
        """Whether every token is steered."""
        return self.part == "all" and self.start == 0 and self.stop is None

    def mask(
        self,
        positions: Int[Tensor, "batch pos"],
        prompt_lengths: Int[Tensor, " batch"] | None,
        ends: Int[Tensor, " batch"] | None = None,
    ) -> Bool[Tensor, "batch pos"]:
        """Return which tokens are steered; False at padding, whose positions are negative.

        `prompt_lengths` are not needed for part `all`; `ends`, the position of the last token of
        each row's marker or `NEVER`, are needed for `after:` and `before:`.

        Raises:
            ScopeError: The part depends on the prompt's end or on a marker, and it is not given.
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
        part = PARTS["response" if self.marker is not None else self.part]
        chosen = chosen & part(positions, prompt_lengths[:, None])
        if self.marker is None:
            return chosen
        if ends is None:
            raise ScopeError(
                f"the scope {str(self)!r} needs to know where the marker stands",
                found="no positions of the marker",
                expected="the text of each row from its beginning",
                do="call the model with the whole text, use generate(), or scope 'response'",
            )
        after = positions > ends[:, None]
        return chosen & (after if self.part.startswith("after:") else ~after)

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
    text = str(value)
    at = text.rfind("[") if text.startswith(_MARKED) else text.find("[")
    if at < 0:
        return Scope(text)
    if match := _RANGE.fullmatch(text[at:]):
        start, stop = match.groups()
        return Scope(text[:at], int(start or 0), int(stop) if stop else None)
    if text.startswith(_MARKED):  # the bracket is the marker's own
        return Scope(text)
    raise CompositionError(
        "unreadable scope",
        found=repr(value)[:_LONGEST],
        expected=f"{_known()}, or one of them with [start:stop]",
        do="write for instance 'response', 'all[3:]' or 'after:</think>'",
    )


def _known() -> str:
    return " | ".join([*PARTS, *(f"{start}MARKER" for start in _MARKED)])


def _check_marker(marker: str) -> None:
    """Refuse a marker that is no text, is too long, or ends like a range."""
    if not marker.strip() or len(marker) > _LONGEST or not marker.isprintable():
        found = f"{marker[:40]!r}, {len(marker)} characters"
    elif re.search(_RANGE.pattern + "$", marker):
        found = f"{marker!r}, which ends like a range of positions"
    else:
        return
    raise CompositionError(
        "this is no marker for a scope",
        found=found,
        expected=f"one line of at most {_LONGEST} printable characters, for instance '</think>'",
        do="name a text that the model writes where the part begins or ends",
    )


def token_positions(mask: Bool[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """Return the absolute position of each token, padding not counted and marked -1."""
    return torch.where(mask, mask.long().cumsum(dim=-1) - 1, -1)
