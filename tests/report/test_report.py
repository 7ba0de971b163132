"""What stands in a report, and that it stands alone."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import steer
from steer import record
from steer.demo.language import pairs
from steer.errors import ArgumentError, CompositionError, SelectionError
from steer.measure import Reliability, Share, random_like, reliability, sweep
from steer.report import (
    Cost,
    Costs,
    Examples,
    Report,
    Section,
    Setup,
    report,
    vector_fingerprint,
)
from steer.selection import Limits
from steer.show import Curves
from tests.report.setting import HOSTILE, knobs, measured, model, page, text, unseen

MEASURED = (
    "Dose-response",
    "Side effects",
    "Interference",
    "Baselines",
    "Reliability",
    "Examples",
    "Provenance",
)


@dataclass(frozen=True)
class Read:
    """A page as a parser of HTML reads it."""

    tags: list[tuple[str, dict[str, str | None]]]
    words: str

    def count(self, name: str) -> int:
        """Return how often a tag occurs."""
        return sum(tag == name for tag, _ in self.tags)


class _Reader(HTMLParser):
    VOID = ("meta", "link")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def read(html: str) -> Read:
    """Return what a page holds, if every tag is closed."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return Read(reader.tags, " ".join(reader.words))


def body(found: Report, title: str) -> str:
    """Return the body of a section."""
    return next(part.html for part in found.sections if part.title == title)


def test_everything_is_measured_in_order() -> None:
    assert tuple(part.title for part in page().sections) == MEASURED
    assert repr(page()) == f"Report('Two <knobs>': {', '.join(MEASURED)})"
    found = read(page().html)
    assert found.count("figure") == 4, "2 dose-responses, 1 of side effects, 1 matrix"
    pictures = [attrs for tag, attrs in found.tags if tag == "svg"]
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in pictures)


def test_nothing_points_outside_and_nothing_runs() -> None:
    found = read(page().html)
    for tag in ("script", "img", "iframe", "object", "embed", "video", "form", "b"):
        assert found.count(tag) == 0, tag
    links = [(a, v) for _, attrs in found.tags for a, v in attrs.items() if a in ("src", "href")]
    assert links
    assert all(v and v.startswith(("#section-", "data:")) for _, v in links)
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert not re.search(r"url\(|@import|@font-face", page().html)
    assert "default-src 'none'" in page().html
    assert len(page().html) < 150_000


def test_markup_in_prompts_is_shown_as_it_is() -> None:
    found = read(page().html)
    assert HOSTILE.replace("\u0007", "\ufffd") in found.words
    assert "Two <knobs>" in found.words


@pytest.fixture(scope="module")
def again() -> tuple[Report, list[Reliability]]:
    """The report measured anew, and the reliabilities that it measured."""
    seen = []

    def watched(*arguments: Any, **options: Any) -> Reliability:
        seen.append(reliability(*arguments, **options))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steer.report._measure.measure_reliability", watched)
        return measured(), seen


def test_equal_calls_give_equal_pages(again: tuple[Report, list[Reliability]]) -> None:
    assert again[0].html == page().html


def test_the_curve_is_what_the_sweep_measured() -> None:
    data: Any = {d: unseen().of_domain(d)[2:] for d in unseen().domains}
    grid = [{"medical": c} for c in (-1.0, 0.0, 1.0)] + [{"legal": 1.0, "medical": 1.0}]
    swept = sweep(model(), knobs(), data, grid, progress=False)
    shown = read(body(Report.of(swept), "Dose-response"))
    assert shown.count("figure") == 1, "legal is not turned alone"
    rows = [r for r in swept.rows if r["coefficient.legal"] == 0]
    curves, steered = (
        len(swept.rows) // 4,
        [t for t, a in shown.tags if "hollow" in str(a.get("class"))],
    )
    assert len(rows) == 3 * curves
    assert len(steered) == curves, "the unsteered point of each curve is hollow"
    for row in rows:
        assert f"{row['accuracy']:.4g}" in shown.words


def test_a_sweep_in_which_nothing_is_turned_alone_says_so() -> None:
    grid = [{"legal": 1.0, "medical": 1.0}]
    swept = sweep(model(), knobs(), {"legal": unseen().of_domain("legal")}, grid, progress=False)
    assert "In no setting" in Report.of(swept).html


