"""Coloured projections are (h · v)/‖v‖, and steering moves them by the length of the vector."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

import steer
from steer import view
from steer.demo import vectors_path
from steer.errors import SelectionError
from steer.model import prompt_batch
from steer.show._look import diverging
from tests.view.setting import LAYER, asked, everywhere, model, palrs

ANSWER = "Please see a doctor."


def test_projections_are_those_computed_by_hand() -> None:
    lm, prompt = model(), asked()[0]
    found = view.trajectory(lm, palrs(), prompt, ANSWER)
    h = lm.activations([prompt], [ANSWER])[0][LAYER].double()
    v = palrs().direction(LAYER).double()
    torch.testing.assert_close(found.projections, (h @ v) / v.norm(), rtol=1e-6, atol=1e-3)
    assert found.layer == LAYER
    assert found.response_start == len(prompt_batch(lm.tokenizer, [prompt]).ids[0])
    assert "".join(found.tokens[found.response_start :]) == "Pleaseseeadoctor."
    parts = [row["part"] for row in found.rows]
    assert parts == ["prompt"] * found.response_start + ["answer"] * 5


def test_adding_the_vector_moves_every_token_by_its_length() -> None:
    lm, prompt = model(), asked()[0]
    before = view.trajectory(lm, palrs(), prompt, ANSWER)
    with lm.steered(palrs(), 0.25):
        after = view.trajectory(lm, palrs(), prompt, ANSWER)
    shift = torch.full_like(before.projections, 0.25 * palrs().norm())
    torch.testing.assert_close(after.projections - before.projections, shift, rtol=1e-3, atol=0.05)


def test_without_an_answer_the_model_gives_it() -> None:
    lm, prompt = model(), asked()[0]
    found = view.trajectory(lm, palrs(), prompt, max_new_tokens=5)
    answer = lm.generate(prompt, max_new_tokens=5)
    again = view.trajectory(lm, palrs(), prompt, answer)
    assert found.tokens == again.tokens
    assert torch.equal(found.projections, again.projections)


def test_colours_follow_the_projection() -> None:
    found = view.trajectory(model(), palrs(), asked()[0], ANSWER, centre=100.0)
    for k, value in enumerate(found.projections.tolist()):
        assert found.colour(k) == diverging((value - 100.0) / found.end)
    beyond = ((found.projections - 100.0).abs() > found.end).double().mean()
    assert 0 < float(beyond) <= 0.05 + 1 / len(found.tokens)
    red, _, blue = diverging(1.0)
    assert blue > red
    red, _, blue = diverging(-1.0)
    assert red > blue
    assert diverging(0.0) == (255, 255, 255)
    assert diverging(-7.0) == diverging(-1.0)


def test_every_form_holds_the_tokens_in_their_colours() -> None:
    from rich.console import Console

    found = view.trajectory(model(), palrs(), asked()[0], ANSWER)
    spans = coloured(found)
    assert [span.text for span in spans] == list(found.tokens)
    assert [float(s.get("title", "")) for s in spans] == pytest.approx(
        found.projections.tolist(), rel=1e-3
    )
    for k, span in enumerate(spans):
        assert "background:#{:02x}{:02x}{:02x};".format(*found.colour(k)) in span.get("style", "")
    console = Console(width=10_000, color_system="truecolor", force_terminal=True)
    with console.capture() as capture:
        console.print(found)
    codes = re.findall(r"48;2;(\d+);(\d+);(\d+)m", capture.get())
    assert [tuple(map(int, c)) for c in codes] == [found.colour(k) for k in range(len(codes))]
    assert len(codes) == len(found.tokens)


def test_a_token_is_no_html_and_no_terminal_code() -> None:
    from rich.console import Console

    evil = view.Trajectory(("<b>&'", "\x1b[2J"), torch.tensor([1.0, -1.0]), 1, 0, 0.0, 1.0)
    assert coloured(evil)[0].text == "<b>&'"
    console = Console(width=200, force_terminal=True)
    with console.capture() as capture:
        console.print(evil)
    assert "\x1b[2J" not in capture.get()


def coloured(found: view.Trajectory) -> list[ET.Element]:
    """Return the coloured pieces of the HTML."""
    return ET.fromstring(found._repr_html_()).findall("div[@class='steer-spans']/span")


def test_the_layer_must_be_clear() -> None:
    lm = model()
    with pytest.raises(SelectionError, match="which layer"):
        view.trajectory(lm, everywhere(), asked()[0], ANSWER)
    assert view.trajectory(lm, everywhere(), asked()[0], ANSWER, layer=2).layer == 2
    tuned = steer.Vector.load(vectors_path() / "medical.safetensors")
    assert tuned.tuning is not None
    assert view.trajectory(lm, tuned, asked()[0], ANSWER).layer == tuned.tuning.layer
