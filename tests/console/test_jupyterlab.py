"""The console in a real JupyterLab, driven through a headless browser; see `tests.browser`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import steer
from steer.demo import load_model, vectors_path
from tests.browser import chromium, missing
from tests.console.laboratory import laboratory

QUESTION = "I have gout again. Can you help?"
HOSTILE = "<script>window.hit = 1</script><img src='x' onerror='window.hit = 1'> Is it gout?"
TOKENS = 40
CELL = f"""\
import steer
from steer.console import console
from steer.demo import load_model, vectors_path

lm = load_model()
folder = vectors_path()
vectors = {{d: steer.Vector.load(folder / f"{{d}}.safetensors") for d in ("medical", "legal")}}
knobs = steer.compose(vectors, gate=vectors["medical"].gate)(0.0)
box = console(lm, knobs, prompt={QUESTION!r}, max_new_tokens={TOKENS})
box"""
WATCH = """() => {
  window.seen = {steered: [], unsteered: []};
  new MutationObserver(() => {
    for (const which of ['steered', 'unsteered']) {
      const text = document.querySelector('.steer-' + which)?.innerText ?? '';
      if (text != window.seen[which].at(-1)) window.seen[which].push(text);
    }
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
CURSOR = "▍"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The notebook in a browser, its cell run and its first answer there."""
    try:
        import jupyterlab  # noqa: F401
    except ImportError:
        missing("JupyterLab is not installed: pip install jupyterlab")
    folder = tmp_path_factory.mktemp("laboratory")
    with chromium() as browser, laboratory(folder, CELL) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.goto(address)
        page.locator(".jp-Notebook .cm-content").first.click()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        page.evaluate(WATCH)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".steer-steered")
        finished(page, 0.0)
        yield page
        context.close()


def asked(page: Any) -> tuple[str, str]:
    """Return both texts that are shown."""
    unsteered, steered = (
        page.locator(f".steer-{which}").inner_text() for which in ("unsteered", "steered")
    )
    return unsteered, steered


def finished(page: Any, medical: float, prompt: str = QUESTION) -> None:
    """Wait until the texts are those that the library itself writes."""
    lm = load_model()
    names = ("medical", "legal")
    vectors = {d: steer.Vector.load(vectors_path() / f"{d}.safetensors") for d in names}
    with lm.steered(vectors, medical=medical, gate=vectors["medical"].gate):
        wanted = lm.generate(prompt, max_new_tokens=TOKENS)
    plain = lm.generate(prompt, max_new_tokens=TOKENS)
    script = """([which, text]) =>
      document.querySelector('.steer-' + which)?.innerText.trim() == text"""
    page.wait_for_function(script, arg=["steered", wanted.strip()])
    assert asked(page)[0].strip() == plain.strip()


def handle(page: Any, domain: str) -> Any:
    """Return the slider of a domain."""
    row = page.locator(".widget-slider").filter(has_text=domain)
    return row.locator(".noUi-handle")


def test_a_key_moves_a_knob_and_the_steered_text_alone_changes_token_by_token(tab: Any) -> None:
    before = asked(tab)
    tab.evaluate("() => { window.seen = {steered: [], unsteered: []}; }")
    handle(tab, "medical").focus()
    tab.keyboard.press("End")
    finished(tab, 1.0)
    assert asked(tab)[0] == before[0]
    assert asked(tab)[1] != before[1]
    seen = tab.evaluate("window.seen")
    final = asked(tab)[1]
    growing = [text.rstrip(CURSOR) for text in seen["steered"] if text.endswith(CURSOR)]
    growing = [text for text in growing if final.startswith(text)]
    assert len(set(growing)) > 3, seen["steered"]
    assert [len(text) for text in growing] == sorted(len(text) for text in growing)
    assert set(seen["unsteered"]) <= {before[0]}
    assert "+1.00" in tab.locator(".widget-slider").filter(has_text="medical").inner_text()


def test_a_knob_that_is_moved_while_text_streams_starts_the_text_again(tab: Any) -> None:
    handle(tab, "medical").focus()
    for _ in range(12):
        tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Home")
    finished(tab, -1.0)


def test_the_button_puts_the_knobs_to_zero(tab: Any) -> None:
    tab.get_by_role("button", name="All knobs to zero").click()
    finished(tab, 0.0)
    assert asked(tab)[0] == asked(tab)[1]


def test_markup_in_a_prompt_is_text(tab: Any) -> None:
    tab.locator(".widget-textarea textarea").fill(HOSTILE)
    tab.keyboard.press("Tab")
    finished(tab, 0.0, HOSTILE)
    assert tab.locator(".widget-textarea textarea").input_value() == HOSTILE
    assert tab.evaluate("window.hit") is None
    tab.locator(".widget-textarea textarea").fill(QUESTION)
    tab.keyboard.press("Tab")
    finished(tab, 0.0)


def test_both_texts_stand_side_by_side_and_nothing_is_cut_off(tab: Any, tmp_path: Path) -> None:
    handle(tab, "medical").focus()
    tab.keyboard.press("End")
    finished(tab, 1.0)
    tab.locator(".jp-OutputArea-output").last.screenshot(path=tmp_path / "console.png")
    boxes = [tab.locator(f".steer-{w}").bounding_box() for w in ("unsteered", "steered")]
    assert boxes[0]["y"] == boxes[1]["y"], "side by side"
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    outer = "document.querySelector('.steer-console').closest('.jp-OutputArea-output')"
    assert tab.evaluate(f"{outer}.scrollWidth <= {outer}.clientWidth")