def test_layers_have_a_curve_each() -> None:
    vector = steer.Vector.of({2: torch.ones(128), 3: torch.ones(128)})
    data = unseen().of_domain("legal")
    swept = sweep(model(), vector, data, (-1.0, 0.0), layers=[2, 3], progress=False)
    html = Report.of(swept).html
    assert html.count("<figure>") == 1
    (chart,) = swept.charts
    assert list(chart.series) == ["layer 2", "layer 3"]
    assert all(name in html for name in chart.series)


def test_the_front_is_what_no_setting_betters() -> None:
    tried = [Cost(name, kl, value) for name, kl, value in COSTS]
    costs = Costs(tuple(tried), chosen=2, budget=0.5)
    assert [cost.setting for cost in costs.front] == ["none", "small", "large"]
    shown = body(Report.of(costs), "Side effects")
    assert "budget 0.5" in shown
    rows = read(shown)
    assert rows.count("tr") == 1 + 4, "the head, the front and the one chosen"


COSTS = (
    ("none", 0.0, 0.4),
    ("small", 0.1, 0.7),
    ("chosen", 0.4, 0.7),
    ("large", 2.0, 0.9),
    ("worse", 3.0, 0.8),
)


def test_settings_on_one_spot_are_drawn_once() -> None:
    many = Costs(tuple(Cost(str(k), 0.2, 0.5) for k in range(1000)))
    assert len(Report.of(many).html) < 40_000


def test_costs_without_kl_are_a_table() -> None:
    found = Report.of(Costs((Cost("one", float("nan"), 0.5),))).html
    assert "KL was not measured" in found
    assert "<svg" not in found


@pytest.mark.parametrize("many", [False, True])
def test_a_choice_brings_what_it_tried(many: bool) -> None:
    held_out = pairs("medical", 8, split="validation")
    vector = knobs().parts["medical"].vector
    options: dict[str, Any] = {"coefficients": (0.25, 0.5), "neutral": text(), "progress": False}
    chosen: Any = (
        steer.select(
            model(), steer.compose(medical=vector), held_out, limits=Limits(kl=9.0), **options
        )
        if many
        else steer.select(model(), vector, held_out, limits=Limits(kl=9.0), **options)
    )
    found = Report.of(chosen)
    assert [part.title for part in found.sections] == ["Choice"]
    (chart,) = (b for b in chosen._card().blocks if isinstance(b, Curves))
    assert len(chart.drawn["tried"].points) == len(chosen.trials)
    assert chart.drawn["chosen"].points == ((chosen.best.kl, chosen.best.objective),)
    assert "budget 9" in body(found, "Choice")
    (share,) = chosen.test.values()
    assert f"{share.value:.1%} [" in body(found, "Choice")
    for name in ("steered", "base", "random", "prompted"):
        assert name in body(found, "Choice")
    whole = report(
        model(),
        chosen,
        unseen().of_domain("medical"),
        coefficients=(0.0, 1.0),
        neutral=text(),
        examples=0,
        progress=False,
    )
    titles = ("Dose-response", "Choice", "Interference", "Baselines")
    assert tuple(part.title for part in whole.sections)[:4] == titles
    assert "Examples" not in repr(whole)


def test_pairs_are_recorded_where_the_vector_was_read_and_acts(
    again: tuple[Report, list[Reliability]],
) -> None:
    found, seen = again
    assert "Reliability" in [section.title for section in found.sections]
    for one, domain in zip(seen, ("medical", "legal"), strict=True):
        vector = knobs().parts[domain].vector
        assert one.layers == vector.layers
        assert one.position == vector.provenance.arguments["position"]
    lone = record(model(), pairs("legal", 2), at="template[-1]", layers=[3], progress=False)
    assert lone.positions == ("template[-1]",)


def test_results_of_one_kind_by_name_are_one_section() -> None:
    found = {d: reliability(model(), pairs(d, 6), layers=[2, 3]) for d in ("legal", "medical")}
    made = Report.of(found)
    assert [part.title for part in made.sections] == ["Reliability"]
    assert "<h3>legal</h3>" in made.html
    assert "<h3>medical</h3>" in made.html


def test_another_result_becomes_a_table_and_a_section_stays() -> None:
    made = Report.of(Share(3, 4), Section("Mine", "<p>own</p>"))
    assert "0.75" in made.sections[0].html
    assert made.sections[1].html == "<p>own</p>"


