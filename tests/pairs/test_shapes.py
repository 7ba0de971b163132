"""Every shape a row can have, and what is said of rows that have none."""

import json

import pytest

from steer.errors import PairsError, SteerError
from steer.pairs import Message, Pair, Pairs

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Is it safe?"}
REPLY = {"role": "assistant", "content": "What?"}
AGAIN = {"role": "user", "content": "The tea."}
YES = {"role": "assistant", "content": " Yes"}
NO = {"role": "assistant", "content": "No"}
TALK = (
    Message("system", "Be brief."),
    Message("user", "Is it safe?"),
    Message("assistant", "What?"),
    Message("user", "The tea."),
)
LONG = [SYSTEM, USER, REPLY, AGAIN]


def one(row, **options):
    (pair,) = Pairs.load([row], **options)
    return pair


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("prompt", "chosen", "rejected"),
        ("question", "chosen", "rejected"),
        ("question", "answer_matching_behavior", "answer_not_matching_behavior"),
        ("question", "matching", "not_matching"),
        ("prompt", "positive", "negative"),
    ],
)
def test_text(prompt, chosen, rejected):
    row = {"statement": "left alone", prompt: "Q? ", chosen: " Yes", rejected: " No"}
    assert one(row) == Pair("Q? ", " Yes", " No")


def test_our_own_names_come_before_other_usual_names():
    row = {"question": "other", "matching": "A", "not_matching": "B"}
    assert one(row | {"prompt": "Q", "chosen": "a", "rejected": "b"}) == Pair("Q", "a", "b")


@pytest.mark.parametrize("chosen", [" Yes", [YES]])
@pytest.mark.parametrize("rejected", ["No", [NO | {"weight": 1}]])
def test_messages(chosen, rejected):
    row = {"prompt": LONG, "chosen": chosen, "rejected": rejected}
    assert one(row) == Pair(TALK, " Yes", "No")


def test_messages_after_a_prompt_as_text():
    row = {"prompt": "Q", "chosen": [YES], "rejected": [NO]}
    assert one(row) == Pair("Q", " Yes", "No")


@pytest.mark.parametrize("beside", [{}, {"prompt": "Is it safe?"}, {"prompt": LONG}])
def test_whole_messages(beside):
    row = {"chosen": [*LONG, YES], "rejected": [*LONG, NO], **beside}
    assert one(row) == Pair(TALK, " Yes", "No")


def test_transcripts():
    start = "\n\nHuman: a:\n\nb\n\nAssistant:  two spaces\n\nHuman: Human: c\n\nAssistant:"
    row = {"chosen": f"{start} Yes\n", "rejected": f"{start} No"}
    prompt = (
        Message("user", "a:\n\nb"),
        Message("assistant", " two spaces"),
        Message("user", "Human: c"),
    )
    assert one(row) == Pair(prompt, "Yes\n", "No")


@pytest.mark.parametrize(
    ("chosen", "rejected", "pair"),
    [
        ("Pick:\n (A)", "Pick:\n (B)", ("Pick:\n", " (A)", " (B)")),
        ("Pick.\n(A)", "Pick.\n(B)", ("Pick.\n", "(A)", "(B)")),
        ("The sky is blue", "The sky is black", ("The sky is", " blue", " black")),
        ("Is it?  Yes", "Is it? No", ("Is it?", "  Yes", " No")),
        ("Is it? Yes", "Is it?\nNo", ("Is it?", " Yes", "\nNo")),
        ("It is abc def", "It is abcd", ("It is", " abc def", " abcd")),
        ("Ist es\u00a0gut", "Ist es\u00a0gro\u00df", ("Ist es", "\u00a0gut", "\u00a0gro\u00df")),
    ],
)
@pytest.mark.parametrize("names", [("chosen", "rejected"), ("positive", "negative")])
def test_whole_text(chosen, rejected, pair, names):
    assert one(dict(zip(names, (chosen, rejected), strict=True))) == Pair(*pair)


