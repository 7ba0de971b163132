"""The cards of pairs: how many of which domain, how long they are, and what they look like."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from steer.pairs._pair import Pair, messages_of
from steer.show import Bar, Bars, Card, Table
from steer.show._card import Block, Cells, cut_table

_TEXT = 72  # characters of a text
_MEASURED = 2000  # pairs whose lengths are taken, evenly over all
_BINS = 16


def pairs_card(pairs: Sequence[Pair], source: str, rejected: int) -> Card:
    """Return the card of some pairs. Lengths are taken of at most 2000 of them, evenly spaced."""
    more = f", {rejected} rows rejected" if rejected else ""
    said = f"Pairs: {len(pairs)} pair{'' if len(pairs) == 1 else 's'} from {source}{more}"
    if not pairs:
        return Card(said)
    blocks: list[Block] = []
    counts = Counter(pair.domain for pair in pairs)
    if set(counts) != {None}:
        blocks.append(_domains(counts))
    every = pairs[:: max(1, -(-len(pairs) // _MEASURED))]
    of = f" (of {len(every)} pairs)" if len(every) < len(pairs) else ""
    lengths = {
        "chosen": [len(pair.chosen) for pair in every],
        "rejected": [len(pair.rejected) for pair in every],
    }
    middle = ", ".join(f"{name} {median(found):g}" for name, found in lengths.items())
    facts = [*_texts(pairs[0]), ("length", f"{middle} characters in the median{of}")]
    if len(every) >= _BINS:
        longest = max(map(max, lengths.values()))
        blocks += [
            _histogram(f"{k} by length, to {longest} characters", v, longest)
            for k, v in lengths.items()
        ]
    return Card(said, tuple(facts), tuple(blocks))


def pair_card(pair: Pair) -> Card:
    """Return the card of one pair."""
    turns = len(messages_of(pair.prompt))
    facts = [("turns", str(turns))] if turns > 1 else []
    domain = f" · {pair.domain}" if pair.domain else ""
    return Card(f"Pair{domain}", (*_texts(pair), *facts))


def _domains(counts: Counter[str | None]) -> Table:
    names = sorted(counts, key=lambda name: (name is None, name or ""))
    most = max(counts.values())
    rows: list[Cells] = [
        ("(no domain)" if name is None else name, str(counts[name]), Bar(counts[name], 0.0, most))
        for name in names
    ]
    return cut_table(("domain", "pairs", ""), rows)


def _histogram(caption: str, lengths: Sequence[int], longest: int) -> Bars:
    width = -(-longest // _BINS)
    counts = Counter((length - 1) // width for length in lengths)
    labels = tuple(f"{k * width + 1}–{(k + 1) * width}" for k in range(_BINS))
    return Bars(caption, labels, tuple(float(counts[k]) for k in range(_BINS)))


def _texts(pair: Pair) -> list[tuple[str, str]]:
    last = messages_of(pair.prompt)[-1].content
    texts = (("prompt", last), ("chosen", pair.chosen), ("rejected", pair.rejected))
    return [(label, _short(text)) for label, text in texts]


def _short(text: str) -> str:
    line = repr(text[: _TEXT + 1])
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
