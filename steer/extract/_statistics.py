"""What the description of a recording says of responses and of random labels."""

from steer.extract._responses import MOST_DIFFERENT, Responses
from steer.extract._shuffled import CONTROLS
from steer.store import _fields as fields

_NAMES = ("pairs", "much_longer", "much_shorter", "counts")
_COUNT = ("text", "chosen", "rejected")


def describe_responses(responses: Responses | None) -> dict[str, object] | None:
    """Return the description of the counts, JSON values only."""
    if responses is None:
        return None
    counts = responses.counts
    return {
        "pairs": responses.pairs,
        "much_longer": responses.much_longer,
        "much_shorter": responses.much_shorter,
        "counts": None
        if counts is None
        else [{"text": t, "chosen": a, "rejected": b} for t, (a, b) in counts.items()],
    }


def read_responses(value: object) -> Responses:
    """Return the counts of a description."""
    found = fields.members("responses", value, _NAMES)
    pairs = fields.integer("pairs of responses", found["pairs"], low=1)
    longer = fields.integer("much_longer", found["much_longer"], high=pairs)
    shorter = fields.integer("much_shorter", found["much_shorter"], high=pairs - longer)
    counts = None if found["counts"] is None else _counts(found["counts"], pairs)
    return Responses(pairs, longer, shorter, counts)


def _counts(value: object, pairs: int) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for item in fields.array("counts", value):
        count = fields.members("an entry of counts", item, _COUNT)
        chosen, rejected = (
            fields.integer(f"{side} of counts", count[side], high=pairs)
            for side in ("chosen", "rejected")
        )
        counts[fields.text("a text of counts", count["text"])] = chosen, rejected
    sums = [sum(sides) for sides in zip(*counts.values(), strict=True)]
    if sums != [pairs, pairs] or list(counts) != sorted(counts) or len(counts) > MOST_DIFFERENT:
        expected = f"up to {MOST_DIFFERENT} sorted texts, {pairs} times chosen and rejected in all"
        raise fields.wrong("counts", f"{len(counts)} texts, {sums} in all", expected)
    return counts


def read_signs(value: object, count: int) -> tuple[int, ...] | None:
    """Return the sum of the random labels of each control, if there are controls."""
    if value is None:
        return None
    listed = fields.array("signs", value)
    signs = [fields.integer("signs", n, low=-count, high=count) for n in listed]
    if len(signs) != CONTROLS or any((n - count) % 2 for n in signs):
        expected = f"{CONTROLS} sums of {count} labels, each 1 or -1"
        raise fields.wrong("signs", f"{len(signs)} numbers, {signs[:4]} first", expected)
    return tuple(signs)
