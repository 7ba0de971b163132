"""What a row says to a model is carried or refused with file, row and field, never dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from steer.errors import PairsError
from steer.pairs import Message, Pair, Pairs

TALK = [{"role": "user", "content": "Q"}]
ROW = {"prompt": "Q", "chosen": "a", "rejected": "b"}
CALL = [{"type": "function", "function": {"name": "look", "arguments": {"at": "tea"}}}]
SAID = {"role": "assistant", "content": "Yes.", "tool_calls": CALL, "reasoning_content": "hm"}
COLUMNS: dict[str, Any] = {
    "tools": [{"type": "function"}],
    "documents": [{"title": "a", "text": "b"}],
    "chat_template_kwargs": {"enable_thinking": False},
    "history": [["Q", "A"]],
    "images": ["a.png"],
    "image": "a.png",
    "videos": ["a.mp4"],
    "audio": {"path": "a.wav"},
    "tool_calls": CALL,
    "reasoning_content": "hm",
    "system_prompt": "Be brief.",
    "system_message": "Be brief.",
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", [ROW, {**ROW, "prompt": TALK}])
def test_a_column_that_a_pair_does_not_carry_is_refused(
    column: str, row: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | {column: COLUMNS[column]})}\n")
    with pytest.raises(PairsError, match=rf"a\.jsonl, line 2: field '{column}' cannot be carried"):
        Pairs.load(path)
    with pytest.warns(UserWarning, match="1 rows are not valid"):
        assert len(Pairs.load(path, on_bad="report")) == 1


@pytest.mark.parametrize("empty", [None, "", [], {}, "[]", " null "])
def test_an_empty_column_says_nothing(empty: Any) -> None:
    assert list(Pairs.load([ROW | dict.fromkeys(COLUMNS, empty)])) == [Pair("Q", "a", "b")]


def test_a_column_that_the_caller_names_is_read() -> None:
    (pair,) = Pairs.load(
        [ROW | {"system_prompt": "Be brief."}], columns={"system": "system_prompt"}
    )
    assert pair.prompt == (Message("system", "Be brief."), Message("user", "Q"))


def test_fields_of_a_prompts_messages_are_carried(tmp_path: Path) -> None:
    talk = [*TALK, SAID | {"id": 7, "name": None}, {"role": "user", "content": "Sure?"}]
    row = {"prompt": talk, "chosen": "a", "rejected": "b"}
    pairs = Pairs.load([row])
    fields = {"tool_calls": CALL, "reasoning_content": "hm"}
    assert pairs[0].prompt[1] == Message("assistant", "Yes.", fields)  # type: ignore[union-attr]
    bare = Pairs.load(
        [{**row, "prompt": [talk[0], {"role": "assistant", "content": "Yes."}, talk[2]]}]
    )
    assert pairs != bare
    assert pairs.fingerprint != bare.fingerprint
    pairs.save(tmp_path / "a.jsonl")
    assert Pairs.load(tmp_path / "a.jsonl") == pairs
    assert Pairs.load(pairs.to_dataset()) == pairs
    assert len({message for pair in pairs + bare for message in pair.prompt}) == 4


@pytest.mark.parametrize("field", ["tool_calls", "reasoning_content"])
def test_an_answer_with_fields_is_refused(field: str) -> None:
    said = {"role": "assistant", "content": "Yes.", field: SAID[field]}
    no = {"role": "assistant", "content": "No."}
    for chosen, rejected, prompt in [
        ([said], [no], {"prompt": "Q"}),
        ([*TALK, no], [*TALK, said], {}),
    ]:
        with pytest.raises(PairsError, match=rf"row 0 .*an answer with {field}, which is not"):
            Pairs.load([{"chosen": chosen, "rejected": rejected, **prompt}])


def test_what_is_no_text_is_refused() -> None:
    talk = [{"role": "user", "content": "Q", "images": ["a.png"]}]
    with pytest.raises(PairsError, match="message 1 of field 'prompt' is not text only"):
        Pairs.load([{"prompt": talk, "chosen": "a", "rejected": "b"}])


def test_two_messages_of_the_assistant_in_a_row_are_two_turns() -> None:
    begun = [*TALK, {"role": "assistant", "content": "Well, "}]
    rows = [
        {
            "chosen": [*begun, SAID | {"tool_calls": None, "reasoning_content": None}],
            "rejected": [*begun, {"role": "assistant", "content": "No."}],
        }
    ]
    with pytest.raises(PairsError, match="end with two messages of the assistant"):
        Pairs.load(rows)


@pytest.mark.parametrize("value", [{"role": "user"}, {"a": float("nan")}, {"a": {1}}, {1: "a"}, 3])
def test_fields_of_a_message_are_json(value: Any) -> None:
    with pytest.raises(PairsError, match="fields of a message"):
        Message("user", "Q", value)


def test_the_fields_of_a_message_are_its_own() -> None:
    given = {"tool_calls": [{"a": 1}]}
    message = Message("assistant", "Q", given)
    given["tool_calls"][0]["a"] = 2
    message.as_dict()["tool_calls"][0]["a"] = 3
    assert message.fields["tool_calls"] == [{"a": 1}]
