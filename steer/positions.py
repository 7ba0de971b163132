"""Where activations are read: positions by meaning, turned into tokens of encoded pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from steer.engine.reading import Place
from steer.errors import RecordingError
from steer.pairs import Pair
from steer.text import Exchange, encode_exchange, encode_in_user_slot, slot_samples

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


@dataclass(frozen=True, slots=True)
class Unit:
    """One pair, ready to run.

    Args:
        domain: The pair's domain.
        number: The pair's number within its domain, from 0.
        sequences: Token ids of the texts to run.
        places: For each position where to read the chosen side, then the same for the rejected.
    """

    domain: str | None
    number: int
    sequences: tuple[tuple[int, ...], ...]
    places: tuple[Place, ...]


def plan(tokenizer: Any, pairs: Sequence[Pair], at: At) -> tuple[tuple[str, ...], tuple[Unit, ...]]:
    """Encode pairs and find the tokens to read.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.
        pairs: The pairs, at least one.
        at: Positions: names, or functions from an `Exchange` to the tokens to average.

    Returns:
        The labels of the positions, and one unit per pair.

    Raises:
        RecordingError: An unknown or repeated position, or a position without tokens.
        TextError: A pair cannot be encoded.
    """
    readers = _readers(at)
    slots = _slots(tokenizer, pairs) if TEMPLATE in readers else None
    in_exchange = {name: f for name, f in readers.items() if f is not None}
    labels = [
        label
        for name in readers
        for label in (_template_labels(slots[1]) if slots and name == TEMPLATE else (name,))
    ]
    units, numbers = [], dict[str | None, int]()
    for index, pair in enumerate(pairs):
        sequences: list[tuple[int, ...]] = []
        sides: list[dict[str, Place]] = []
        for side, response in enumerate((pair.chosen, pair.rejected)):
            places: dict[str, Place] = {}
            if slots is not None:
                ids = slots[0][2 * index + side]
                for back, label in enumerate(reversed(_template_labels(slots[1])), start=1):
                    places[label] = Place(len(sequences), (len(ids) - back,))
                sequences.append(ids)
            if in_exchange:
                exchange = encode_exchange(tokenizer, pair.prompt, response)
                for name, position in in_exchange.items():
                    tokens = _tokens(name, position, exchange, index)
                    places[name] = Place(len(sequences), tokens)
                sequences.append(exchange.ids)
            sides.append(places)
        number = numbers.get(pair.domain, 0)
        numbers[pair.domain] = number + 1
        ordered = tuple(side[label] for side in sides for label in labels)
        units.append(Unit(pair.domain, number, tuple(sequences), ordered))
    return tuple(labels), tuple(units)


def _readers(at: At) -> dict[str, Position | None]:
    """Return the function of each position by its label; None for the template's tokens."""
    asked = [at] if isinstance(at, str) or callable(at) else list(at)
    readers: dict[str, Position | None] = {}
    for item in asked:
        label = item if isinstance(item, str) else getattr(item, "__name__", type(item).__name__)
        known = callable(item) or item in POSITIONS
        if not known or label in readers or (callable(item) and label in POSITIONS):
            raise RecordingError(
                "positions are named twice" if known else "there is no such position",
                found=repr(item),
                expected=f"different ones of {', '.join(POSITIONS)}, or a function with a name",
                do='write for example at=["template", "response_mean"]',
            )
        readers[label] = item if callable(item) else _IN_EXCHANGE.get(str(item))
    if not readers:
        raise RecordingError(
            "no position is asked for",
            found=repr(at),
            expected=f"at least one of {', '.join(POSITIONS)}, or a function",
            do='write for example at="template"',
        )
    return readers


def _slots(tokenizer: Any, pairs: Sequence[Pair]) -> tuple[list[tuple[int, ...]], int]:
    """Return the ids of each response in the user's slot, and the template tokens of all."""
    samples = slot_samples(tokenizer)
    encoded = [
        encode_in_user_slot(tokenizer, response, samples)
        for pair in pairs
        for response in (pair.chosen, pair.rejected)
    ]
    template = min(n for _, n in encoded)
    if template == 0:
        worst = next(i for i, (_, n) in enumerate(encoded) if n == 0)
        raise RecordingError(
            "no token after the response belongs to the template alone",
            found=f"pair {worst // 2} (counted from 0): the last token holds text of the response",
            expected="at least one template token after every response",
            do="read at response_last or response_mean, or use a tokenizer with a chat template",
        )
    return [ids for ids, _ in encoded], template


def _template_labels(count: int) -> tuple[str, ...]:
    return tuple(f"{TEMPLATE}[{-back}]" for back in range(count, 0, -1))


def _tokens(name: str, position: Position, exchange: Exchange, index: int) -> tuple[int, ...]:
    tokens = tuple(position(exchange))
    whole = all(isinstance(t, int) and 0 <= t < len(exchange.ids) for t in tokens)
    if not tokens or not whole:
        raise RecordingError(
            f"position {name!r} gives no usable tokens for pair {index} (counted from 0)",
            found=f"tokens {list(tokens)[:10]} in a text of {len(exchange.ids)}",
            expected=f"at least one index from 0 to {len(exchange.ids) - 1}",
            do="correct the function, or read at another position",
        )
    return tokens
