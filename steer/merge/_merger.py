"""The settings merged into one model in memory, with a bit-exact way back."""

import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence

from torch import nn

from steer.algebra import Term
from steer.errors import MergeError
from steer.merge._parameters import Merged, check_disjoint, check_writable
from steer.merge._pristine import secured

Deltas = Sequence[tuple[str, Term, float]]

_LOCK = threading.Lock()
_MERGERS: "weakref.WeakKeyDictionary[nn.Module, Merger]" = weakref.WeakKeyDictionary()


def merger_of(model: nn.Module) -> "Merger":
    """Return the one merger of a causal model, inside a PEFT wrapper or not; made on first use."""
    inner = getattr(model, "get_base_model", None)
    model = inner() if callable(inner) else model
    with _LOCK:
        return _MERGERS.get(model) or _MERGERS.setdefault(model, Merger(model))


class Merger:
    """Writes weight vectors into the parameters of a model, and takes them out again.

    After every change, a parameter is computed from its pristine value and all settings that are
    active, in the order of entry: W + Σ λ Δ in float64, cast once to its dtype. When the last
    setting on a parameter leaves, its pristine bits are copied back. Parameters are written in
    place: names, objects and storage stay, tied weights change at every use, and the version
    counters of autograd count the writes.

    Pristine values are views of mapped files: of the checkpoint that the model was loaded from if
    it has the same bits, else of a temporary file.

    A write by anyone else to a merged parameter (an optimizer, a conversion) belongs neither to the
    pristine value nor to a setting. The next change or `check` refuses it; when the last setting
    leaves, it is dropped with a warning.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._entries: dict[object, Deltas] = {}
        self._merged: dict[str, Merged] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that hold merged values, including those that could not be restored."""
        return tuple(self._merged)

    def merge(self, key: object, deltas: Deltas) -> None:
        """Merge a setting: terms by parameter name; those of an earlier one of this key go.

        Raises:
            MergeError: A parameter does not exist, cannot be written or was changed while it was
                merged, a term does not fit, or a sum exceeds the range of the parameter's dtype.
                The model is unchanged then.
        """
        deltas = tuple(deltas)
        with self._lock:
            before = self._entries.get(key, ())
            touched = _names((*before, *deltas))
            unfinished = any(m.unfinished for n, m in self._merged.items() if n in touched)
            if deltas == before and not unfinished:
                return
            self._refuse_changed(touched)
            try:
                self._secure(touched)
                self._entries[key] = deltas
                self._write(touched)
            except BaseException:
                self._entries[key] = before
                self._write([name for name in touched if name in self._merged])
                raise
            finally:
                self._release()

    def leave(self, key: object) -> None:
        """Take a setting out; does nothing if it is not merged or the model is gone.

        A parameter that was converted to another dtype meanwhile gets its pristine value in that
        dtype. Other writes to merged parameters are dropped with a warning.

        Raises:
            MergeError: The checkpoint with the pristine weights was written to, or a parameter was
                resized or removed meanwhile, or was converted while other settings are merged into
                it, or those settings alone exceed the range of its dtype. All other parameters
                are restored, and `names` keeps those that are not.
        """
        with self._lock:
            if key not in self._entries or self._model() is None:
                return
            names = _names(self._entries[key])
            dropped = self._foreign(names)
            del self._entries[key]
            try:
                self._write(names)
            except MergeError:
                raise
            except BaseException:  # an interrupt: write again, then pass it on
                self._write(names)
                raise
            finally:
                self._release()
        if dropped:
            warnings.warn(
                f"{len(dropped)} parameter(s), such as {dropped[0]}, were written to while they "
                "were merged. The writes are dropped and the unmerged values restored. To train a "
                "model while it is steered, use weights='hook', which leaves parameters unchanged.",
                stacklevel=2,
            )

    def check(self) -> None:
        """Refuse to continue if anyone else has changed a merged parameter.

        It reads values only where address or version changed, so it is cheap before every forward.
        """
        touched = [name for name, merged in self._merged.items() if not merged.untouched]
        if touched:
            with self._lock:
                self._refuse_changed(touched)
                parameters = self._parameters()
                for name in touched:
                    self._merged[name].note(parameters[name])

    def _parameters(self) -> dict[str, nn.Parameter]:
        model = self._model()
        return {} if model is None else dict(model.named_parameters())

    def _secure(self, names: Iterable[str]) -> None:
        """Save the values of parameters that are not merged yet."""
        parameters = self._parameters()
        names = [name for name in names if name not in self._merged]
        check_writable(parameters, names)
        check_disjoint({n: p for n, p in parameters.items() if n in self._merged or n in names})
        for name, pristine in secured(self._model(), {n: parameters[n] for n in names}).items():
            self._merged[name] = Merged(name, pristine, parameters[name])

    def _write(self, names: Sequence[str]) -> None:
        """Write pristine values plus all entries; after all parameters, raise the first error."""
        parameters = self._parameters()
        errors = []
        for name in names:
            self._merged[name].unfinished = True
        for name in names:
            try:
                self._merged[name].write(parameters.get(name), self._added_to(name))
            except MergeError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _changed(self, names: Iterable[str]) -> list[str]:
        """Return the parameters whose merged values anyone else has changed."""
        parameters = self._parameters()
        known = [name for name in names if name in self._merged and name in parameters]
        return [
            name
            for name in known
            if self._merged[name].changed(parameters[name], self._added_to(name))
        ]

    def _refuse_changed(self, names: Iterable[str]) -> None:
        if changed := self._changed(names):
            raise MergeError(
                f"{changed[0]}: the model was changed while it was merged",
                found=f"{len(changed)} merged parameter(s) with other values: trained, converted, "
                "or loaded",
                expected="merged parameters that nothing else writes to",
                do="leave the context before training, converting or loading the model; to train "
                "while it is steered, use weights='hook', which leaves parameters unchanged",
            )

    def _foreign(self, names: Iterable[str]) -> list[str]:
        """Return the parameters with values of their own dtype that anyone else has written."""
        try:
            changed = self._changed(names)
        except MergeError:  # the unmerged weights are lost; restoring them raises
            return []
        parameters = self._parameters()
        return [n for n in changed if parameters[n].dtype == self._merged[n].pristine.tensor.dtype]

    def _added_to(self, name: str) -> list[tuple[Term, float]]:
        entries = self._entries.values()
        return [(term, c) for own in entries for other, term, c in own if other == name]

    def _release(self) -> None:
        """Drop pristine values that were restored and that no entry needs."""
        self._entries = {key: deltas for key, deltas in self._entries.items() if deltas}
        needed = {name for deltas in self._entries.values() for name, _, _ in deltas}
        self._merged = {n: m for n, m in self._merged.items() if n in needed or m.unfinished}


def _names(deltas: Iterable[tuple[str, Term, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _, _ in deltas))
