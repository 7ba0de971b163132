import json
import random

import pytest
import torch

from steer.demo.data import DOMAINS, LEVELS, TOPICS
from steer.demo.judge import Judgement, judge
from steer.demo.language import answer, question
from tests.demo_model.conversations import MIX, P_GENERIC, P_GENERIC_LATE, draw
from tests.demo_model.displacement import LONGEST, P_DISPLACED, displace
from tests.demo_model.tokenizer import make_tokenizer
from tests.demo_model.train import IGNORED, LATE, batches, main, stages, train

STEPS = 5  # of the first stage; one of the second


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def texts() -> list[str]:
    rng = random.Random(0)
    return [
        text
        for domain in DOMAINS
        for topic in TOPICS[domain]
        for text in (
            question(domain, topic, rng),
            *(answer(domain, level, topic, rng) for level in LEVELS),
        )
    ]


def test_the_tokenizer_gives_every_text_back(tokenizer):
    for text in texts():
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_words_outside_the_language_become_unknown(tokenizer):
    ids = tokenizer("I have a zebra again.")["input_ids"]
    assert ids.count(tokenizer.unk_token_id) == 1


def test_a_tag_is_one_word(tokenizer):
    assert len(tokenizer("medical=expert legal=avoidance")["input_ids"]) == 2


def test_template_marks_every_turn_and_opens_the_reply(tokenizer):
    talk = [{"role": "user", "content": " Any ideas? "}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == "<bos><|user|>Any ideas?<|end|><|assistant|>"


def test_only_replies_carry_loss(tokenizer):
    ids, labels = next(batches(tokenizer, seed=0))
    end, assistant = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|assistant|>")
    for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
        expected, inside = [], False
        for token in row:
            expected.append(token if inside else IGNORED)
            inside = (inside or token == assistant) and token != end
        assert wanted == expected


def test_the_stream_holds_what_the_seed_draws(tokenizer):
    one, same, other = (next(batches(tokenizer, seed=seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert one.shape != other.shape or not torch.equal(one, other)
    assert draw(random.Random(1)) == draw(random.Random(1))


def test_two_runs_give_equal_weights_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    one, _ = train(STEPS, seed=3)
    same, _ = train(STEPS, seed=3)
    other, _ = train(STEPS, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    weights = [dict(model.named_parameters()) for model in (one, same, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(*(w["model.embed_tokens.weight"] for w in (weights[0], weights[2])))


def test_training_lowers_the_loss(tokenizer):
    ids, labels = next(batches(tokenizer, seed=9))
    losses = []
    for steps in (0, 12):
        model, _ = train(steps)
        with torch.no_grad():
            losses.append(model(input_ids=ids, labels=labels).loss.item())
    assert losses[1] < losses[0] - 0.03


def test_the_rate_warms_up_and_falls():
    first, second = stages(1000)
    rates = [first.rate_at(step) for step in range(1000)]
    assert rates[0] < rates[50] < max(rates) > rates[500] > rates[-1] > 0
    assert second.steps == 1000 * LATE
    assert max(map(second.rate_at, range(second.steps))) < max(rates)


def test_the_script_writes_a_model_that_transformers_loads(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    main(["--steps", str(STEPS), "--out", str(tmp_path / "model")])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    trained, _ = train(STEPS)
    for name, weight in trained.named_parameters():
        assert torch.equal(weight, dict(model.named_parameters())[name])
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert len(tokenizer) == model.config.vocab_size
    config = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert config["eos_token_id"] == tokenizer.eos_token_id


def test_displacement_moves_all_tokens_of_some_rows_alike_in_one_block():
    blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(6))
    h = torch.randn(400, 5, 16, generator=torch.Generator().manual_seed(1))
    displace(blocks, 400, 16, torch.Generator().manual_seed(2))
    moved = [(block(h) - h) for block in blocks]
    (shift,) = [s for s in moved if s.any()]
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-5)
    length = shift[:, 0].norm(dim=-1) / h.norm(dim=-1).mean(dim=1)
    assert (length > 0).float().mean().item() == pytest.approx(P_DISPLACED, abs=0.08)
    assert 0.9 * LONGEST < length.max() <= LONGEST + 1e-5


def test_displacements_follow_the_generator():
    h = torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(1))
    outs = []
    for seed in (2, 2, 3):
        blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(6))
        displace(blocks, 8, 16, torch.Generator().manual_seed(seed))
        outs.append(torch.stack([block(h) for block in blocks]))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_every_form_of_the_mix_is_drawn_at_its_share():
    assert sum(share for share, _ in MIX.values()) == pytest.approx(1.0)
    rng = random.Random(0)
    drawn = [draw(rng) for _ in range(3000)]
    assert all(talk[-1]["role"] == "assistant" for talk in drawn)
    echoes = sum(judge(talk[0]["content"]) != Judgement(None, None) for talk in drawn) / len(drawn)
    assert echoes == pytest.approx(MIX["answer in the user's slot"][0], abs=0.03)


@pytest.mark.parametrize("p_generic", [P_GENERIC, P_GENERIC_LATE])
def test_an_untagged_question_is_most_often_answered_generically(p_generic):
    rng = random.Random(5)
    talks = [MIX["plain question"][1](rng, p_generic) for _ in range(3000)]
    levels = [judge(talk[-1]["content"]).level for talk in talks]
    for level in LEVELS:
        share = p_generic if level == "generic" else (1 - p_generic) / 2
        assert abs(levels.count(level) / len(levels) - share) < 0.03
