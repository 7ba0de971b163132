"""The settings merged into one model in memory, with a bit-exact way back."""

import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from steer.algebra import Term
from steer.errors import BusyModelError, MergeError
from steer.merge._parameters import Mark, check_disjoint, check_writable
from steer.merge._pristine import Pristine, Spill, secured
from steer.merge._rounding import rounded, rounded_blocks

Deltas = Sequence[tuple[str, Term, float]]

_LOCK = threading.Lock()
_MERGERS: "weakref.WeakKeyDictionary[nn.Module, Merger]" = weakref.WeakKeyDictionary()


def merger_of(model: nn.Module) -> "Merger":
    """Return the one merger of a model; it is created on first use.

    Args:
        model: The causal model, or a PEFT wrapper around it.
    """
    inner = getattr(model, "get_base_model", None)
    model = inner() if callable(inner) else model
    with _LOCK:
        merger = _MERGERS.get(model)
        if merger is None:
            merger = _MERGERS[model] = Merger(model)
        return merger


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

    Args:
        model: The causal model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._entries: dict[object, tuple[tuple[str, Term, float], ...]] = {}
        self._pristine: dict[str, Pristine] = {}
        self._marks: dict[str, Mark] = {}
        self._unfinished: set[str] = set()  # hold neither their setting nor pristine values
        self._owner: int | None = None
        self._lock = threading.Lock()

    @property
    def disk_bytes(self) -> int:
        """The current size in bytes of the temporary files that hold pristine weights."""
        spills = {id(p.source): p.source for p in self._pristine.values()}
        return sum(spill.size for spill in spills.values() if isinstance(spill, Spill))

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that hold merged values, including those that could not be restored."""
        return tuple(self._pristine)

    def enter(self, key: object, deltas: Deltas) -> None:
        """Merge a setting.

        Args:
            key: Identifies the setting for `update` and `leave`.
            deltas: Tuples of a parameter name, a term of its shape, and a coefficient; terms with
                the same name add up.

        Raises:
            MergeError: The key is in use, a parameter does not exist, cannot be written or was
                changed while it was merged, a term does not fit, or a sum exceeds the range of the
                parameter's dtype. The model is unchanged then.
            BusyModelError: Another thread has merged into this model.
        """
        with self._lock:
            self._claim()
            if key in self._entries:
                raise MergeError(
                    "this setting is merged already",
                    found=f"the key {key!r}",
                    expected="a key that is not in use",
                    do="call update, or leave first",
                )
            self._change(key, tuple(deltas))

    def update(self, key: object, deltas: Deltas) -> None:
        """Replace the deltas of a setting.

        Args:
            key: The key given to `enter`.
            deltas: As for `enter`.

        Raises:
            MergeError: As for `enter`, or there is no such key. The model is unchanged then.
            BusyModelError: As for `enter`.
        """
        with self._lock:
            self._claim()
            if key not in self._entries:
                raise MergeError(
                    "there is no such setting to update",
                    found=f"the key {key!r}",
                    expected=f"one of {list(self._entries)!r}",
                    do="call enter first",
                )
            self._change(key, tuple(deltas))

    def leave(self, key: object) -> None:
        """Take a setting out; does nothing if it is not merged or the model is gone.

        A parameter that was converted to another dtype meanwhile gets its pristine value in that
        dtype. Other writes to merged parameters are dropped with a warning.

        Args:
            key: The key given to `enter`.

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
            try:
                self._entries.pop(key)
                self._write(names)
            except MergeError:
                raise
            except BaseException:  # an interrupt: write again, then pass it on
                self._entries.pop(key, None)
                self._write(names)
                raise
            finally:
                self._release()
        if dropped:
            warnings.warn(_dropped(dropped), stacklevel=2)

    def check(self) -> None:
        """Refuse to continue if anyone else has changed a merged parameter.

        It reads values only where address or version changed, so it is cheap before every forward.

        Raises:
            MergeError: A merged parameter was written to, or converted.
        """
        touched = [name for name, mark in self._marks.items() if not mark.untouched]
        if touched:
            with self._lock:
                self._refuse_changed(touched)
                parameters = dict(self._alive().named_parameters())
                self._marks |= {name: Mark.of(parameters[name]) for name in touched}

    def _claim(self) -> None:
        me = threading.get_ident()
        if self._entries and self._owner != me:
            raise BusyModelError(
                "another thread has merged into this model",
                found=f"thread {self._owner}",
                expected="one thread per merged model",
                do="use one copy of the model per thread",
            )
        self._owner = me

    def _change(self, key: object, deltas: tuple[tuple[str, Term, float], ...]) -> None:
        """Replace one entry and rewrite its parameters; on any error, restore the state before."""
        before = self._entries.get(key)
        touched = _names((*(before or ()), *deltas))
        if deltas == before and self._unfinished.isdisjoint(touched):
            return
        self._refuse_changed(touched)
        try:
            self._secure(touched)
            self._entries[key] = deltas
            self._write(touched)
        except BaseException:
            self._entries.pop(key, None)
            if before is not None:
                self._entries[key] = before
            self._write([name for name in touched if name in self._pristine])
            raise
        finally:
            self._release()

    def _secure(self, names: Iterable[str]) -> None:
        """Save the values of parameters that are not merged yet."""
        model = self._alive()
        parameters = dict(model.named_parameters())
        new = [name for name in names if name not in self._pristine]
        check_writable(model, parameters, new)
        held = [name for name in self._pristine if name in parameters]
        check_disjoint({name: parameters[name] for name in (*held, *new)})
        self._pristine |= secured(model, {name: parameters[name] for name in new})

    def _write(self, names: Sequence[str]) -> None:
        """Write pristine values plus all entries; after all parameters, raise the first error."""
        parameters = dict(self._alive().named_parameters())
        errors = []
        self._unfinished.update(names)
        for name in names:
            try:
                self._write_one(name, parameters.get(name))
            except MergeError as error:
                errors.append(error)
            else:
                self._unfinished.discard(name)
        done = [name for name in names if name in parameters and name not in self._unfinished]
        self._marks |= {name: Mark.of(parameters[name]) for name in done}
        if errors:
            raise errors[0]

    def _changed(self, names: Iterable[str]) -> list[str]:
        """Return the parameters whose merged values anyone else has changed."""
        model = self._model()
        parameters = {} if model is None else dict(model.named_parameters())
        known = self._marks.keys() & self._pristine.keys() & parameters.keys()
        marked = [name for name in names if name in known]
        return [name for name in marked if not self._holds(name, parameters[name])]

    def _holds(self, name: str, parameter: Tensor) -> bool:
        """Return whether a parameter holds its merged values; after a write, compare all."""
        mark, pristine = self._marks[name], self._pristine[name].checked()
        if parameter.shape != pristine.shape or not mark.holds(parameter):
            return False
        if not mark.written(parameter):
            return True
        with torch.no_grad():
            expected = torch.empty_like(parameter, device="cpu")
            _fill(expected, pristine, self._deltas_at(name), name)
            return torch.equal(expected, parameter.detach().cpu())

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
        """Return the parameters with values that anyone else has written."""
        try:
            changed = self._changed(names)
        except MergeError:  # the unmerged weights are lost; restoring them raises
            return []
        get = self._alive().get_parameter
        return [name for name in changed if get(name).dtype == self._pristine[name].tensor.dtype]

    def _deltas_at(self, name: str) -> list[tuple[Term, float]]:
        entries = self._entries.values()
        return [(term, c) for own in entries for other, term, c in own if other == name]

    def _write_one(self, name: str, parameter: Tensor | None) -> None:
        pristine = self._pristine[name].checked()
        deltas = self._deltas_at(name)
        if (
            parameter is None
            or parameter.shape != pristine.shape
            or (deltas and parameter.dtype != pristine.dtype)
        ):
            raise _converted(name, parameter, pristine)
        with torch.inference_mode(parameter.is_inference()), torch.no_grad():
            _fill(parameter.detach(), pristine, deltas, name)

    def _release(self) -> None:
        """Drop pristine values that were restored and that no entry needs."""
        needed = {name for deltas in self._entries.values() for name, _, _ in deltas}
        needed |= self._unfinished
        self._pristine = {name: p for name, p in self._pristine.items() if name in needed}
        self._marks = {name: mark for name, mark in self._marks.items() if name in needed}

    def _alive(self) -> nn.Module:
        model = self._model()
        if model is None:
            raise MergeError(
                "the model is gone",
                found="a merger whose model was deleted",
                expected="a model that lives as long as its settings",
                do="keep a reference to the model",
            )
        return model


