"""The merged settings of one model in memory, with a way back that is exact to the bit."""

import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from steer.algebra import Term
from steer.errors import BusyModelError, MergeError
from steer.merge._marks import Mark
from steer.merge._memory import check_disjoint, check_writable
from steer.merge._pristine import Pristine, Spill, secured
from steer.merge._rounding import rounded, rounded_blocks
from steer.merge._scratch import Scratch

Deltas = Sequence[tuple[str, Term, float]]

_LOCK = threading.Lock()
_MERGERS: "weakref.WeakKeyDictionary[nn.Module, Merger]" = weakref.WeakKeyDictionary()


def merger_of(model: nn.Module) -> "Merger":
    """Return the one merger of a model, made on first use.

    Args:
        model: The causal model; of an adapter's wrapper, the model inside it is meant.
    """
    inner = getattr(model, "get_base_model", None)
    model = inner() if callable(inner) else model
    with _LOCK:
        merger = _MERGERS.get(model)
        if merger is None:
            merger = _MERGERS[model] = Merger(model)
        return merger


class Merger:
    """Writes weight vectors into a model's parameters, and takes them out again.

    Whatever is entered, updated or left, a parameter is always computed anew from its pristine
    value and all settings active at that moment, in the order of entry:
    `round(W + Σ λ Δ)`, see `rounded`. When the last setting on a parameter leaves, its pristine
    bits are copied back. Parameters are written in place: names, objects and storage stay, tied
    ones change at every use, and the version counters of autograd count the writes.

    Pristine values are views of mapped files: of the checkpoint that the model was loaded from,
    where its bits are the parameter's, else of a temporary file.

    What somebody else writes to a merged parameter (an optimizer, a conversion) belongs neither to
    the pristine value nor to a setting. It is refused at the next change or `check`, and a warning
    says that it is dropped where the last setting leaves.

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
        """The size of the temporary files that hold pristine weights at this moment, in bytes."""
        spills = {id(p.source): p.source for p in self._pristine.values()}
        return sum(spill.size for spill in spills.values() if isinstance(spill, Spill))

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that hold merged values now, also those that could not be put back."""
        return tuple(self._pristine)

    def enter(self, key: object, deltas: Deltas) -> None:
        """Merge a setting.

        Args:
            key: What `update` and `leave` will call it by.
            deltas: Parameter name, term of the parameter's shape, and coefficient; terms at one
                name add up.

        Raises:
            MergeError: The key is in use, a parameter does not exist or cannot be written, was
                changed while it was merged, a term does not fit, or a sum exceeds the parameter's
                dtype. Nothing has changed then.
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
        """Put another setting in place of one that was entered.

        Args:
            key: The key given to `enter`.
            deltas: As for `enter`.

        Raises:
            MergeError: As for `enter`, or there is no such key. Nothing has changed then.
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
        """Take a setting out again; nothing happens if it is not merged, or the model is gone.

        Args:
            key: The key given to `enter`.

        A parameter that was converted to another dtype meanwhile gets its pristine value in that
        dtype: what it would hold, had the model been converted unmerged. Whatever else was
        written to merged parameters is dropped, and a warning says so.

        Raises:
            MergeError: The pristine weights were lost, since their checkpoint was written to, or
                a parameter was resized or removed meanwhile, or was converted while other
                settings are merged into it, or these exceed its dtype alone. All other parameters
                are put back, and `names` keeps those that are not.
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
            except BaseException:  # what was interrupted is done again
                self._entries.pop(key, None)
                self._write(names)
                raise
            finally:
                self._release()
        if dropped:
            warnings.warn(_dropped(dropped), stacklevel=2)

    def check(self) -> None:
        """Refuse to go on if merged values were changed by somebody else.

        It reads no numbers where nothing shows that they were, so that it may be called before
        every forward.

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
        """Set one entry, and bring the parameters in line; on any error all is as before."""
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
        """Keep the pristine values of parameters that hold them still."""
        model = self._alive()
        parameters = dict(model.named_parameters())
        new = [name for name in names if name not in self._pristine]
        check_writable(model, parameters, new)
        held = [name for name in self._pristine if name in parameters]
        check_disjoint({name: parameters[name] for name in (*held, *new)})
        self._pristine |= secured(model, {name: parameters[name] for name in new})

    def _write(self, names: Sequence[str]) -> None:
        """Compute parameters from their pristine values and what is entered now.

        One that cannot be computed keeps none of the others from it; the first error is raised.
        """
        parameters, scratch = dict(self._alive().named_parameters()), Scratch()
        errors = []
        self._unfinished.update(names)
        for name in names:
            try:
                self._write_one(name, parameters.get(name), scratch)
            except MergeError as error:
                errors.append(error)
            else:
                self._unfinished.discard(name)
        done = [name for name in names if name in parameters and name not in self._unfinished]
        self._marks |= {name: Mark.of(parameters[name]) for name in done}
        if errors:
            raise errors[0]

    def _changed(self, names: Iterable[str]) -> list[str]:
        """Return the parameters whose merged values were changed by somebody else."""
        model = self._model()
        parameters = {} if model is None else dict(model.named_parameters())
        known = self._marks.keys() & self._pristine.keys() & parameters.keys()
        marked = [name for name in names if name in known]
        return [name for name in marked if not self._holds(name, parameters[name])]

    def _holds(self, name: str, parameter: Tensor) -> bool:
        """Return whether a parameter holds what was merged; all of it is compared if in doubt."""
        mark, pristine = self._marks[name], self._pristine[name].checked()
        if parameter.shape != pristine.shape or not mark.holds(parameter):
            return False
        if not mark.written(parameter):
            return True
        with torch.no_grad():
            expected = torch.empty_like(parameter, device="cpu")
            _fill(expected, pristine, self._deltas_at(name), name, Scratch())
            return torch.equal(expected, parameter.detach().cpu())

    def _refuse_changed(self, names: Iterable[str]) -> None:
        if changed := self._changed(names):
            raise MergeError(
                f"{changed[0]}: the model was changed while it was merged",
                found=f"{len(changed)} merged parameter(s) with other values: trained, converted, "
                "or loaded",
                expected="merged parameters that nothing else writes to",
                do="leave the context before training, converting or loading the model; to train "
                "while it is steered, use weights='hook', which writes to no parameter",
            )

    def _foreign(self, names: Iterable[str]) -> list[str]:
        """Return the parameters that hold what was written to them by somebody else."""
        try:
            changed = self._changed(names)
        except MergeError:  # the unmerged weights are lost, as putting them back will say
            return []
        get = self._alive().get_parameter
        return [name for name in changed if get(name).dtype == self._pristine[name].tensor.dtype]

    def _deltas_at(self, name: str) -> list[tuple[Term, float]]:
        entries = self._entries.values()
        return [(term, c) for own in entries for other, term, c in own if other == name]

    def _write_one(self, name: str, parameter: Tensor | None, scratch: Scratch) -> None:
        pristine = self._pristine[name].checked()
        deltas = self._deltas_at(name)
        if (
            parameter is None
            or parameter.shape != pristine.shape
            or (deltas and parameter.dtype != pristine.dtype)
        ):
            raise _converted(name, parameter, pristine)
        with torch.inference_mode(parameter.is_inference()), torch.no_grad():
            _fill(parameter.detach(), pristine, deltas, name, scratch)

    def _release(self) -> None:
        """Let go of pristine values that no entry needs and that were put back."""
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
        f"{len(names)} parameter(s), such as {names[0]}, were written to while they were merged; "
        "that is dropped, and the unmerged values stand in their place. To train a model while it "
        "is steered, use weights='hook', which writes to no parameter."
    )


def _names(deltas: Iterable[tuple[str, Term, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _, _ in deltas))


def _fill(
    parameter: Tensor,
    pristine: Tensor,
    deltas: Sequence[tuple[Term, float]],
    name: str,
    scratch: Scratch,
) -> None:
    """Write pristine values plus deltas into a parameter, block by block where it has no gaps."""
    if not any(coefficient for _, coefficient in deltas):
        parameter.copy_(pristine)
    elif parameter.is_contiguous():
        flat = parameter.view(-1)
        for start, block in rounded_blocks(pristine, deltas, name=name, scratch=scratch):
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
        do="convert or resize a model before merging, or load it again",
    )
