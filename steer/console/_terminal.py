"""The console in a terminal, or through a pipe."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from steer.console._lines import COMMANDS, Turned, read_line
from steer.console._state import State
from steer.console._writer import Show, Writer
from steer.errors import SteerError
from steer.show._markup import terminal_text

_HINT = "Ask something, or turn a knob. /help says how, /quit ends."


class Terminal:
    """A dialogue that begins at a state and shows its texts on a console of rich."""

    def __init__(self, writer: Writer, state: State, console: Console) -> None:
        self._writer = writer
        self._state = state
        self._console = console

    def run(self) -> None:
        """Read and answer lines until the input ends."""
        if self._console.is_terminal:
            self._say(_HINT)
        self._knobs()
        first = [f"/ask {self._state.prompt}"] if self._state.prompt.strip() else []
        while True:
            try:
                line = first.pop() if first else _line()
                if line is None or self._take(line):
                    return
            except KeyboardInterrupt:
                if not _typed():
                    raise
                self._say("")
            except SteerError as error:
                self._say(f"{type(error).__name__}: {error}", style="red")

    def _take(self, line: str) -> bool:
        """Do what a line says; return whether it ends the console."""
        match read_line(line, list(self._state.coefficients)):
            case "ask", str(prompt) if prompt:
                state = self._state
                self._state = State(prompt, state.coefficients, state.max_new_tokens)
                self._answer()
            case "turn", dict(turned):
                self._turn(turned)
            case "reset", _:
                self._turn(dict.fromkeys(self._state.coefficients, 0.0))
            case "knobs", _:
                self._knobs()
            case "help", _:
                self._help()
            case "quit", _:
                return True
        return False

    def _turn(self, turned: Turned) -> None:
        coefficients = {**self._state.coefficients, **turned}
        self._writer.composition(coefficients)  # raises where one cannot be used
        self._state = replace(self._state, coefficients=coefficients)
        self._knobs()
        if self._state.prompt.strip():
            self._answer()

    def _answer(self) -> None:
        """Answer the prompt; Ctrl-C stops it."""
        state = replace(self._state, unsteered="", steered="", doing="nothing")
        shown = self._state.doing == "done"  # the unsteered text stands there
        on = self._console
        pane = _side_by_side(on) if on.is_terminal else _one_after_the_other(on, shown)
        with _interruptible() as stopped, pane as draw:

            def show(now: State) -> None:
                if now.note and now.note != self._state.note:
                    self._say(now.note, style="yellow")
                self._state = now
                draw(now)

            self._writer.run(state, show, lambda: None if stopped() else state)
        if stopped():
            self._say("stopped", style="yellow")

    def _knobs(self) -> None:
        knobs = "  ".join(f"{d}={c:+g}" for d, c in self._state.coefficients.items())
        self._say(f"knobs: {knobs}", style="bold")

    def _help(self) -> None:
        first = next(iter(self._state.coefficients))
        rows = {"TEXT": "ask", f"{first}=0.5 …": "turn knobs; those not named stay", **COMMANDS}
        for name, does in (rows | {"Ctrl-C": "stop the answer"}).items():
            self._say(f"  {name:<18} {does}")

    def _say(self, text: str, **options: Any) -> None:
        self._console.print(
            terminal_text(text), markup=False, highlight=False, soft_wrap=True, **options
        )


def _line() -> str | None:
    """Return the next line of standard input, edited by readline where a person types."""
    if not _typed():
        return (sys.stdin and sys.stdin.readline()) or None  # a process may have no input at all
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401  # gives `input` its keys and its history
    try:
        return input("> ")
    except EOFError:
        sys.stdout.write("\n")
        return None


def _typed() -> bool:
    """Return whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C, so that an answer ends where it can; a second one interrupts."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _side_by_side(console: Console) -> Iterator[Show]:
    """Draw both texts side by side on a terminal, again for every token."""
    with Live(console=console, auto_refresh=False) as live:

        def show(state: State) -> None:
            grid = Table.grid(expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(
                _panel("unsteered", state.unsteered, "none"),
                _panel("steered", state.steered, "cyan"),
            )
            live.update(grid, refresh=True)

        yield show


def _panel(title: str, text: str, style: str) -> Panel:
    return Panel(Text(terminal_text(text)), title=title, title_align="left", style=style)


@contextmanager
def _one_after_the_other(console: Console, shown: bool) -> Iterator[Show]:
    """Write each text as it grows, to anything but a terminal; an unsteered one only if new."""
    file = console.file
    name = written = ""

    def grow(which: str, text: str) -> None:
        nonlocal name, written
        text = terminal_text(text)
        if which != name or not text.startswith(written):
            file.write(f"\n{which}: " if name else f"{which}: ")
            name, written = which, ""
        file.write(text[len(written) :])
        file.flush()
        written = text

    def show(state: State) -> None:
        nonlocal shown
        if not shown:
            grow("unsteered", state.unsteered)
        if state.steered or state.doing == "done":
            shown = True
            grow("steered", state.steered)

    try:
        yield show
    finally:
        if name:
            file.write("\n")
            file.flush()