def test_columns_are_renamed():
    row = {"my question": "Q", "best": "a", "prompt": "unused", "worst": "b", "topic": "legal"}
    columns = {"prompt": "my question", "chosen": "best", "rejected": "worst", "domain": "topic"}
    assert one(row, columns=columns) == Pair("Q", "a", "b", "legal")


def test_columns_may_exchange_our_names():
    row = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    assert one(row, columns={"chosen": "rejected", "rejected": "chosen"}) == Pair("Q", "b", "a")


def test_a_renamed_column_is_not_read_twice():
    row = {"question": "a", "matching": "Q", "not_matching": "b", "other": "c"}
    columns = {"chosen": "question", "rejected": "not_matching", "prompt": "matching"}
    assert one(row, columns=columns) == Pair("Q", "a", "b")
    with pytest.raises(PairsError, match=r"field 'chosen' is missing"):
        one(row, columns={"rejected": "matching"})
    with pytest.raises(PairsError, match=r"field 'chosen' is missing"):
        one({"prompt": "Q", "chosen": "a"}, columns={"rejected": "chosen"})
    row = {"question": "x a", "rejected": "x b"}
    assert one(row, columns={"chosen": "question"}) == Pair("x", " a", " b")


def test_domain_of_a_column_and_of_the_argument():
    row = {"prompt": "Q", "chosen": "a", "rejected": "b", "domain": "legal"}
    assert one(row).domain == "legal"
    assert one(row | {"domain": None}).domain is None
    assert one(row | {"domain": 5}, domain="medical").domain == "medical"


def test_system_column():
    row = {"question": "Is it safe?", "chosen": "a", "rejected": "b", "system": "Be brief."}
    assert one(row).prompt == TALK[:2]
    assert one(row | {"system": ""}).prompt == one(row | {"system": None}).prompt == "Is it safe?"
    messages = {"chosen": "a", "rejected": "b", "system": "Be brief."}
    assert one(messages | {"prompt": LONG}).prompt == TALK
    assert one(messages | {"prompt": LONG[1:]}).prompt == TALK
    with pytest.raises(PairsError, match=r"'system' and the system message.*differ\n.*'Else\.'"):
        one(messages | {"prompt": LONG, "system": "Else."})


def test_a_shape_can_be_forced():
    row = {"prompt": "", "chosen": "Human: a b", "rejected": "Human: a c"}
    assert one(row, shape="whole_text") == Pair("Human: a", " b", " c")
    with pytest.raises(PairsError, match=r"field 'prompt' has the wrong type"):
        one({"prompt": LONG, "chosen": "a", "rejected": "b"}, shape="text")


