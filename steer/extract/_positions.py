"""Reading positions: named by meaning, resolved to tokens of encoded pairs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from steer.engine._layout import Place
from steer.errors import RecordingError
from steer.network import Exchange, encode_exchange, encode_in_user_slot
from steer.network._text import slot_samples
from steer.pairs import Pair

Position = Callable[[Exchange], Sequence[int]]
At = str | Position | Sequence[str | Position]

TEMPLATE = "template"
_IN_EXCHANGE: Mapping[str, Position] = MappingProxyType(
    {
        "response_mean": lambda e: range(e.response_start, len(e.ids)),
        "response_first": lambda e: (e.response_start,),
        "response_last": lambda e: (len(e.ids) - 1,),
        "prompt_last": lambda e: (e.response_start - 1,),
    }
)
POSITIONS: tuple[str, ...] = (TEMPLATE, *_IN_EXCHANGE)
DEFAULT_AT: tuple[str, ...] = (TEMPLATE, "response_mean")  # which one steers differs by behaviour
_TEMPLATE_TOKEN = re.compile(r"template\[-[1-9][0-9]*\]")


def is_position(name: str) -> bool:
    """Return whether a name is that of a position, or the label of one template token."""
    return name in POSITIONS or is_template_token(name)


def is_template_token(name: str) -> bool:
    """Return whether a name is the label of one template token, such as `template[-1]`."""
    return _TEMPLATE_TOKEN.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Unit:
    """One encoded pair: for each position the places of the chosen side, then of the rejected."""

    domain: str | None
    number: int
    sequences: tuple[tuple[int, ...], ...]
    places: tuple[Place, ...]


def plan(tokenizer: Any, pairs: Sequence[Pair], at: At) -> tuple[tuple[str, ...], tuple[Unit, ...]]:
    """Return the labels of the positions, and each pair encoded with the tokens to read."""
    readers = readers_of(at)
    in_exchange = {name: f for name, f in readers.items() if f is not None}
    in_template = [name for name in readers if name not in in_exchange]
    slots = _slots(tokenizer, pairs) if in_template else [[] for _ in pairs]
    template = tuple(slots[0][0].tokens) if in_template else ()
    labels = [label for name in readers for label in (template if name == TEMPLATE else (name,))]
    if missing := [name for name in in_template if name not in (TEMPLATE, *template)]:
        raise RecordingError(
            "the template has no such token",
            found=missing,
            expected=f"among {', '.join(template)}",
            do='record at="template" for all of them',
        )
    units: list[Unit] = []
    numbers: dict[str | None, int] = {}
    for index, (pair, slot) in enumerate(zip(pairs, slots, strict=True)):
        texts = list(slot)
        if in_exchange:
            for response in (pair.chosen, pair.rejected):
                exchange = encode_exchange(tokenizer, pair.prompt, response)
                tokens = {n: _tokens(n, f, exchange, index) for n, f in in_exchange.items()}
                texts.append(_Text(exchange.ids, tokens))
        number = numbers.get(pair.domain, 0)
        numbers[pair.domain] = number + 1
        units.append(_unit(pair, number, texts, labels))
    return tuple(labels), tuple(units)


@dataclass(frozen=True, slots=True)
class _Text:
    """Token ids, and the tokens to average under each label."""

    ids: tuple[int, ...]
    tokens: Mapping[str, tuple[int, ...]]


def _unit(pair: Pair, number: int, texts: Sequence[_Text], labels: Sequence[str]) -> Unit:
    """Return a pair's unit; its texts are chosen, rejected, and so on in turn."""
    places = [
        Place(index, texts[index].tokens[label])
        for side in (0, 1)
        for label in labels
        for index in range(side, len(texts), 2)
        if label in texts[index].tokens
    ]
    return Unit(pair.domain, number, tuple(text.ids for text in texts), tuple(places))


def readers_of(at: At) -> dict[str, Position | None]:
    """Return the function of each position by its label; None for the template's tokens.

    Raises:
        RecordingError: There is no such position, none, or one twice.
    """
    asked: list[Any] = list(at) if isinstance(at, list | tuple) else [at]
    readers: dict[str, Position | None] = {}
    for item in asked:
        label = item if isinstance(item, str) else getattr(item, "__name__", type(item).__name__)
        known = callable(item) or (isinstance(item, str) and is_position(item))
        whole = label == TEMPLATE and any(map(_TEMPLATE_TOKEN.fullmatch, readers))
        part = TEMPLATE in readers and _TEMPLATE_TOKEN.fullmatch(label)
        twice = label in readers or whole or part
        if not known or twice or (callable(item) and is_position(label)):
            raise RecordingError(
                "positions are named twice" if known else "there is no such position",
                found=repr(item),
                expected=f"distinct names among {', '.join(POSITIONS)}, template[-1] and so on, or "
                "a function with a name",
                do='write for example at=["template", "response_mean"]',
            )
        readers[label] = item if callable(item) else _IN_EXCHANGE.get(str(item))
    if not readers:
        raise RecordingError(
            "no position is requested",
            found=repr(at),
            expected=f"at least one of {', '.join(POSITIONS)}, or a function",
            do='write for example at="template"',
        )
    return readers


def _slots(tokenizer: Any, pairs: Sequence[Pair]) -> list[list[_Text]]:
    """Return the two responses of each pair as texts in the user's slot."""
    samples = slot_samples(tokenizer)
    encoded = [
        [encode_in_user_slot(tokenizer, response, samples) for response in (p.chosen, p.rejected)]
        for p in pairs
    ]
    shortest = [min(n for _, n in sides) for sides in encoded]
    count = min(shortest)
    if count == 0:
        raise RecordingError(
            "no token after the response belongs to the template alone",
            found=f"in pair {shortest.index(0)} (counted from 0) the last token contains "
            "text of the response",
            expected="at least one template token after every response",
            do="read at response_last or response_mean, or use a tokenizer with a chat template",
        )
    backs = range(count, 0, -1)
    return [
        [
            _Text(ids, {f"{TEMPLATE}[{-back}]": (len(ids) - back,) for back in backs})
            for ids, _ in sides
        ]
        for sides in encoded
    ]


def _tokens(name: str, position: Position, exchange: Exchange, index: int) -> tuple[int, ...]:
    tokens = tuple(position(exchange))
    whole = all(isinstance(t, int) and 0 <= t < len(exchange.ids) for t in tokens)
    if not tokens or not whole:
        raise RecordingError(
            f"position {name!r} returns no usable tokens for pair {index} (counted from 0)",
            found=f"tokens {list(tokens)[:10]} in a text of {len(exchange.ids)}",
            expected=f"at least one index from 0 to {len(exchange.ids) - 1}",
            do="correct the function, or read at another position",
        )
    return tokens
