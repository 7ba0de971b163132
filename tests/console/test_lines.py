"""The grammar of a line typed into the console, and how control characters are kept out."""

import pytest

from steer.console._lines import read_line
from steer.errors import CompositionError, TextError
from steer.show._markup import terminal_text

DOMAINS = ("medical", "legal", "medical (b.safetensors)", "a=b")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("medical=0.8 legal=-0.3\n", ("turn", {"medical": 0.8, "legal": -0.3})),
        ("  legal=1e-1 ", ("turn", {"legal": 0.1})),
        ("\N{BYTE ORDER MARK}legal=0.1", ("turn", {"legal": 0.1})),
        ('"medical (b.safetensors)"=1', ("turn", {"medical (b.safetensors)": 1.0})),
        ("a=b=2", ("turn", {"a=b": 2.0})),
        ("medical = 0.5  legal= -0.3", ("turn", {"medical": 0.5, "legal": -0.3})),
        ("Is x = 0.8 a good setting?", ("ask", "Is x = 0.8 a good setting?")),
        ("x = 0.8", ("ask", "x = 0.8")),
        ("medical=1 medical=2", ("turn", {"medical": 2.0})),
        ("Is medical=0.8 a good setting?", ("ask", "Is medical=0.8 a good setting?")),
        ("medical = 0.8", ("turn", {"medical": 0.8})),
        ("=0.8", ("ask", "=0.8")),
        ("What's a=b", ("ask", "What's a=b")),
        ("  Is it safe? ", ("ask", "Is it safe?")),
        ("/ask medical=0.8", ("ask", "medical=0.8")),
        ("/ask /quit", ("ask", "/quit")),
        ("/ask\tIs it safe?", ("ask", "Is it safe?")),
        ("/reset", ("reset", "")),
        ("/knobs", ("knobs", "")),
        ("/help ", ("help", "")),
        ("/quit", ("quit", "")),
        ("", ("ask", "")),
        (" \n", ("ask", "")),
    ],
)
def test_every_line_means_one_thing(line: str, meant: tuple[str, object]) -> None:
    assert read_line(line, DOMAINS) == meant


@pytest.mark.parametrize("line", ["medcal=0.8", "medical=0.8 x=1", "x="])
def test_a_name_that_is_no_domain_is_told_which_there_are(line: str) -> None:
    with pytest.raises(CompositionError) as caught:
        read_line(line, DOMAINS)
    assert "medical, legal" in str(caught.value)
    assert "/ask" in str(caught.value)


@pytest.mark.parametrize("line", ["medical=high", "medical=0,8", "medical="])
def test_a_coefficient_that_is_no_number(line: str) -> None:
    with pytest.raises(CompositionError, match="not a number"):
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
    with pytest.raises(TextError, match=r"is not UTF-8(?s:.*)\\udc(?s:.*)UTF-8"):
        read_line(line, DOMAINS)


def test_a_text_cannot_steer_the_terminal() -> None:
    assert terminal_text("a\x1b[31mb\x07\r\x9bc\n\td é 👍🏽") == "a[31mbc\n\td é 👍🏽"
