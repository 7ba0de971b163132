"""What a line typed into the console means, and how control characters are kept out."""

import pytest

from steer.console._lines import Ask, Command, Turn, read_line
from steer.errors import CompositionError, TextError
from steer.show._markup import terminal_text

DOMAINS = ("medical", "legal", "medical (b.safetensors)", "a=b")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("medical=0.8 legal=-0.3\n", Turn({"medical": 0.8, "legal": -0.3})),
        ("  legal=1e-1 ", Turn({"legal": 0.1})),
        ("\N{BYTE ORDER MARK}legal=0.1", Turn({"legal": 0.1})),
        ('"medical (b.safetensors)"=1', Turn({"medical (b.safetensors)": 1.0})),
        ("a=b=2", Turn({"a=b": 2.0})),
        ("medical = 0.5  legal= -0.3", Turn({"medical": 0.5, "legal": -0.3})),
        ("Is x = 0.8 a good setting?", Ask("Is x = 0.8 a good setting?")),
        ("x = 0.8", Ask("x = 0.8")),
        ("medical=1 medical=2", Turn({"medical": 2.0})),
        ("Is medical=0.8 a good setting?", Ask("Is medical=0.8 a good setting?")),
        ("medical = 0.8", Turn({"medical": 0.8})),
        ("=0.8", Ask("=0.8")),
        ("What's a=b", Ask("What's a=b")),
        ("  Is it safe? ", Ask("Is it safe?")),
        ("/ask medical=0.8", Ask("medical=0.8")),
        ("/ask /quit", Ask("/quit")),
        ("/ask\tIs it safe?", Ask("Is it safe?")),
        ("/reset", Turn(dict.fromkeys(DOMAINS, 0.0))),
        ("/knobs", Command("knobs")),
        ("/help ", Command("help")),
        ("/quit", Command("quit")),
        ("", Command("nothing")),
        (" \n", Command("nothing")),
    ],
)
def test_every_line_means_one_thing(line: str, meant: Ask | Turn | Command) -> None:
    assert read_line(line, DOMAINS) == meant


@pytest.mark.parametrize("line", ["medcal=0.8", "medical=0.8 x=1", "x="])
def test_a_name_that_is_no_domain_is_told_which_there_are(line: str) -> None:
    with pytest.raises(CompositionError) as caught:
        read_line(line, DOMAINS)
    assert "medical, legal" in str(caught.value)
    assert "/ask" in str(caught.value)


@pytest.mark.parametrize("line", ["medical=high", "medical=0,8", "medical="])
def test_a_coefficient_that_is_no_number(line: str) -> None:
    with pytest.raises(CompositionError, match="no number"):
        read_line(line, DOMAINS)


@pytest.mark.parametrize("line", ["/", "/exit", "/quit now", "/asks x"])
def test_a_command_that_does_not_exist(line: str) -> None:
    with pytest.raises(TextError, match="no such command"):
        read_line(line, DOMAINS)


@pytest.mark.parametrize("line", ["/ask", "/ask  \n"])
def test_asking_nothing_is_told_what_to_type(line: str) -> None:
    with pytest.raises(TextError, match=r"nothing to ask(?s:.*)/ask Is it safe\?"):
        read_line(line, DOMAINS)


@pytest.mark.parametrize("line", ["caf\udce9", "medical=\udcff", "/ask \udcff"])
def test_bytes_that_are_no_text_are_told_so(line: str) -> None:
    with pytest.raises(TextError, match=r"cannot be read(?s:.*)\\udc(?s:.*)UTF-8"):
        read_line(line, DOMAINS)


def test_a_text_cannot_steer_the_terminal() -> None:
    assert terminal_text("a\x1b[31mb\x07\r\x9bc\n\td é 👍🏽") == "a[31mbc\n\td é 👍🏽"