def _dropped(names: Sequence[str]) -> str:
    return (
        f"{len(names)} parameter(s), such as {names[0]}, were written to while they were merged. "
        "The writes are dropped and the unmerged values restored. To train a model while it is "
        "steered, use weights='hook', which leaves parameters unchanged."
    )


def _names(deltas: Iterable[tuple[str, Term, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _, _ in deltas))


def _fill(
    parameter: Tensor, pristine: Tensor, deltas: Sequence[tuple[Term, float]], name: str
) -> None:
    """Write pristine values plus deltas into a parameter, block by block if it is contiguous."""
    if not any(coefficient for _, coefficient in deltas):
        parameter.copy_(pristine)
    elif parameter.is_contiguous():
        flat = parameter.view(-1)
        for start, block in rounded_blocks(pristine, deltas, name=name):
            flat[start : start + len(block)].copy_(block)
    else:
        parameter.copy_(rounded(pristine, deltas, name=name))


def _converted(name: str, parameter: Tensor | None, pristine: Tensor) -> MergeError:
    here = "no such parameter"
    if parameter is not None:
        here = f"shape {tuple(parameter.shape)}, {parameter.dtype}"
    return MergeError(
        f"{name}: the model was changed while it was merged",
        found=here,
        expected=f"shape {tuple(pristine.shape)}, {pristine.dtype}",
        do="convert or resize the model before merging, or load it again",
    )