PLAIN = {"prompt": "Q", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "row 0 .*: a row is not an object"),
        ({"chosen": "a"}, r"field 'rejected' is missing\n  found:    columns \['chosen'\]"),
        (
            {"question": "Q", "matching": "A"},
            r"field 'not_matching' is missing(.|\n)*\"rejected\":",
        ),
        ({"question": "Q", "not_matching": "A"}, "field 'matching' is missing(.|\n)*\"chosen\":"),
        (
            {"a": 1, "b": 2},
            r"no columns with two answers\n.*\['a', 'b'\](.|\n)*chosen and rejected",
        ),
        (
            {"matching": "a", "not_matching": "b", "positive": "c", "negative": "d"},
            "more than one set of answer columns",
        ),
        (PLAIN | {"prompt": None}, r"field 'prompt' has the wrong type\n.*None \(NoneType\)"),
        (PLAIN | {"chosen": 3}, r"field 'chosen' has the wrong type\n.*3 \(int\)"),
        (PLAIN | {"chosen": " "}, "row 0 .*: field 'chosen' holds white space only"),
        (PLAIN | {"chosen": "b"}, "row 0 .*: chosen and rejected are equal"),
        (PLAIN | {"domain": 3}, r"field 'domain' has the wrong type\n.*3 \(int\)"),
        (PLAIN | {"system": 3}, r"field 'system' has the wrong type\n.*3 \(int\)"),
        (PLAIN | {"prompt": []}, r"invalid order\n  found:    roles \[\]"),
        (
            PLAIN | {"prompt": [{"role": "bot", "content": ""}]},
            "message 1 .*: .*unknown role\n.*bot",
        ),
        (PLAIN | {"prompt": [USER, {"role": "user", "content": None}]}, "message 2 .*wrong type"),
        (
            PLAIN | {"prompt": [{"from": "human"}]},
            r"message 1 .*has the wrong type\n.*keys \['from'\]",
        ),
        (PLAIN | {"prompt": ["Q"]}, r"message 1 of field 'prompt' has the wrong type\n.*'Q'"),
        (PLAIN | {"chosen": [USER]}, r"field 'chosen' is not one answer\n.*\['user'\]"),
        (PLAIN | {"chosen": []}, r"field 'chosen' is not one answer\n.*\[\]"),
        (
            {"chosen": [USER, YES], "rejected": [USER, NO], "prompt": "Else?"},
            "field 'prompt' is not the beginning of chosen and rejected",
        ),
        (
            {"chosen": [USER, YES], "rejected": [USER, NO], "prompt": [AGAIN]},
            "field 'prompt' is not the beginning of chosen and rejected",
        ),
        ({"chosen": [USER, YES], "rejected": "No"}, "field 'rejected' has the wrong type"),
        ({"chosen": [USER, YES], "rejected": [USER]}, "does not end with an answer.*\n.*with user"),
        ({"chosen": [USER, YES], "rejected": []}, "does not end with an answer.*\n.*with nobody"),
        ({"chosen": [YES], "rejected": [NO]}, "chosen and rejected have no prompt"),
        ({"chosen": [USER, YES], "rejected": [USER, YES]}, "chosen and rejected are equal"),
        (
            {"chosen": [USER, REPLY, AGAIN, YES], "rejected": [USER, NO]},
            "differ before their last answer\n.*4 and 2 messages, the first 1 the same",
        ),
        ({"chosen": "the same", "rejected": "the same"}, "chosen and rejected are equal"),
        ({"chosen": "the sky", "rejected": "the"}, "is the beginning of the other"),
        ({"chosen": "Blue sky", "rejected": "Black sky"}, "share no beginning"),
        ({"chosen": "\nHuman: a", "rejected": "x"}, "'rejected' is a transcript whose speakers"),
        ({"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a"}, "rejected with user"),
        (
            {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a\n\nAssistant: "},
            "field 'rejected' is empty",
        ),
        (
            {"chosen": "Human: a\n\nAssistant: b\n\nAssistant: c", "rejected": "Human: a"},
            "field 'chosen' is a transcript whose speakers do not alternate\n.*'HAA'",
        ),
        ({"chosen": "Assistant: b", "rejected": "Assistant: c"}, "do not alternate\n.*'A'"),
    ],
)
def test_what_a_row_is_refused_for(row, message):
    with pytest.raises(PairsError, match=message):
        Pairs.load([row])


def test_a_forced_shape_needs_its_fields():
    with pytest.raises(PairsError, match=r"row 0 .*: field 'prompt' is missing\n.*\['chosen', "):
        Pairs.load([{"chosen": "x a", "rejected": "x b"}], shape="text")


def test_text_before_the_first_turn_is_refused():
    row = {"chosen": "Hi\n\nHuman: a\n\nAssistant: b", "rejected": "Hi\n\nHuman: a\n\nAssistant: c"}
    with pytest.raises(PairsError, match=r"do not alternate"):
        Pairs.load([row], shape="transcripts")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"chosen": "x a", "rejected": "x b"}, "row 1 .*: field 'prompt' is missing"),
        ({"chosen": [USER, YES], "rejected": [USER, NO]}, "row 1 .*: field 'prompt' is missing"),
        (
            {"prompt": LONG, "chosen": "a", "rejected": "b"},
            "row 1 .*: the row has a different shape from the rows before it\n"
            ".*'messages'.*\n.*'text'",
        ),
    ],
)
def test_mixed_shapes(other, message):
    with pytest.raises(PairsError, match=message):
        Pairs.load([PLAIN, other, PLAIN])


