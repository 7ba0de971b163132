"""What a message and a pair accept."""

import pytest

from steer.errors import PairsError
from steer.pairs import Message, Pair

USER = Message("user", "Is it safe?")


def test_text_is_kept_to_the_letter():
    pair = Pair("  Q? \n", " Yes", " No\n", "medical")
    assert (pair.prompt, pair.chosen, pair.rejected) == ("  Q? \n", " Yes", " No\n")
    assert pair.swap() == Pair("  Q? \n", " No\n", " Yes", "medical")


def test_prompt_of_several_turns():
    prompt = (Message("system", ""), USER, Message("assistant", "Yes."), USER)
    assert Pair(prompt, "a", "b").prompt == prompt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Q", "", "b"), r"field 'chosen' is empty\n  found:    ''"),
        (("Q", "a", " \n\t"), r"field 'rejected' holds white space only\n  found:    ' \\n\\t'"),
        (("", "a", "b"), "field 'prompt' is empty"),
        (("Q", "a", "a"), "chosen and rejected are equal\n  found:    'a'"),
        (("Q", None, "b"), r"field 'chosen' has the wrong type\n  found:    None \(NoneType\)"),
        (("Q", "a", float("nan")), r"field 'rejected' has the wrong type\n.*nan \(float\)"),
        ((3, "a", "b"), "field 'prompt' has the wrong type\n.*\n.*a str, or a tuple of Message"),
        (([USER], "a", "b"), "field 'prompt' has the wrong type"),
        ((("Q",), "a", "b"), "field 'prompt' has the wrong type"),
        (((), "a", "b"), r"invalid order\n  found:    roles \[\]"),
        (((USER, Message("assistant", " ")), "a", "b"), "last assistant message of .* white"),
        (((Message("system", "x"),), "a", "b"), r"order\n.*\['system'\]"),
        (((USER, Message("system", "x"), USER), "a", "b"), "system message first"),
        (((Message("user", " "),), "a", "b"), "last user message of field 'prompt' holds white"),
        (("Q", "a", "b", ""), "field 'domain' is empty"),
        (("Q", "a", "b", 7), r"field 'domain' has the wrong type\n  found:    7 \(int\)"),
        (
            ("Q", "a\ud800", "b"),
            r"'chosen' is not valid Unicode\n.*surrogate pair\) at character 1",
        ),
    ],
)
def test_what_a_pair_refuses(arguments, message):
    with pytest.raises(PairsError, match=message):
        Pair(*arguments)


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        ("human", "x", "unknown role\n  found:    'human'\n.*one of system, user, assistant"),
        (["user"], "x", "unknown role"),
        ("user", None, "content of a message has the wrong type"),
    ],
)
def test_what_a_message_refuses(role, content, message):
    with pytest.raises(PairsError, match=message):
        Message(role, content)


def test_long_values_are_shortened():
    with pytest.raises(PairsError) as caught:
        Pair("Q", "a" * 5000, "a" * 5000)
    assert len(str(caught.value)) < 400
    assert "aaa…" in str(caught.value)
