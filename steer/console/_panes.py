"""The two texts in a terminal while they grow; each is a context that yields `show(state)`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from steer.console._state import State
from steer.show._markup import terminal_text

Show = Callable[[State], None]


@contextmanager
def side_by_side(console: Console) -> Iterator[Show]:
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
def one_after_the_other(console: Console, shown: bool) -> Iterator[Show]:
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
