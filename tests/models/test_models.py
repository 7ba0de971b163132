"""The table of models in the documentation; `make models` tries all of it."""

import pytest

from tests.models.table import PAGE, WANTED, row
from tests.models.tiny import model_types

# the usual one; a head with a transform, inline, as a module and beside it; a first norm that is
# not the last; counts of blocks under another name; a vision tower first; scales; a stream in
# float32; and the refused
SOME = ("llama", "bert", "electra", "bart", "mbart", "blenderbot", "longcat_flash", "git", "xlm")
SOME += ("phi4_multimodal", "inkling_text", "gemma3n_text", "hrm_text", "mllama", "musicgen")
SOME += ("big_bird", "blt", "reformer", "prophetnet", "xlnet", "cpmant", "inkling2_text")


def listed(title: str) -> dict[str, str]:
    """The lines of one table of the page, by model type."""
    table = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


TITLES = {
    "verified": "Verified",
    "refused": "Refused",
    "not built": "Not built from a small config",
}


def test_every_model_type_is_listed_once() -> None:
    found = [model_type for title in TITLES.values() for model_type in listed(title)]
    assert sorted(found) == list(model_types()), "run `make models`"
    assert len(listed("Verified")) >= WANTED


def test_the_page_counts_what_it_lists() -> None:
    verified, refused = len(listed("Verified")), len(listed("Refused"))
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"{verified} of the {verified + refused} that a small config builds" in text
    assert f"are verified, {refused} are refused" in text


@pytest.mark.parametrize("model_type", SOME)
def test_a_family_is_as_the_page_says(model_type: str) -> None:
    found = row(model_type)
    assert str(found) == listed(TITLES[found.outcome]).get(model_type), "run `make models`"
