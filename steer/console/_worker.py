"""A thread that does the latest thing wanted, and is there only while there is something to do."""

import atexit
import threading
import weakref
from collections.abc import Callable

from steer.console._state import State

Run = Callable[[State, Callable[[], State | None]], None]
_WORKERS: "weakref.WeakSet[Worker]" = weakref.WeakSet()


class Worker:
    """Runs what was asked for last; asking again ends what is under way.

    Args:
        run: Does one thing; told what is wanted now, it returns soon once that is another.
        failed: Takes what could not be done and why.
    """

    def __init__(self, run: Run, failed: Callable[[State, Exception], None]) -> None:
        self._run = run
        self._failed = failed
        self._lock = threading.Lock()
        self._wanted: State | None = None
        self._working = False
        self._thread: threading.Thread | None = None  # the last one
        _WORKERS.add(self)

    def ask(self, state: State) -> None:
        """Want something, in place of what was wanted before.

        Args:
            state: What is wanted.
        """
        with self._lock:
            self._wanted = state
            if not self._working:
                thread = threading.Thread(target=self._work, name="steer-console", daemon=True)
                thread.start()  # it waits for the lock
                self._working, self._thread = True, thread

    def wait(self) -> None:
        """Return when there is nothing left to do; the worker itself does not wait."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def close(self) -> None:
        """End what is under way, and return when it has ended."""
        with self._lock:
            self._wanted = None
        self.wait()

    def _work(self) -> None:
        try:
            self._until_done()
        except BaseException:  # what shows an error failed itself: the next question starts anew
            with self._lock:
                self._working = False
            raise

    def _until_done(self) -> None:
        done: State | None = None
        while True:
            with self._lock:
                state = self._wanted
                if state is None or state is done:
                    self._working = False
                    return
            try:
                self._run(state, lambda: self._wanted)
            except Exception as error:  # noqa: BLE001  # shown in the console
                self._failed(state, error)
            done = state


@atexit.register
def _end() -> None:
    """End what is under way: a thread that is in a model when the interpreter goes aborts it."""
    for worker in list(_WORKERS):
        worker.close()
