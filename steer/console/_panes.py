"""Where a terminal shows the two texts while they grow."""

from types import TracebackType

from rich.console import Console
from rich.live import Live as RichLive
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from steer.console._state import State
from steer.show._markup import terminal_text


class Live:
    """Both texts side by side, drawn anew for every token.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = RichLive(console=console, auto_refresh=False)

    def __enter__(self) -> "Live":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, state: State) -> None:
        """Draw both texts.

        Args:
            state: What to show.
        """
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(
            Panel(Text(terminal_text(state.unsteered)), title="unsteered", title_align="left"),
            Panel(
                Text(terminal_text(state.steered)),
                title="steered",
                title_align="left",
                style="cyan",
            ),
        )
        self._live.update(grid, refresh=True)


class Plain:
    """One text after the other, as it grows, for what is no terminal.

    Args:
        console: Where to write.
        shown: Whether the unsteered text stands there already.
    """

    def __init__(self, console: Console, shown: bool) -> None:
        self._file = console.file
        self._shown = shown
        self._name = ""
        self._written = ""

    def __enter__(self) -> "Plain":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def show(self, state: State) -> None:
        """Write what has grown.

        Args:
            state: What to show.
        """
        if not self._shown:
            self._grow("unsteered", state.unsteered)
        if state.steered or state.doing == "done":
            self._shown = True
            self._grow("steered", state.steered)

    def _grow(self, name: str, text: str) -> None:
        text = terminal_text(text)
        if name != self._name or not text.startswith(self._written):
            self._end()
            self._file.write(f"{name}: ")
            self._name, self._written = name, ""
        self._file.write(text[len(self._written) :])
        self._file.flush()
        self._written = text

    def _end(self) -> None:
        if self._name:
            self._file.write("\n")
            self._file.flush()
