"""The study's page shows what its rows say, and its p-values are corrected as Holm did."""

import json

import pytest

from notebooks.study import table
from notebooks.study.behaviours import behaviour
from tests.repository.blocks import ROOT

STYLES = json.loads((ROOT / "notebooks/study/styles.json").read_text(encoding="utf-8"))
PAGE = ROOT / "docs" / "real-model.md"


def test_the_tables_of_the_page_are_those_of_the_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table.with_tables(page) == page, f"python -m notebooks.study table --write {PAGE}"


def test_holm_multiplies_the_smallest_p_most_and_keeps_the_order() -> None:
    assert table.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert table.holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("name", STYLES["styles"])
def test_parts_of_a_style_share_no_question_and_no_template(name: str) -> None:
    own = behaviour(name, None)
    asked = [{pair.prompt for pair in part} for part in (own.train, own.validation, own.test)]
    assert sum(map(len, asked)) == len(set().union(*asked))
    assert not set(own.asked) & set().union(*asked)
    templates = [str(t) for part in STYLES["styles"][name]["templates"].values() for t in part]
    assert len(templates) == len(set(templates))


@pytest.mark.parametrize("name", STYLES["styles"])
def test_the_rule_of_a_style_tells_its_training_answers_apart(name: str) -> None:
    own = behaviour(name, None)
    assert own.rule is not None
    for side in ("chosen", "rejected"):
        labels = [own.rule(pair.prompt, getattr(pair, side)) for pair in own.train]
        right = sum((label == name) == (side == "chosen") for label in labels)
        assert right >= 0.9 * len(labels), (side, labels)
