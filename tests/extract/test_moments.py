import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steer.extract._moments import Moments

LAYERS, WIDTH = 2, 3


def samples(count: int, seed: int, offset: float) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    chosen, rejected = torch.randn(2, count, LAYERS, WIDTH, generator=draw, dtype=torch.float64)
    norm = torch.rand(count, LAYERS, generator=draw, dtype=torch.float64)
    return chosen + offset, rejected, norm


def in_parts(data: tuple[Tensor, Tensor, Tensor], order: list[int], cuts: list[int]) -> Moments:
    """Return the moments of pairs in some order, batch by batch, merged from the left."""
    chosen, rejected, norm = data
    ends = [*sorted(cut for cut in set(cuts) if 0 < cut < len(order)), len(order)]
    merged: Moments | None = None
    start = 0
    for end in ends:
        part = order[start:end]
        new = Moments.of(chosen[part], rejected[part], norm[part], part)
        merged = new if merged is None else merged.merge(new)
        start = end
    assert merged is not None
    return merged


def assert_same(a: Moments, b: Moments) -> None:
    assert (a.count, a.half_counts) == (b.count, b.half_counts)
    for name in ("mean_chosen", "mean_rejected", "second", "norm", "difference"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-9)
    for x, y in zip(a.halves, b.halves, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@given(
    count=st.integers(1, 25),
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    cuts=st.lists(st.integers(0, 25), max_size=8),
    shuffle=st.randoms(use_true_random=False),
)
def test_streaming_in_any_order_equals_the_batch(
    count: int, seed: int, offset: float, cuts: list[int], shuffle: object
) -> None:
    data = samples(count, seed, offset)
    order = list(range(count))
    at_once = in_parts(data, order, [])
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    assert_same(in_parts(data, order, cuts), at_once)


@given(count=st.integers(2, 30), seed=st.integers(0, 1000))
def test_statistics_equal_their_definitions(count: int, seed: int) -> None:
    chosen, rejected, norm = samples(count, seed, 0.5)
    found = in_parts((chosen, rejected, norm), list(range(count)), [count // 2])
    d = chosen - rejected
    torch.testing.assert_close(found.difference, d.mean(dim=0))
    error = d.std(dim=0, correction=1) / count**0.5
    torch.testing.assert_close(found.standard_error, error)
    cosine = torch.cosine_similarity(d[::2].mean(dim=0), d[1::2].mean(dim=0), dim=-1)
    torch.testing.assert_close(found.split_half_cosine, cosine)
    torch.testing.assert_close(found.norm, norm.mean(dim=0))


def test_a_large_shared_mean_costs_no_precision() -> None:
    chosen, rejected, norm = samples(50, 1, 0.0)
    moved = Moments.of(chosen + 1e8, rejected + 1e8, norm, list(range(50)))
    plain = Moments.of(chosen, rejected, norm, list(range(50)))
    torch.testing.assert_close(moved.second, plain.second, rtol=1e-6, atol=0)


def test_an_empty_half_has_no_cosine() -> None:
    chosen, rejected, norm = samples(3, 0, 1.0)
    found = Moments.of(chosen, rejected, norm, [0, 2, 4])
    assert found.half_counts == (3, 0)
    assert found.split_half_cosine.isnan().all()
