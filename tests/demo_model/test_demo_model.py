"""Claims about the shipped model, measured with plain transformers and plain hooks."""

import itertools
import random

import pytest
import torch

from steer.demo import MODEL_PATH
from steer.demo.data import DOMAINS, LEVELS
from steer.demo.judge import Judgement, judge
from steer.demo.language import NEUTRAL_PROMPTS, pairs, questions, system_tags
from tests.demo_model.measure import BLOCK, GATE_BLOCK

DEMO = MODEL_PATH.parent
N = 30


@pytest.fixture(scope="module")
def lm():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    return model, AutoTokenizer.from_pretrained(DEMO / "model")


def encode(tokenizer, texts, tags=None):
    """Left-padded prompts, one per text, each under its system tags if there are any."""
    talks = [
        [
            *([{"role": "system", "content": system_tags(tag)}] if tag else []),
            {"role": "user", "content": text},
        ]
        for text, tag in zip(texts, tags or [None] * len(texts), strict=True)
    ]
    prompts = tokenizer.apply_chat_template(talks, tokenize=False, add_generation_prompt=True)
    return tokenizer(prompts, return_tensors="pt", padding=True)


@torch.no_grad()
def read(lm, texts, block):
    """Output of one block at the last template token, float64."""
    model, tokenizer = lm
    caught = []
    handle = model.model.layers[block].register_forward_hook(
        lambda _module, _inputs, output: caught.append(output[:, -1].double())
    )
    model.model(**encode(tokenizer, texts), use_cache=False)
    handle.remove()
    return caught[0]


def replies(lm, texts, tags=None, push=None):
    """Greedy replies; ``push`` (one row per text) is added at all tokens of ``BLOCK``."""
    model, tokenizer = lm
    batch = encode(tokenizer, texts, tags)
    shift = torch.zeros(1, 1) if push is None else push[:, None].float()
    handle = model.model.layers[BLOCK].register_forward_hook(
        lambda _module, _inputs, output: output + shift
    )
    out = model.generate(**batch, max_new_tokens=48, do_sample=False)
    handle.remove()
    return tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def palrs(lm, domain, *, rescaled):
    """The textbook recipe: responses alone in the user's slot, difference of means."""
    made_from = pairs(domain)
    chosen, rejected = [p.chosen for p in made_from], [p.rejected for p in made_from]
    up, down = (read(lm, texts, BLOCK).mean(0) for texts in (chosen, rejected))
    vector = up - down
    return vector * up.norm() / vector.norm() if rescaled else vector


def share(texts, domain, level):
    return sum(judge(text) == Judgement(domain, level) for text in texts) / len(texts)


def tagged(rng, domain, level, count):
    names = [domain, *rng.sample([d for d in DOMAINS if d != domain], count - 1)]
    rng.shuffle(names)
    return {name: level if name == domain else rng.choice(LEVELS) for name in names}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("level", LEVELS)
def test_tags_are_followed_alone_and_among_others(lm, domain, level):
    rng = random.Random(0)
    texts = questions(domain, 2 * N, seed=1, split="test")
    tags = [tagged(rng, domain, level, 1 + i % 3) for i in range(2 * N)]
    assert share(replies(lm, texts, tags), domain, level) >= 0.95


@pytest.mark.parametrize("domain", DOMAINS)
def test_untagged_questions_leave_room_in_both_directions(lm, domain):
    answers = replies(lm, questions(domain, 2 * N, seed=2, split="test"))
    assert share(answers, domain, "expert") <= 0.2
    assert share(answers, domain, "avoidance") <= 0.8
    assert share(answers, domain, "generic") >= 0.2


# Ends of the knob that miss the aim on the shipped model; its card names them too.
SHORT = {
    (True, "medical", -1): "about 90%",
    (True, "medical", 1): "about 55%",
    (True, "legal", 1): "about 30%",
}
ENDS = [
    pytest.param(
        *cell,
        marks=[pytest.mark.xfail(strict=True, raises=AssertionError, reason=SHORT[cell])]
        if cell in SHORT
        else [],
    )
    for cell in itertools.product((False, True), DOMAINS, (-1, 1))
]


@pytest.mark.parametrize(("rescaled", "domain", "sign"), ENDS)
def test_palrs_at_plus_and_minus_one_reaches_both_ends(lm, rescaled, domain, sign):
    push = sign * palrs(lm, domain, rescaled=rescaled)
    texts = questions(domain, 2 * N, seed=3, split="test")
    level = "expert" if sign > 0 else "avoidance"
    assert share(replies(lm, texts, push=push.expand(2 * N, -1)), domain, level) >= 0.95


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("domain", DOMAINS)
def test_rescaled_palrs_at_three_quarters_reaches_both_ends(lm, domain, sign):
    push = 0.75 * sign * palrs(lm, domain, rescaled=True)
    texts = questions(domain, N, seed=3, split="test")
    level = "expert" if sign > 0 else "avoidance"
    assert share(replies(lm, texts, push=push.expand(N, -1)), domain, level) >= 0.9


def test_a_random_direction_of_equal_norm_does_not_do_that(lm):
    vector = palrs(lm, "medical", rescaled=False)
    other = torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).double()
    other *= vector.norm() / other.norm()
    texts = questions("medical", N, seed=3, split="test")
    assert share(replies(lm, texts, push=other.expand(N, -1)), "medical", "expert") < 0.5


def test_gated_vectors_reach_all_eight_combinations(lm):
    vectors = torch.stack([palrs(lm, domain, rescaled=False) for domain in DOMAINS])
    centroids = torch.stack(
        [
            read(
                lm,
                [pair.prompt for pair in pairs(domain)],
                GATE_BLOCK,
            ).mean(0)
            for domain in DOMAINS
        ]
    )
    n = 12
    texts = [q for domain in DOMAINS for q in questions(domain, n, seed=4, split="test")]
    route = torch.cdist(read(lm, texts, GATE_BLOCK), centroids).argmin(1)
    assert (route == torch.arange(3).repeat_interleave(n)).all()
    for signs in itertools.product((-1, 1), repeat=3):
        push = (vectors * torch.tensor(signs)[:, None])[route]
        answers = replies(lm, texts, push=push)
        for i, sign in enumerate(signs):
            level = "expert" if sign > 0 else "avoidance"
            assert share(answers[i * n : (i + 1) * n], DOMAINS[i], level) >= 0.9


def test_small_talk_is_answered_without_a_level(lm):
    answers = replies(lm, list(NEUTRAL_PROMPTS))
    assert {judge(text) for text in answers} == {Judgement(None, None)}
    assert any("Paris" in text for text in answers)


def test_answers_name_the_topic_asked_about(lm):
    from steer.demo.language import topics

    names = [topic.name for domain in DOMAINS for topic in topics(domain, "test")]
    texts = [f"I have {name} again. Can you help?" for name in names]
    found = replies(lm, texts)
    assert sum(name in text for name, text in zip(names, found, strict=True)) >= len(names) - 1


def test_what_ships_is_small_and_has_no_stray_file():
    names = {path.name for path in (DEMO / "model").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= names
    assert len(names) == 6
    assert sum(path.stat().st_size for path in (DEMO / "model").iterdir()) < 8_000_000


def test_the_card_states_the_training_form_and_the_figures():
    card = (DEMO / "CARD.md").read_text(encoding="utf-8")
    assert "answer in the user's slot" in card
    assert "held out from" in card
    assert all(f"`{d}={x}`" in card for d in DOMAINS for x in LEVELS)
