"""Every python and console block of the documentation runs, page by page."""

from pathlib import Path

import pytest

from tests.repository.blocks import ROOT, differs, page
from tests.repository.unknown import unknown_words

PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts and page(path).blocks
)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT / "docs")))
def test_the_code_of_a_page_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = page(path)
    code = [b for b in found.blocks if b.kind in ("python", "console") and not b.skipped]
    with unknown_words(path.read_text(encoding="utf-8")) as unknown:
        assert found.run() >= len([b for b in code if b.kind == "python"])
    assert unknown == [], "the demo model does not know every word of these"


def test_blocks_are_of_known_kinds() -> None:
    """A fence with a misspelt or missing word would silently not be run."""
    for path in PAGES:
        fences = [line for line in path.read_text().splitlines() if line.startswith("```")]
        kinds = {line[3:].split()[0] for line in fences[::2] if line[3:]}
        assert kinds <= {"python", "console", "text", "{toctree}", "{include}", "{eval-rst}"}
        assert all(line == "```" for line in fences[1::2]), path.name
        assert all(line != "```" for line in fences[::2]), path.name


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("a b\nc", "c", True),
        ("a  b", "a b", True),
        ("share 93% ███", "share 95%", True),
        ("share 80%", "share 95%", False),
        ("x 0.52", "x 0.50", True),
        ("x 0.72", "x 0.50", False),
        ("layer 2", "layer 3", False),
        ("layer 12", "layer 13", False),
        ("│ 57 │ 0 │", "│ 60 │ 0 │", True),
        ("│ 47 │ 0 │", "│ 60 │ 0 │", False),
        ("│ 57 │ 3 │", "│ 57 │ 0 │", False),
        ("┏━━┓\n┃ a ┃", "┏━━━━┓\n┃ a  ┃", True),
        ("medical", "legal", False),
        ("b\na", "a\nb", False),
        ("a\nx\nb", "a\n…\nb", True),
        ("a b c", "a …", True),
        ("a b c", "b …", False),
        ("", "a", False),
    ],
)
def test_output_is_compared_in_words_and_roughly_in_figures(
    found: str, wanted: str, same: bool
) -> None:
    assert (differs(found, wanted) is None) is same


def test_a_prompt_of_a_page_that_the_demo_model_does_not_know_is_noticed() -> None:
    from steer.demo import load_model

    lm = load_model()
    known, own, wrong = "Is it safe?", "Is it feline?", "Is the dose right?"
    talk = [{"role": "system", "content": known}, {"role": "user", "content": wrong}]
    with unknown_words(f"{known}\n{wrong}") as unknown:
        for asked in ([known], [own], [talk]):  # the second does not stand in the page
            lm.generate(asked, max_new_tokens=1)
    assert unknown == [wrong]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\n1 / 0\n```\n",
        "```python\nprint(1)\n```\n\n```text\nsteer.errors.FitError: no\n```\n",
        "```console\n$ steer inspect missing.safetensors\n```\n",
        "```console\n$ make no-such-target\n```\n",
        "```console\n$ pip install 'residual-steer[nothing]'\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_noticed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.md"
    wrong.write_text(text)
    monkeypatch.setattr("tests.repository.blocks.ROOT", tmp_path)
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    with pytest.raises((AssertionError, ZeroDivisionError)):
        page(wrong).run()
