"""The sequence itself."""

import dataclasses
import hashlib
import operator
import re
from pathlib import Path

import pytest

from steer.errors import ArgumentError, PairsError
from steer.pairs import Message, Pair, Pairs, as_pairs

A = Pair("Q1", "a", "b", "medical")
B = Pair("Q2", "<b>c</b>", "d", "legal")
C = Pair((Message("system", "S"), Message("user", "Q3")), "é", "f")
PAIRS = Pairs.of(iter([A, B, C]))


def test_a_sequence():
    assert (len(PAIRS), PAIRS[0], PAIRS[-1], list(PAIRS)) == (3, A, C, [A, B, C])
    assert PAIRS[1:] == Pairs.of([B, C])
    assert PAIRS[:0] == Pairs.of([])
    assert B in PAIRS
    assert PAIRS.index(B) == 1
    assert PAIRS[:1] + PAIRS[1:] == PAIRS
    assert hash(PAIRS) == hash(Pairs.of([A, B, C]))
    assert Pairs.of([B, A, C]) != PAIRS
    assert PAIRS != (A, B, C)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAIRS.items = ()
    with pytest.raises(TypeError):
        PAIRS[0] = A


def test_only_pairs_go_in():
    with pytest.raises(PairsError, match=r"item 1 \(counted from 0\) is not a Pair\n.*\(dict\)"):
        Pairs.of([A, {"prompt": "Q"}])
    with pytest.raises(TypeError):
        operator.add(PAIRS, [A])


def test_sum_keeps_sources_and_rejected_rows():
    bad, good = {"prompt": ""}, {"prompt": "Q", "chosen": "a", "rejected": "b"}
    with pytest.warns(UserWarning, match=r"1 rows"):
        loaded = Pairs.load([good, bad], on_bad="report")
    both = loaded + PAIRS
    assert both.source == "list of rows + memory"
    assert both.rejected_rows == loaded.rejected_rows
    assert (PAIRS + PAIRS).source == "memory"
    assert loaded[:1].source == "list of rows"


def test_domains():
    assert PAIRS[:2].domains == ("legal", "medical")
    assert PAIRS[2:].domains == PAIRS[:0].domains == ()
    with pytest.raises(PairsError, match=r"others none\n.*1 of 3 .* \('legal', 'medical'\)"):
        _ = PAIRS.domains
    assert PAIRS.of_domain("legal") == Pairs.of([B])
    assert PAIRS.of_domain(None) == Pairs.of([C])
    assert PAIRS.with_domain("finance").domains == ("finance",)
    assert PAIRS.with_domain(None).domains == ()
    with pytest.raises(PairsError, match=r"no such domain\n.*'x'\n.*'legal', 'medical', None"):
        PAIRS.of_domain("x")
    with pytest.raises(PairsError, match=r"no pairs"):
        PAIRS[:0].of_domain("x")


def test_swap_is_its_own_inverse():
    assert PAIRS.swap()[0] == Pair("Q1", "b", "a", "medical")
    assert PAIRS.swap().swap() == PAIRS


def test_fingerprint_is_the_hash_of_canonical_json():
    lines = (
        '["Q1","a","b","medical"]\n'
        '["Q2","<b>c</b>","d","legal"]\n'
        '[[["system","S"],["user","Q3"]],"\\u00e9","f",null]\n'
    )
    assert PAIRS.fingerprint == hashlib.sha256(lines.encode()).hexdigest()
    assert PAIRS.fingerprint != Pairs.of([B, A, C]).fingerprint
    assert PAIRS.fingerprint != PAIRS.swap().fingerprint


def test_repr():
    assert repr(PAIRS) == (
        "Pairs: 3 pairs from memory\n"
        "  prompt    'Q1'\n"
        "  chosen    'a'\n"
        "  rejected  'b'\n"
        "  length    chosen 1, rejected 1 characters in the median\n"
        "  domain       pairs\n"
        "  legal            1  ████████████\n"
        "  medical          1  ████████████\n"
        "  (no domain)      1  ████████████"
    )
    assert repr(Pairs.of([])) == "Pairs: 0 pairs from memory"
    long = Pairs.of([Pair("x" * 500, "a", "b")])
    assert repr(long).splitlines()[0] == "Pairs: 1 pair from memory"
    assert max(map(len, repr(long).splitlines())) <= 100


def test_html_is_escaped():
    html = PAIRS._repr_html_()
    assert "Pairs: 3 pairs from memory" in html
    assert re.search(r">legal</td><td[^>]*>1</td>", html)
    html = PAIRS[1:]._repr_html_() + PAIRS[2:]._repr_html_()
    assert "&lt;b&gt;c&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "&#x27;Q3&#x27;</td>" in html


def test_sum_adds_pairs():
    assert sum([PAIRS[:1], PAIRS[1:]]) == PAIRS
    assert sum([PAIRS]) is PAIRS
    for number in (1, False, ""):
        with pytest.raises(TypeError):
            operator.add(number, PAIRS)


def test_by_domain_is_what_of_domain_gives():
    found = PAIRS.by_domain()
    assert list(found) == ["legal", "medical", None]
    assert found == {name: PAIRS.of_domain(name) for name in found}
    assert PAIRS[:0].by_domain() == {}


def test_any_iterable_of_pairs_is_pairs():
    assert as_pairs(PAIRS) is PAIRS
    assert as_pairs([A, B, C]) == as_pairs(iter([A, B, C])) == PAIRS
    for given in ("abc", 3, {"a": A}):
        with pytest.raises(ArgumentError, match="pairs must be a sequence"):
            as_pairs(given)
    with pytest.raises(PairsError, match="item 0"):
        as_pairs(["a"])
    for path in ("pairs.jsonl", Path("pairs")):
        with pytest.raises(PairsError, match="not a path"):
            as_pairs(path)


def test_pairs_are_saved_as_they_are_loaded(tmp_path):
    talk = [Message("user", "Is it safe?"), Message("assistant", "What?"), Message("user", "This")]
    texts = Pairs.of(pair for pair in PAIRS if isinstance(pair.prompt, str))
    for pairs in (texts, texts.with_domain(None), Pairs.of([Pair(tuple(talk), "x", "é")])):
        pairs.save(tmp_path / "pairs.jsonl")
        assert Pairs.load(tmp_path / "pairs.jsonl") == pairs
    for pairs, name in ((PAIRS, "pairs.csv"), (Pairs.of([]), "pairs.jsonl")):
        with pytest.raises(PairsError, match="cannot be written"):
            pairs.save(tmp_path / name)
