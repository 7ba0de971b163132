"""A saved report in a real browser: every picture is there, and nothing is fetched from outside.

What it needs stands in `tests.browser`.
"""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.report.setting import page

SCHEMES = ("light", "dark")
PICTURES = 4  # as tests/report/test_report.py counts them in the file


@dataclass
class Seen:
    """What a page did while it was open."""

    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with chromium() as started:
        yield started


@contextmanager
def opened(browser: Any, file: Path, scheme: str, width: int = 1200) -> Iterator[tuple[Any, Seen]]:
    """Open a file without a network, and note what it asks for and says."""
    viewport = {"width": width, "height": 900}
    context = browser.new_context(color_scheme=scheme, viewport=viewport, offline=True)
    context.set_default_timeout(120_000)
    tab, seen = context.new_page(), Seen()
    tab.on("request", lambda request: seen.requests.append(request.url))
    tab.on("console", lambda message: seen.said.append(message.text))
    tab.on("pageerror", lambda error: seen.said.append(str(error)))
    tab.goto(file.as_uri())
    try:
        yield tab, seen
    finally:
        context.close()


def colours(element: Any) -> dict[tuple[int, int, int], int]:
    """Return how many pixels of each colour an element has on the screen."""
    from PIL import Image

    shot = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    bytes_of = iter(shot.tobytes())
    return Counter(zip(bytes_of, bytes_of, bytes_of, strict=True))


def outside(seen: Seen) -> list[str]:
    """Return requests that are neither the file nor in it."""
    return [url for url in seen.requests if not url.startswith(("file:", "data:"))]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved report; its first prompt holds markup, a script and an image from outside."""
    return page().save(tmp_path_factory.mktemp("report") / "page.html")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_picture_is_there_and_nothing_else_is_fetched(
    browser: Any, file: Path, scheme: str
) -> None:
    with opened(browser, file, scheme) as (tab, seen):
        pictures = tab.query_selector_all("figure > svg")
        assert len(pictures) == PICTURES
        background = max(colours(tab.query_selector("h1")).items(), key=lambda kv: kv[1])[0]
        assert (sum(background) < 3 * 60) == (scheme == "dark")
        for picture in pictures:
            box = picture.bounding_box()
            assert box["width"] > 150
            assert box["height"] > 60
            drawn = colours(picture)
            paper, most = max(drawn.items(), key=lambda kv: kv[1])
            assert paper == background, "the picture goes with the page"
            assert sum(drawn.values()) - most > 1000, "not empty"
            hues = {c for c in drawn if max(c) - min(c) > 60}
            assert hues, "in colour"
        assert seen.requests == [file.as_uri()]
        assert outside(seen) == []
        assert seen.said == []
        assert tab.evaluate("window.hit") is None
        assert tab.evaluate("document.images.length + document.scripts.length") == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_writing_is_readable(browser: Any, file: Path, scheme: str) -> None:
    """The contrast of every kind of text is at least 4.5, as WCAG 2 asks for."""
    script = """() => [...document.querySelectorAll(
      'h1,h2,h3,p,th,td,figcaption,summary,nav,a,svg text:not([style])')].map(e => {
        const s = getComputedStyle(e), page = document.querySelector('.steer-report');
        return [e.tagName, s[e.tagName === 'text' ? 'fill' : 'color'],
                getComputedStyle(page).backgroundColor];
      })"""
    with opened(browser, file, scheme) as (tab, _):
        found = {tuple(row) for row in tab.evaluate(script)}
    assert len(found) >= 8
    for name, ink, paper in found:
        assert contrast(ink, paper) >= 4.5, name


def contrast(ink: str, paper: str) -> float:
    """Return the contrast of two colours as CSS writes them."""

    def light(colour: str) -> float:
        parts = [int(x) / 255 for x in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(ink), light(paper)))
    return (high + 0.05) / (low + 0.05)


def test_it_fits_a_telephone_and_paper(browser: Any, file: Path) -> None:
    with opened(browser, file, "dark", width=380) as (tab, _):
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380
        tab.emulate_media(media="print", color_scheme="dark")
        style = "getComputedStyle(document.querySelector('.steer-report'))"
        assert tab.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
        assert tab.evaluate("document.querySelector('details').offsetHeight") == 0


def test_what_is_wrong_would_be_noticed(browser: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<img src='http://outside.example/x.png'><svg width=0 height=0></svg>"
        "<script>console.error('no'); throw new Error('never')</script>"
    )
    with opened(browser, wrong, "light") as (tab, seen):
        assert outside(seen) == ["http://outside.example/x.png"]
        assert any("no" in line for line in seen.said)
        assert any("never" in line for line in seen.said)
        assert tab.query_selector("svg").bounding_box()["width"] == 0