def test_mixed_shapes_without_a_prompt():
    rows = [{"chosen": "x a", "rejected": "x b"}, PLAIN]
    with pytest.raises(PairsError, match=r"row 1 .*different shape.*\n.*'text'.*\n.*'whole_text'"):
        Pairs.load(rows)


def test_the_error_says_which_column_a_field_came_from(tmp_path):
    row = {"question": "Q", "matching": "", "not_matching": "b"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(PairsError, match=r"a\.jsonl, line 1 \(.*chosen is column 'matching'"):
        Pairs.load(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"Prompt": "Q", "chosen": "a", "rejected": "b"}, "\"prompt\": 'Prompt'"),
        ({"Question ": "Q", "chosen": "a", "rejected": "b"}, "\"prompt\": 'Question '"),
        ({"prompt": "Q", "chosen": "a", "Rejected": "b"}, "\"rejected\": 'Rejected'"),
        (
            {"Prompt": "Q", "Chosen": "a", "REJECTED": "b"},
            "{\"prompt\": 'Prompt', \"chosen\": 'Chosen', \"rejected\": 'REJECTED'}",
        ),
    ],
)
def test_a_column_that_is_written_otherwise_is_named(row, named):
    with pytest.raises(PairsError) as caught:
        Pairs.load([row])
    assert named in str(caught.value)


def test_report_leaves_bad_rows_out_and_lists_them():
    bad = [PLAIN | {"chosen": ""}, {"prompt": "Q"}, {"chosen": "x a", "rejected": "x b"}]
    with pytest.warns(UserWarning, match=r"list of rows: 3 rows are not valid pairs"):
        pairs = Pairs.load([bad[0], PLAIN, bad[1], PLAIN, bad[2]], on_bad="report")
    assert list(pairs) == [Pair("Q", "a", "b")] * 2
    assert [row.where for row in pairs.rejected_rows] == [
        f"list of rows, row {number} (counted from 0)" for number in (0, 2, 4)
    ]
    assert [row.what for row in pairs.rejected_rows] == [
        "field 'chosen' is empty",
        "no columns with two answers",
        "field 'prompt' is missing",
    ]
    assert "row 0 (counted from 0): field 'chosen' is empty, found ''" in str(
        pairs.rejected_rows[0]
    )
    assert "3 rows rejected" in repr(pairs)


def test_report_without_any_valid_pair_is_an_error():
    with pytest.raises(PairsError, match=r"holds no valid pair\n.*2 rows, the first: .*row 0"):
        Pairs.load([PLAIN | {"chosen": ""}] * 2, on_bad="report")


def test_limit_counts_pairs_and_stops_there():
    rows = [PLAIN | {"chosen": ""}, *[PLAIN | {"prompt": f"Q{n}"} for n in range(5)], "no row"]
    with pytest.warns(UserWarning, match=r"1 rows"):
        pairs = Pairs.load(rows, limit=3, on_bad="report")
    assert [pair.prompt for pair in pairs] == ["Q0", "Q1", "Q2"]
    assert len(Pairs.load([PLAIN], limit=3)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit must be an integer\n  found:    limit=0\n.*at least 1"),
        ({"limit": 2.5}, "limit must be an integer"),
        ({"limit": True}, "limit must be an integer"),
        ({"shape": "sft"}, "shape is not one of .*\n.*'sft'\n.*'whole_messages'"),
        ({"on_bad": "skip"}, r"on_bad is not one of .*\n.*'skip'\n.*'error' \| 'report'"),
        ({"columns": {"answer": "a"}}, "a key of columns is not one of .*\n.*='answer'"),
        ({"columns": {"prompt": "q"}}, "field 'q' is missing\n.*\n.*a column 'q' for prompt"),
        ({"split": "train"}, "a list of rows has no splits"),
    ],
)
def test_what_the_arguments_are_refused_for(options, message):
    with pytest.raises(SteerError, match=message):
        Pairs.load([PLAIN], **options)