def test_provenance_tells_vectors_apart() -> None:
    vector = knobs().parts["medical"].vector
    other = random_like(vector, 0)
    assert vector_fingerprint(vector) != vector_fingerprint(other)
    assert vector_fingerprint(vector) == vector_fingerprint(vector[vector.layers[0]])
    shown = body(page(), "Provenance")
    for part in knobs().parts.values():
        assert vector_fingerprint(part.vector)[:16] in shown
    assert model().info.config[:16] in shown
    assert steer.__version__ in shown
    assert pairs("medical", 8).fingerprint not in shown
    assert (pairs("medical", 8) + pairs("legal", 8)).fingerprint[:16] in shown


class Widest(TorchDispatchMode):
    """Notes the most elements of a tensor that an operation made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            self.most = max(self.most, made.numel())
        return made


@pytest.mark.parametrize("turned", [False, True])
def test_a_fingerprint_is_of_the_numbers_and_copies_no_whole_tensor(turned: bool) -> None:
    W = torch.randn(2**9, 2**10, generator=torch.Generator().manual_seed(0)).bfloat16()
    W = W.T if turned else W

    def of(tensor: torch.Tensor) -> str:
        return vector_fingerprint(steer.Vector({steer.Weight("w"): steer.Dense(tensor)}))

    with Widest() as widest:
        found = of(W)
    assert 0 < widest.most < W.numel() / 2
    assert found == of(W.float()) == of(W.contiguous())
    assert len({found, of(W.T), of(W.reshape(-1)), of(-W)}) == 4


def test_provenance_needs_no_model() -> None:
    shown = Report.of(Setup(None, knobs()([{"medical": 1.0}, {}]), {}, {"x": "<y>"})).html
    assert "by prompt" in shown
    assert "&lt;y&gt;" in shown


def test_an_operator_of_strengths_is_not_turned_below_zero() -> None:
    part = steer.Part(knobs().parts["legal"].vector, "ablate")
    found = report(
        model(),
        part,
        unseen().of_domain("legal"),
        instruction="legal=expert",
        neutral=text(),
        examples=1,
        max_new_tokens=4,
        progress=False,
    )
    charts = re.sub("<table.*?</table>", "", body(found, "Dose-response"), flags=re.DOTALL)
    assert not re.search(r"-\d", read(charts).words)
    assert re.search(r"0\.25", read(charts).words)
    assert read(body(found, "Examples")).count("th") == 4, "prompt, unsteered, half, whole"


def test_pairs_shown_by_the_prompt_are_not_measured_on() -> None:
    few = unseen().of_domain("legal")
    vector = {"legal": knobs().parts["legal"].vector}
    options: dict[str, Any] = {"neutral": text(), "examples": 0, "progress": False}
    listed = list(few)
    found = body(report(model(), vector, listed, coefficients=(0.0,), **options), "Provenance")
    assert few[2:].fingerprint[:16] in found
    with pytest.raises(SelectionError, match="nothing to report on"):
        report(model(), vector, few[:2], **options)
    with pytest.raises(SelectionError, match="nothing to report on"):
        report(model(), vector, unseen().of_domain("medical"), **options)
    with pytest.raises(SelectionError, match="nothing to report on"):
        report(model(), knobs()([{"legal": 1.0}, {}]), few, **options)


def test_what_cannot_be_shown_is_refused() -> None:
    for results in ((), (3,), ({},), ({"a": Share(1, 2), "b": Section("x", "y")},)):
        with pytest.raises(SelectionError, match="report"):
            Report.of(*results)
    with pytest.raises(CompositionError):
        report(model(), {}, unseen())


def test_it_is_saved_where_it_is_wanted(tmp_path: Path) -> None:
    file = page().save(tmp_path / "new" / "page.html")
    assert file.read_text(encoding="utf-8") == page().html
    strange = Report.of(Examples(("\ud800 \u202e text",), {"c": ("日本語 \x00",)}))
    assert "日本語" in strange.save(tmp_path / "strange.html").read_text(encoding="utf-8")


def test_fewer_than_no_examples_are_refused() -> None:
    with pytest.raises(ArgumentError, match="examples=-1"):
        report(model(), knobs(), unseen(), examples=-1)
