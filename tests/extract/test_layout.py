import itertools

from hypothesis import given
from hypothesis import strategies as st

from steer.engine._layout import SHORTEST, Place, pack, unique_tokens
from steer.pairs._common_prefix import common_prefix_length

# few different tokens and shared beginnings, so that sequences often continue each other
beginnings = st.sampled_from([(), (1,) * SHORTEST, (1,) * SHORTEST + (2,) * SHORTEST, (3,) * 5])
sequences = st.lists(
    st.tuples(beginnings, st.lists(st.integers(1, 3), min_size=1, max_size=20)).map(
        lambda parts: (*parts[0], *parts[1])
    ),
    min_size=1,
    max_size=12,
)


def rows_of(found: object, index: int, length: int) -> list[int]:
    return found.rows(Place(index, tuple(range(length))))  # type: ignore[attr-defined,no-any-return]


@given(sequences)
def test_every_sequence_is_in_the_row_at_its_positions(given_: list[tuple[int, ...]]) -> None:
    packed = pack(given_)
    for index, sequence in enumerate(given_):
        rows = rows_of(packed, index, len(sequence))
        assert tuple(packed.ids[row] for row in rows) == sequence
        assert [packed.positions[row] for row in rows] == list(range(len(sequence)))


@given(sequences)
def test_a_run_attends_to_the_tokens_before_it(given_: list[tuple[int, ...]]) -> None:
    packed = pack(given_)
    covered: list[int] = []
    for run in packed.runs:
        own = list(range(run.start, run.stop))
        before = [row for start, stop in run.before for row in range(start, stop)]
        assert all(row < run.start for row in before)
        assert [packed.positions[row] for row in before + own] == list(range(run.depth + len(own)))
        covered += own
        whole = tuple(packed.ids[row] for row in before + own)
        assert any(sequence[: len(whole)] == whole for sequence in given_)
    assert covered == list(range(len(packed.ids)))


@given(sequences)
def test_what_is_shared_is_there_once(given_: list[tuple[int, ...]]) -> None:
    prefixes = {s[:n] for s in given_ for n in range(1, len(s) + 1)}
    assert len(prefixes) <= unique_tokens(given_) <= sum(map(len, given_))
    ordered = sorted(given_)
    shared = [common_prefix_length(a, b) for a, b in itertools.pairwise(ordered)]
    if all(n == 0 or n >= SHORTEST for n in shared):
        assert unique_tokens(given_) == len(prefixes)


def test_one_prompt_two_answers() -> None:
    prompt = tuple(range(100, 120))
    packed = pack([(*prompt, 7, 8, 9), (*prompt, 5, 6)])
    assert packed.ids == (*prompt, 5, 6, 7, 8, 9)
    first, second = packed.runs
    assert (first.start, first.stop, first.before) == (0, 22, ())
    assert (second.start, second.stop, second.before) == (22, 25, ((0, 20),))
    assert second.depth == 20


def test_a_sequence_inside_another_needs_no_rows() -> None:
    whole = tuple(range(30))
    packed = pack([whole[:12], whole, whole])
    assert packed.ids == whole
    assert [rows_of(packed, i, 12) for i in range(3)] == [list(range(12))] * 3
