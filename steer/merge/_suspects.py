"""Elements whose rounding the fast pass leaves open: settled in float64, and if need be exactly."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from steer.errors import MergeError
from steer.merge._delta import Pieces
from steer.merge._expansion import BITS, Expansion, grow, nearest, split, split_tensor
from steer.merge._scratch import Scratch

_SOME = 2**16  # elements at a time


class Suspects:
    """Settles elements between two roundings.

    Where these are neighbours, the sign of the exact sum minus their midpoint decides. What is too
    close to 0 for float64 is summed as an expansion.

    Args:
        dtype: The dtype to round to.
        name: What the tensor is called in messages.
        scratch: Memory.
    """

    def __init__(self, dtype: torch.dtype, name: str, scratch: Scratch) -> None:
        self._dtype, self._name, self._scratch = dtype, name, scratch

    def settle(
        self, low: Tensor, high: Tensor, found: Iterable[Tensor], base: Tensor, pieces: Pieces
    ) -> None:
        """Write the nearest values into `low`.

        Args:
            low: The lower ends of a block, rounded.
            high: The upper ends.
            found: Indices where both differ, part by part as the ends are computed.
            base: The block of the base.
            pieces: What is added to it.

        Raises:
            MergeError: A sum is not finite in the dtype.
        """
        out = low.view(BITS[self._dtype]).numpy()
        open_ = []
        for some in _gathered(found):
            a, b, start = (tensor.index_select(0, some) for tensor in (low, high, base))
            chosen, sure = self._between(a, b, start, _at(pieces, some))
            out[some.numpy()] = chosen.numpy()
            if not sure.numpy().all():
                open_.append(some[~sure])
        for some in _gathered(open_):
            total = _exact(base[some], _at(pieces, some))
            self._check_range(total)
            low[some] = nearest(total, self._dtype)

    def _between(
        self, low: Tensor, high: Tensor, base: Tensor, pieces: Pieces
    ) -> tuple[Tensor, Tensor]:
        """Return the bits of the nearer end, and where it is certain which one that is."""
        total = _Sum(self._scratch.rows("sum", 6, base.numel(), torch.float64), base)
        total.x.copy_(low).add_(total.spare.copy_(high)).mul_(-0.5)
        total.add()
        for coefficient, own in pieces:
            for sign, tensor in own:
                first, *others = split(sign * coefficient)
                for value in reversed(split_tensor(tensor)):
                    total.x.copy_(value).mul_(first)
                    total.add()
                    for factor in others:
                        total.x.copy_(value).mul_(factor)
                        total.add_tail()
        over, tie, sure = total.signs()
        a, b = (end.view(BITS[self._dtype]) for end in (low, high))
        step = b - a
        up = over | (tie & ((a & 1) == 1))
        return a + step * up.to(step.dtype), (sure | tie) & (step.abs() == 1)

    def _check_range(self, total: Expansion) -> None:
        info = torch.finfo(self._dtype)
        narrow = self._dtype != torch.float64
        limit = info.max * (1 + info.eps / 4) if narrow else info.max
        size = torch.stack(total).sum(dim=0).abs()
        bad = ~(size < limit) if narrow else ~(size <= limit)
        if bool(bad.any()):
            raise MergeError(
                f"{self._name}: a merged weight is not finite",
                found=f"{int(bad.sum())} or more elements, one of size {float(size[bad][0]):.3g}",
                expected=f"at most {info.max:.3g}, the largest {str(self._dtype)[6:]}",
                do="use smaller coefficients, and look for NaN or infinity in base and vector",
            )


class _Sum:
    """A sum in float64: a head without error, and a tail with the sum of its parts' sizes.

    Memory is given from outside, since allocating it costs more than the arithmetic.

    Args:
        scratch: Six rows.
        start: The first summand.
    """

    def __init__(self, scratch: tuple[Tensor, ...], start: Tensor) -> None:
        self._head, self._tail, self._size, self.x, self.spare, self._t = scratch
        self._head.copy_(start)
        self._tail.zero_()
        self._size.zero_()
        self._parts = 1

    def add(self) -> None:
        """Add `x`, whose rounding error goes to the tail (Knuth's two-sum)."""
        head, x, total, t = self._head, self.x, self.spare, self._t
        torch.add(head, x, out=total)
        torch.sub(total, head, out=t)
        x.sub_(t)
        torch.sub(total, t, out=t)
        x.add_(head.sub_(t))
        self._head, self.spare = total, head
        self.add_tail()

    def add_tail(self) -> None:
        """Add `x`, which is small, to the tail; it is overwritten."""
        self._tail.add_(self.x)
        self._size.add_(self.x.abs_())
        self._parts += 1

    def signs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return where the sum is positive, where it is 0, and where its sign is certain."""
        over = torch.add(self._head, self._tail, out=self.x)
        positive = over.numpy() > 0
        tie = (self._head.numpy() == 0) & (self._size.numpy() == 0)
        over.abs_()
        error = self._size.add_(over).mul_((self._parts + 4) * 2.0**-52)
        sure = over.numpy() > error.numpy()
        return torch.from_numpy(positive), torch.from_numpy(tie), torch.from_numpy(sure)


def _gathered(indices: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield indices in portions that are worth a call, and no larger than one."""
    waiting: list[Tensor] = []
    for some in indices:
        waiting.append(some)
        if sum(part.numel() for part in waiting) >= _SOME:
            yield from torch.cat(waiting).split(_SOME)
            waiting = []
    if any(part.numel() for part in waiting):
        yield from torch.cat(waiting).split(_SOME)


def _at(pieces: Pieces, indices: Tensor) -> Pieces:
    return [(c, tuple((sign, t.index_select(0, indices)) for sign, t in own)) for c, own in pieces]


def _exact(base: Tensor, pieces: Pieces) -> Expansion:
    total = [base.double()]
    for coefficient, own in pieces:
        for sign, tensor in own:
            for x in split_tensor(tensor):
                for factor in split(sign * coefficient):
                    total = grow(total, factor * x.double())
    return total
