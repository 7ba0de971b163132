"""Laws of every operator, whoever registered it: each is a function of its name."""

import torch
from torch import Tensor

from steer.algebra import Operator, get_operator
from steer.algebra._operator import ORDER, cast
from tests.conformance import cases

D = 24
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def strengths(operator: Operator) -> Tensor:
    """Two rows of coefficients for two domains that the operator takes, none of them zero."""
    allowed = [c for c in (1.0, 0.5, 0.25, -0.5) if operator.low <= c <= operator.high]
    some = (allowed * 4)[:4]
    return torch.tensor(some).reshape(2, 2)


def rows_of_zeros_keep_every_bit(name: str) -> None:
    operator = get_operator(name)
    c = torch.cat([torch.tensor([[0.0, 0.0], [-0.0, 0.0]]), strengths(operator)[:1]])
    for dtype in DTYPES:
        h = random(3, 4, D, seed=0).to(dtype)
        h[:, 0, :4] = torch.tensor([-0.0, 0.0, torch.inf, -torch.inf], dtype=dtype)
        h[:, 1, :2] = torch.tensor([torch.nan, torch.finfo(dtype).smallest_normal / 2], dtype=dtype)
        kept, integers = h.clone(), _INTEGERS[h.element_size()]
        found = operator(h, random(2, D, seed=1), c)
        assert torch.equal(found[:2].view(integers), kept[:2].view(integers))
        assert not torch.equal(found[2, 2:], kept[2, 2:])
        assert found.dtype == dtype


def the_stream_is_never_written_in_place(name: str) -> None:
    operator = get_operator(name)
    h = random(2, 4, D, seed=0)
    kept = h.clone()
    operator(h, random(2, D, seed=1), strengths(operator))
    assert torch.equal(h, kept)


def rows_and_tokens_stand_alone(name: str) -> None:
    """A row of a batch equals the row alone, and a token the token alone, as caches need it."""
    operator = get_operator(name)
    h, V, c = random(2, 5, D, seed=0), random(2, D, seed=1), strengths(operator)
    whole = operator(h, V, c)
    for r in range(2):
        torch.testing.assert_close(operator(h[r : r + 1], V, c[r : r + 1])[0], whole[r])
    for t in range(5):
        torch.testing.assert_close(operator(h[:, t : t + 1], V, c)[:, 0], whole[:, t])


def what_is_prepared_has_the_batch_first(name: str) -> None:
    operator = get_operator(name)
    prepared = operator.prepare(random(2, D, seed=1), strengths(operator))
    assert all(t.shape[0] == 2 for t in prepared)
    assert prepared[0].is_floating_point()  # its dtype tells the engine what was laid out
    again = cast(prepared, torch.zeros(1, dtype=torch.bfloat16))
    assert all(t.dtype == torch.bfloat16 for t in again if t.is_floating_point())


def every_precision_is_near_float64(name: str) -> None:
    """One rounding for each of a few sums over d_model, of which the largest counts four times."""
    operator = get_operator(name)
    h, V, c = random(2, 4, D, seed=0), random(2, D, seed=1), strengths(operator)
    for dtype, bound in ((torch.float16, 2**-10), (torch.bfloat16, 2**-7), (torch.float32, 2**-23)):
        here = h.to(dtype)
        expected = operator(here.double(), V.double(), c.double())
        assert cases.distance(operator(here, V, c), expected) <= 4 * bound


def coefficients_beyond_the_range_are_refused(name: str) -> None:
    operator = get_operator(name)
    operator.check(strengths(operator))
    operator.check(torch.zeros(1, 2))
    for bound, beyond in ((operator.low, -1.0), (operator.high, 1.0)):
        if abs(bound) < float("inf"):
            assert _refused(operator, bound + beyond)


def _refused(operator: Operator, c: float) -> bool:
    try:
        operator.check(torch.tensor([[c]]))
    except ValueError as error:
        return "out of range" in str(error)
    return False


def the_name_gives_the_operator_back(name: str) -> None:
    operator = get_operator(name)
    assert operator.name == name
    assert get_operator(operator.name) is operator
    assert 0 <= operator.rank <= len(ORDER)
    if operator.at is not None:
        half = get_operator(f"{name}(0.5)")
        assert half is get_operator(f"{name}( .50 )")
        assert (half.name, half.rank) == (f"{name}(0.5)", operator.rank)


LAWS = (
    rows_of_zeros_keep_every_bit,
    the_stream_is_never_written_in_place,
    rows_and_tokens_stand_alone,
    what_is_prepared_has_the_batch_first,
    every_precision_is_near_float64,
    coefficients_beyond_the_range_are_refused,
    the_name_gives_the_operator_back,
)
