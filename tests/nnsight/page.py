"""The code of docs/howto/nnsight.md, run as a script. Run by test_nnsight.py."""

import contextlib
import io
import runpy
from pathlib import Path

from tests.repository.blocks import ROOT, differs, page
from tests.repository.unknown import unknown_words

PAGE = ROOT / "docs/howto/nnsight.md"
ELSEWHERE = "remote=True)"


def test_the_code_of_the_page_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    blocks = [b for b in page(PAGE).blocks if b.kind == "python" and ELSEWHERE not in b.text]
    assert len(blocks) == 7
    script = tmp_path / "page.py"
    script.write_text("\n".join(b.text for b in blocks))
    with (
        unknown_words(PAGE.read_text()) as unknown,
        contextlib.redirect_stdout(io.StringIO()) as out,
    ):
        runpy.run_path(str(script), run_name="__main__")
    wanted = "".join(b.output for b in blocks if b.output is not None)
    assert differs(out.getvalue(), wanted) is None
    assert out.getvalue().count("True") == 6
    assert unknown == [], "the demo model does not know every word of these"
