"""Running the command line in this process."""

import contextlib
import io
import sys

import pytest

from steer.cli import main


def steer(
    *arguments: str, stdin: str | bytes | None = "", columns: int = 100
) -> tuple[int, str, str]:
    """Run the command line in this process: status, standard output, standard error."""
    typed: io.TextIOBase | None = io.StringIO(stdin) if isinstance(stdin, str) else None
    if isinstance(stdin, bytes):
        typed = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["steer", *arguments])
        patch.setattr(sys, "stdin", typed)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("NO_COLOR", "1")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code
            else:
                code = 0
    status = code if isinstance(code, int) else int(code is not None)
    return status, out.getvalue(), err.getvalue()
