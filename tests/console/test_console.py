"""The console as a notebook's Python sees it: sliders set, texts read, no browser."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import steer
from steer.algebra import Part, Tuning
from steer.console import State, console
from steer.console._worker import Worker
from steer.errors import ArgumentError, CompositionError, FitError, MissingExtraError
from tests.console.setting import DOMAINS, LONG, QUESTION, TOKENS, answer, knobs, model, plain
from tests.tiny import tiny_model, tiny_tokenizer

Open = Callable[..., Any]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open consoles that are closed in the end."""
    boxes = []

    def open_one(prompt: str = QUESTION, what: Any = None, lm: Any = None, **options: Any) -> Any:
        options = {"max_new_tokens": TOKENS, **options}
        box = console(lm or model(), knobs() if what is None else what, prompt=prompt, **options)
        boxes.append(box)
        return box

    yield open_one
    for box in boxes:
        box.close()
    assert not working()


def working() -> list[threading.Thread]:
    """Return the consoles' threads that run."""
    return [t for t in threading.enumerate() if t.name == "steer-console"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per batch that the model generates from."""
    made, generate = [], model().engine.generate

    def counted(batch: Any, **options: Any) -> Any:
        made.append(len(batch.ids))
        return generate(batch, **options)

    monkeypatch.setattr(model().engine, "generate", counted)
    return made


def hooks(lm: steer.Model) -> int:
    """Return how many hooks are on a model."""
    modules = lm.hf_model.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def test_both_texts_are_what_the_library_generates(opened: Open) -> None:
    box = opened(what=knobs()(medical=0.5))
    state = box.wait()
    assert (state.doing, state.error) == ("done", "")
    assert state.unsteered == plain()
    assert state.steered == answer(0.5)
    assert plain() in box.unsteered.value
    assert answer(0.5) in box.steered.value
    assert hooks(model()) == 0
    assert model().generate(QUESTION, max_new_tokens=TOKENS) == plain()


def test_a_slider_changes_the_steered_text_and_the_unsteered_one_is_not_asked_again(
    opened: Open, runs: list[int]
) -> None:
    box, shown = opened(), []
    assert box.wait().steered == plain()
    box.steered.observe(lambda change: shown.append(change["new"]), names="value")
    runs.clear()
    box.sliders["medical"].value = -0.75
    state = box.wait()
    assert runs == [1]
    assert state.coefficients == {"medical": -0.75, "legal": 0.0} == box.coefficients
    assert state.steered == answer(-0.75)
    assert state.unsteered == plain()
    assert len(shown) > 5, "token by token"


def test_zero_coefficients_are_the_unsteered_model(opened: Open) -> None:
    box = opened(what=knobs()(medical=0.75))
    box.wait()
    box.reset.click()
    state = box.wait()
    assert state.coefficients == {"medical": 0.0, "legal": 0.0}
    assert state.steered == state.unsteered == plain()


def test_prompt_and_length_ask_again(opened: Open) -> None:
    box = opened(what=knobs()(legal=0.75))
    box.wait()
    other = "Can my landlord keep the deposit?"
    box.prompt.value = other
    state = box.wait()
    assert state.unsteered == plain(other)
    assert state.steered == answer(0.0, 0.75, other)
    box.max_new_tokens.value = 3
    assert box.wait().unsteered == model().generate(other, max_new_tokens=3)


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_not_answered(opened: Open, prompt: str) -> None:
    box = opened(prompt)
    state = box.wait()
    assert (state.doing, state.unsteered, state.steered) == ("nothing", "", "")
    box.prompt.value = QUESTION
    assert box.wait().unsteered == plain()
    box.prompt.value = prompt
    state = box.wait()
    assert (state.doing, state.unsteered, state.steered) == ("nothing", "", "")
    assert plain() not in box.unsteered.value


def test_moving_a_slider_while_text_streams_starts_that_text_again(opened: Open) -> None:
    box = opened(what=knobs()(medical=0.75))
    box.wait()
    first, turned, later = threading.Event(), [], []

    def turn(change: Any) -> None:
        if turned:
            later.append(change["new"])
        elif box.state.doing == "steered":
            turned.append(box.state.steered)
            box.sliders["medical"].value = -0.75
            first.set()

    box.steered.observe(turn, names="value")
    box.sliders["medical"].value = 0.8
    assert first.wait(120)
    state = box.wait()
    assert len(turned[0]) < len(answer(0.8)), "it had not been written to its end"
    assert not any(answer(0.8) in shown for shown in later), "nor was it afterwards"
    assert state.steered == answer(-0.75)
    assert hooks(model()) == 0


def test_another_setting_lets_the_unsteered_text_go_on(opened: Open, runs: list[int]) -> None:
    box = opened("")
    turned: list[str] = []

    def turn(change: Any) -> None:
        if box.state.doing == "unsteered" and not turned:
            turned.append(box.state.unsteered)
            box.sliders["medical"].value = 0.5

    box.unsteered.observe(turn, names="value")
    box.prompt.value = QUESTION
    state = box.wait()
    assert runs == [1, 1]
    assert (state.unsteered, state.steered) == (plain(), answer(0.5))
    assert len(turned[0]) < len(plain())


def test_closing_stops_what_is_under_way_and_leaves_nothing(opened: Open) -> None:
    box, begun = opened("", max_new_tokens=200), threading.Event()
    box.unsteered.observe(lambda _: begun.set(), names="value")
    box.prompt.value = QUESTION
    assert begun.wait(120)
    box.close()
    assert not working()
    assert hooks(model()) == 0
    last = box.state
    box.sliders["medical"].value = 0.5
    box.close()
    assert not working()
    assert box.state is last
    assert box.sliders["medical"].comm is None
    assert "closed" in repr(box)


def test_two_consoles_of_one_model_take_turns(opened: Open) -> None:
    one, two = opened(what=knobs()(medical=0.5)), opened(what=knobs()(medical=-0.5))
    assert one.wait().steered == answer(0.5)
    assert two.wait().steered == answer(-0.5)
    assert one.wait().unsteered == two.wait().unsteered == plain()


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Every answer waits for it."""
    may, generate = threading.Event(), model().generate

    def held(prompts: Any, **options: Any) -> Any:
        assert may.wait(120), "nobody let it go"
        return generate(prompts, **options)

    monkeypatch.setattr(model(), "generate", held)
    return may


def a_second(opened: Open) -> Any:
    """Return a console that waits for another's turn."""
    said, two = threading.Event(), opened("")
    two.message.observe(lambda change: said.set(), names="value")
    two.prompt.value = QUESTION
    assert said.wait(120)
    return two


def test_the_second_console_says_that_it_waits(opened: Open, go: threading.Event) -> None:
    one = opened()
    two = a_second(opened)
    assert two.state.doing == "waiting"
    assert "Another console" in two.message.value
    go.set()
    assert one.wait().doing == two.wait().doing == "done"
    assert two.message.value == ""


def test_a_console_that_waits_for_its_turn_can_be_closed(opened: Open, go: threading.Event) -> None:
    one = opened()
    two = a_second(opened)
    two.close()
    go.set()
    assert one.wait().doing == "done"


def test_an_error_is_shown_and_the_next_answer_is_right(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = opened()
    box.wait()

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("<b>never</b>")

    with monkeypatch.context() as patch:
        patch.setattr(model(), "generate", broken)
        box.sliders["medical"].value = 0.5
        state = box.wait()
    assert state.doing == "failed"
    assert state.error == "ZeroDivisionError: <b>never</b>"
    assert "ZeroDivisionError: &lt;b&gt;never&lt;/b&gt;" in box.message.value
    assert isinstance(box.error, ZeroDivisionError)
    assert hooks(model()) == 0
    box.answer.click()
    state = box.wait()
    assert (state.doing, state.error, state.steered) == ("done", "", answer(0.5))
    assert box.message.value == ""
    assert box.error is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_display_that_fails_is_not_the_end_of_the_worker() -> None:
    ran = []

    def shown(state: State, error: Exception) -> None:
        raise RuntimeError("nowhere to show it")

    def run(state: State, wanted: object) -> None:
        ran.append(state.prompt)
        raise ZeroDivisionError

    worker = Worker(run, shown)
    for prompt in ("first", "second"):
        worker.ask(State(prompt, {}, 1))
        worker.wait()
    assert ran == ["first", "second"]


def test_a_program_may_end_while_a_console_is_answering() -> None:
    code = """
import threading
from tests.console.setting import QUESTION, console_of_knobs
box, begun = console_of_knobs(), threading.Event()
box.unsteered.observe(lambda _: begun.set(), names="value")
box.prompt.value = QUESTION
assert begun.wait(120)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, "terminate" in ended.stderr) == (0, False), ended.stderr


def test_a_model_that_this_thread_is_steering_is_refused_in_the_console(opened: Open) -> None:
    with model().steered(knobs(), medical=0.5):
        box = opened()
        assert "BusyModelError" in box.wait().error
    box.answer.click()
    assert box.wait().unsteered == plain()


def test_a_gate_decides_and_a_vector_of_weights_works_too(opened: Open) -> None:
    vectors = {d: part.vector for d, part in knobs().parts.items()}
    gated = steer.compose(vectors, gate=vectors["medical"].gate)(legal=0.75)
    assert opened(what=gated).wait().steered == plain(), "a medical question"
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    name, weight = next((n, p) for n, p in lm.hf_model.named_parameters() if "down_proj" in n)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    vector = steer.Vector({steer.Weight(name): steer.Dense(noise)})
    state = opened("Is it safe?", {"all": vector}, lm, max_new_tokens=5).wait()
    assert state.error == ""
    with lm.steered({"all": vector}):
        assert state.steered == lm.generate("Is it safe?", max_new_tokens=5)
    assert state.unsteered == lm.generate("Is it safe?", max_new_tokens=5) != state.steered


def tuned(coefficient: float) -> steer.Vector:
    """A vector that was tuned to a coefficient."""
    vector = knobs().parts["medical"].vector
    return replace(vector, tuning=Tuning(layer=4, coefficient=coefficient))


@pytest.mark.parametrize(
    ("what", "low", "high"),
    [
        (steer.compose(a=tuned(0.75)), -1, 1),
        (steer.compose(a=tuned(1.0)), -2, 2),
        (steer.compose(a=tuned(-3.0))(0.0), -5, 5),
        (steer.compose(a=tuned(0.04))(0.0), -0.05, 0.05),
        (steer.compose(a=tuned(0.75))(-7.0), -10, 10),
        (steer.compose(a=tuned(0.75) * 1.0)(0.1), -1, 1),
        (steer.compose(a=Part(tuned(0.75), operator="ablate"))(0.5), 0, 1),
    ],
)
def test_a_slider_reaches_what_its_vector_was_tuned_to(
    opened: Open, what: steer.Composition, low: float, high: float
) -> None:
    slider = opened("", what).sliders["a"]
    assert (slider.min, slider.max) == pytest.approx((low, high))
    assert slider.step == pytest.approx((high - low) / 40)
    assert slider.value == pytest.approx(float(what.coefficients[0, 0]))
    assert slider.readout


def test_a_range_of_ones_own(opened: Open) -> None:
    box = opened("", range=(-0.25, 3))
    assert {(s.min, s.max) for s in box.sliders.values()} == {(-0.25, 3)}
    assert list(box.sliders) == list(DOMAINS)


@pytest.mark.parametrize(
    ("what", "limits"),
    [
        (knobs()(0.5), (-0.25, 0.25)),
        (knobs(), (1, -1)),
        (knobs(), (0, float("inf"))),
        (knobs(), (0, 0)),
        (knobs(), (0, 1e-322)),
        (knobs(), (float("nan"), 1)),
        (knobs(), (0, 10**400)),
        (knobs()(medical=0.75, legal=0.75), (0.5, 1)),
        (knobs(), "ab"),
        (knobs(), 2),
        (knobs(), (1,)),
        (knobs(), (None, 1)),
        (knobs(), (False, True)),
        (steer.compose(a=Part(tuned(0.5), operator="ablate"))(0.5), (-1, 1)),
    ],
)
def test_what_no_slider_can_show_is_refused(what: steer.Composition, limits: Any) -> None:
    with pytest.raises(ArgumentError, match="range"):
        console(model(), what, range=limits)


def test_a_setting_for_each_prompt_has_no_slider() -> None:
    with pytest.raises(CompositionError, match="one row per prompt"):
        console(model(), knobs()([{"medical": 1.0}, {}]))


def test_a_range_may_end_at_the_coefficient(opened: Open) -> None:
    assert opened("", knobs()(0.1), range=(0, 0.1)).coefficients == dict.fromkeys(DOMAINS, 0.1)


@pytest.mark.parametrize("prompt", [None, 5, b"a", ["a"]])
def test_a_prompt_is_one_text(prompt: Any) -> None:
    with pytest.raises(ArgumentError, match=type(prompt).__name__):
        console(model(), knobs(), prompt=prompt)


@pytest.mark.parametrize("length", [0, -1, 1.5, "64", True, None, float("nan")])
def test_a_length_is_a_whole_number_of_tokens(length: Any) -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        console(model(), knobs(), max_new_tokens=length)


def test_a_slider_keeps_to_its_range_and_what_is_no_number_is_said_to_be_none(
    opened: Open,
) -> None:
    box = opened(what=knobs()(medical=0.5))
    for value in (-7, float("-inf")):
        box.sliders["medical"].value = value
        assert box.coefficients["medical"] == box.sliders["medical"].min == -1
    box.sliders["medical"].value = float("nan")
    assert box.wait().doing == "failed"
    assert isinstance(box.error, CompositionError)
    box.sliders["medical"].value = 0.5
    assert box.wait().steered == answer(0.5)


def test_a_prompt_too_long_for_the_model_is_noted_under_its_answers(opened: Open) -> None:
    box, noted = opened("", what=knobs()(medical=0.5)), []
    box.message.observe(lambda change: noted.append(change["new"]), names="value")
    box.prompt.value = LONG
    state = box.wait()
    assert state.doing == "done"
    assert "longer than the 256 positions" in state.note
    assert "longer than the 256 positions" in box.message.value
    box.sliders["medical"].value = -0.5
    assert box.wait().note == state.note
    assert len(noted) == 1, "from the first word on"
    box.prompt.value = QUESTION
    assert box.wait().note == ""
    assert box.message.value == ""


def test_a_vector_of_another_template_is_warned_of_once(opened: Open) -> None:
    vector = knobs().parts["medical"].vector
    made_for = vector.provenance.model
    assert made_for is not None
    other = replace(vector.provenance, model=replace(made_for, template="0" * 64))
    with pytest.warns(UserWarning, match="chat template"):
        box = opened("", {"medical": replace(vector, provenance=other)}, strict=False)
    box.prompt.value = QUESTION
    assert box.wait().error == ""


def test_a_vector_of_another_model_is_refused_at_once() -> None:
    with pytest.raises(FitError):
        console(model(), steer.Vector.of({2: torch.ones(8)}))


def test_markup_in_an_answer_is_escaped(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model(), "generate", lambda *_, **__: "<script>x</script>&")
    box = opened(what=knobs()(medical=0.5))
    box.wait()
    for shown in (box.unsteered.value, box.steered.value):
        assert "<script>" not in shown
        assert "&lt;script&gt;x&lt;/script&gt;&amp;" in shown


def test_a_domain_may_hold_markup(opened: Open) -> None:
    vector = knobs().parts["medical"].vector
    box = opened(what={"<script>x</script>": vector})
    box.wait()
    assert "<script>" not in box.steered.value
    assert not box.sliders["<script>x</script>"].description_allow_html


def test_it_shows_itself_in_a_notebook(opened: Open) -> None:
    box = opened("")
    bundle = box._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == box.widget.model_id
    assert "medical=+0" in repr(box)


def test_without_ipywidgets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingExtraError, match="residual-steer\\[notebook\\]"):
        console(model(), knobs())


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, steer.console as c; print({'ipywidgets', 'transformers'} & {*sys.modules})"
    run = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "set()\n"
