"""A thread that does the latest thing wanted, and runs only while there is something to do."""

import atexit
import threading
import weakref
from collections.abc import Callable

from steer.console._state import State

Run = Callable[[State, Callable[[], State | None]], None]
_WORKERS: "weakref.WeakSet[Worker]" = weakref.WeakSet()


class Worker:
    """Runs the last state asked for; asking again ends the one under way.

    `run` gets a state and a function that returns the one wanted now, and returns soon once that
    is another. `failed` gets a state that raised, and the error.
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
        """Want a state in place of the one wanted before."""
        with self._lock:
            self._wanted = state
            if not self._working:
                thread = threading.Thread(target=self._work, name="steer-console", daemon=True)
                thread.start()  # it waits for the lock
                self._working, self._thread = True, thread

    def wait(self) -> None:
        """Return when there is nothing left to do; the worker's own thread does not wait."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def close(self) -> None:
        """End the state under way, and return when it has ended."""
        with self._lock:
            self._wanted = None
        self.wait()

    def _work(self) -> None:
        try:
            self._until_done()
        except BaseException:  # showing an error failed: the next question starts a new thread
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
    """Close all workers: a thread inside a model aborts an interpreter that exits."""
    for worker in list(_WORKERS):
        worker.close()
