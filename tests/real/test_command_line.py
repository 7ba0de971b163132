"""The command line on the real model: its own knob, at three strengths and in the console."""

import json
from pathlib import Path

import pytest

import steer as library
from steer.demo.knobs import real_knobs
from steer.demo.real.behaviours import ASKED, judge
from tests.cli.run import steer


def test_the_consoles_own_knob_is_visible_in_generated_text(
    lm: library.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer.demo.smollm2.load", lambda **_: lm)
    path = str(tmp_path / "cheerful.safetensors")
    knobs = real_knobs(lm, progress=False)
    knobs.parts["cheerful"].vector.save(path)
    strengths = ("-v", f"{path}:0,1", "--max-new-tokens", "16", "--json", *ASKED[:4])
    status, said, err = steer("generate", "smollm2", *strengths)
    assert status == 0, err
    found = [json.loads(line) for line in said.splitlines()]
    assert [one["coefficients"] for one in found] == [{"cheerful": 0.0}, {"cheerful": 1.0}] * 4
    rule = judge("cheerful")
    cheerful = [rule(one["prompt"], one["answer"]) == "cheerful" for one in found]
    assert sum(cheerful[1::2]) > sum(cheerful[0::2])
    asked = ("--prompt", ASKED[0], "--max-new-tokens", "16")
    status, said, err = steer("console", *asked)
    assert status == 0, err
    assert said.splitlines()[0] == "knobs: cheerful=+1"
    assert f"steered: {found[1]['answer']}"[:30] in said
