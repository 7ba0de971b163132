"""The coefficients of a call, in the widths that the weight sites need."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.engine._call import Call
from steer.errors import CapabilityError


class Columns:
    """The domain of each column of some joined factors."""

    def __init__(self, of: tuple[int, ...]) -> None:
        self.of = of
        self.index = torch.tensor(of, dtype=torch.long)


class Strength:
    """Coefficients of rows, and of tokens where scopes tell them apart."""

    def __init__(self, c: Float[Tensor, "batch pos domain"], call: Call | None = None) -> None:
        self.c, self.call = c, call  # no call: one setting for everything
        self.silent: Bool[Tensor, "batch pos one"] = (c == 0).all(dim=2, keepdim=True)
        self._cast: dict[tuple[Columns | None, torch.dtype, torch.device], Tensor] = {}
        self.renew()

    def renew(self) -> None:
        """Recompute the flags after the coefficients were written."""
        self.idle, self.some = bool((self.c == 0).all()), bool(self.silent.any())

    def over(self, columns: Columns, like: Tensor) -> Float[Tensor, "batch pos rank"]:
        """Return the coefficient of each column of joined factors."""
        key = (columns, like.dtype, like.device)
        found = self._cast.get(key)
        if found is None:
            with torch.inference_mode(False):  # they outlive the call
                wide = self.c[:, :, columns.index.to(self.c.device)]
                found = self._cast[key] = wide.to(like.dtype).to(like.device)
        return found

    def quiet(self, like: Tensor) -> Bool[Tensor, "batch pos one"]:
        """Return where every coefficient is zero, on the device of a tensor."""
        key = (None, torch.bool, like.device)
        found = self._cast.get(key)
        if found is None:
            with torch.inference_mode(False):  # they outlive the call
                found = self._cast[key] = self.silent.to(like.device)
        return found

    def writes(self, c: Float[Tensor, "batch pos domain"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tensors in use, and their values at other coefficients."""
        fresh = Strength(c)
        for (columns, _, _), tensor in self._cast.items():
            yield tensor, fresh.silent if columns is None else fresh.over(columns, tensor)
        yield self.silent, fresh.silent
        yield self.c, c

    def spread(
        self, c: Float[Tensor, "batch pos rank"], shape: Sequence[int], position: int = 1
    ) -> Tensor:
        """Return coefficients that broadcast against a tensor with these leading dimensions.

        They are rows and tokens apart, tokens in dimension `position`, or both in one dimension.
        """
        call, (rows, places, width) = self.call, c.shape
        if rows == places == 1 or call is None:
            return c.reshape([1] * len(shape) + [width])
        if shape[0] == call.rows and len(shape) > 1:
            if places == 1:
                return c.reshape([rows] + [1] * (len(shape) - 1) + [width])
            if (kept := call.kept) is not None and shape[position] != call.length:
                c = c[:, kept]
            if shape[position] == c.shape[1]:
                between, after = [1] * (position - 1), [1] * (len(shape) - position - 1)
                return c.reshape([rows, *between, c.shape[1], *after, width])
        if shape[0] == call.rows * call.length:
            flat = c.expand(call.rows, call.length, width).reshape(-1, width)
            return flat.reshape([flat.shape[0]] + [1] * (len(shape) - 1) + [width])
        if len(shape) == 2 and shape[0] == 1 and position == 1:
            return c  # one row for all, as positional embeddings are: it becomes one per row
        raise CapabilityError(
            "a module's input does not tell which rows and tokens it holds",
            found=f"shape {tuple(shape)} in a call of {call.rows} rows of {call.length} tokens",
            expected="[batch, pos, …], or both in one dimension",
            do="steer with one setting for all rows and scope 'all', or merge: weights='merge'",
        )
