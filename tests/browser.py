"""Headless Chromium for the tests that look at a page.

Needs playwright, and Chromium: Debian's package, or the file that `STEER_CHROMIUM` names.
Where one is missing these tests are skipped, unless `STEER_BROWSER=required` is set.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

REQUIRED = os.environ.get("STEER_BROWSER") == "required"


def missing(what: str) -> NoReturn:
    """Skip a test, or fail it where it must not be skipped."""
    if REQUIRED:
        pytest.fail(f"{what}, and STEER_BROWSER=required is set")
    pytest.skip(what)


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install playwright")
    program = os.environ.get("STEER_CHROMIUM") or shutil.which("chromium")
    if program is None:
        missing("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], timeout=180_000
        )
        try:
            yield started
        finally:
            started.close()
