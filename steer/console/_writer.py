"""Writes the texts of a console: the unsteered one once for each prompt, the steered one anew."""

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import nn

from steer.algebra import Composition
from steer.console._state import State
from steer.engine._patches import unwrapped
from steer.model import Model, stream
from steer.model._batch import redirect_warnings

_LOOK = 0.1  # seconds between checks of a waiting console on whether it is still wanted
_LOCK = threading.Lock()
_TURNS: "weakref.WeakKeyDictionary[nn.Module, threading.Lock]" = weakref.WeakKeyDictionary()

Show = Callable[[State], object]
Wanted = Callable[[], State | None]


class Writer:
    """Answers prompts with one model, one at a time, also where several consoles share it.

    The thread that writes enters and leaves the steered context; between answers the model is
    untouched. The unsteered text is written in that context too, with all coefficients at 0: it
    equals the model's own bit for bit, and a model that another thread steers is noticed.
    """

    def __init__(self, lm: Model, composition: Composition, *, strict: bool = True) -> None:
        self.lm = lm
        self.composition = composition
        self._handle = lm.steered(composition, strict=strict)  # checks the fit once
        self._last: State | None = None  # whose unsteered text is written
        model = unwrapped(lm.architecture.model)
        with _LOCK:
            self._turn = _TURNS.setdefault(model, threading.Lock())

    def run(self, state: State, show: Show, wanted: Wanted) -> None:
        """Answer the prompt of a state, and show every state on the way.

        Where `wanted` returns another setting of the same prompt the steered text ends, where it
        returns another prompt both do.

        Raises:
            BusyModelError: Another thread is steering this model.
        """
        if not state.prompt.strip():
            show(state)
            return
        if not self._turn.acquire(blocking=False):
            show(replace(state, doing="waiting"))
            while not self._turn.acquire(timeout=_LOOK):
                if wanted() is not state:
                    return
        try:
            if (begun := self._unsteered(state, show, wanted)) is not None:
                self._steered(begun, show, lambda: wanted() is state)
        finally:
            self._turn.release()

    def _unsteered(self, state: State, show: Show, wanted: Wanted) -> State | None:
        """Return the state with its unsteered text, or None if another prompt is wanted."""

        def stale() -> bool:
            now = wanted()
            return now is None or now.question != state.question

        if stale():
            return None
        if self._last is None or self._last.question != state.question:
            zero = dict.fromkeys(state.coefficients, 0.0)
            notes: list[str] = []

            def grown(text: str) -> None:
                show(replace(state, unsteered=text, note="\n".join(notes), doing="unsteered"))

            with redirect_warnings(notes.append):
                text = self._stream(state, zero, grown, stale)
            if stale():
                return None
            self._last = replace(state, unsteered=text, note="\n".join(notes))
        return replace(state, unsteered=self._last.unsteered, note=self._last.note)

    def _steered(self, state: State, show: Show, still: Callable[[], bool]) -> None:
        def grown(text: str) -> None:
            show(replace(state, steered=text, doing="steered"))

        text = state.unsteered
        if still() and any(state.coefficients.values()):
            with redirect_warnings(lambda _: None):  # the note is there from the unsteered text
                text = self._stream(state, state.coefficients, grown, lambda: not still())
        if still():
            show(replace(state, steered=text, doing="done"))

    def _stream(
        self,
        state: State,
        coefficients: Mapping[str, float],
        grown: Callable[[str], object],
        stop: Callable[[], bool],
    ) -> str:
        with self._handle.update(coefficients):
            return stream(
                self.lm, state.prompt, grown, stop=stop, max_new_tokens=state.max_new_tokens
            )
