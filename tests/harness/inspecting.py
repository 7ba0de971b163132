"""What tests that run Inspect share."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INSPECTS_OWN = [  # warnings of Inspect itself: streams left open, an old name of a parameter
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning"),
]


@contextmanager
def inspecting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have Inspect write its logs, traces and caches below a folder, and collect what it leaves."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(folder / "home"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(folder / "logs"))
    yield
    gc.collect()
