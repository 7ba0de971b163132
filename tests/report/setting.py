"""A report on the demo model, with markup in its prompts, as the tests share it."""

from functools import cache

import steer
from steer.demo import load_model, vectors_path
from steer.demo.language import NEUTRAL_PROMPTS, pairs
from steer.report import Report, report

DOMAINS = ("medical", "legal")
HOSTILE = (
    "</td></table><script>window.hit = 1</script><img src='http://outside.example/x.png' "
    "onerror='window.hit = 1'>& \u0007"
)


@cache
def model() -> steer.Model:
    """The demo model."""
    return load_model()


@cache
def knobs() -> steer.Composition:
    """Two shipped vectors at a coefficient."""
    vectors = {d: steer.Vector.load(vectors_path() / f"{d}.safetensors") for d in DOMAINS}
    return steer.compose(vectors)(0.5)


@cache
def unseen() -> steer.Pairs:
    """Pairs of three domains, of which one prompt holds markup."""
    hostile = steer.Pair(HOSTILE, "Take <b>aspirin</b>.", "I & you cannot.", "medical")
    return sum(
        (pairs(d, 6, split="test") for d in (*DOMAINS, "financial")), steer.Pairs.of([hostile])
    )


@cache
def text() -> steer.measure.NeutralText:
    """Neutral text."""
    return steer.neutral_text(model(), NEUTRAL_PROMPTS[:3], max_new_tokens=6)


def measured() -> Report:
    """Return a report that measures everything."""
    return report(
        model(),
        knobs(),
        unseen(),
        train=pairs("medical", 8) + pairs("legal", 8),
        coefficients=(-1.0, -0.5, 0.0, 0.5, 1.0),
        kl_budget=0.5,
        neutral=text(),
        examples=1,
        title="Two <knobs>",
        max_new_tokens=12,
        progress=False,
    )


@cache
def page() -> Report:
    """The same, measured once."""
    return measured()
