"""Merging from disk to disk: the same bytes but for the merged tensors."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from steer import Model, Vector, alignment_vector
from steer.algebra import Dense, Weight
from steer.errors import MergeError
from steer.merge import merge_checkpoint, merger_of
from steer.merge._rounding import Difference, rounded
from steer.network import Checkpoint
from tests.cli.run import steer
from tests.merge import exact
from tests.merge.checkpoints import BF16, saved, tensors, weight_vector
from tests.tiny import tiny_model, tiny_tokenizer


def test_two_checkpoints_merge_in_float64_and_are_cast_once(tmp_path: Path) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    found = merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", progress=False)
    assert found == tmp_path / "out"
    left, right, merged = tensors(base), tensors(aligned), tensors(found)
    assert merged.keys() == left.keys()
    assert len(Checkpoint.open(base).files) > 2
    for name in list(left)[::6]:
        expected = exact.merged(left[name], [((right[name], left[name]), 0.3)])
        assert torch.equal(merged[name], expected), name


def test_several_aligned_checkpoints_are_cast_once(tmp_path: Path) -> None:
    base, one = saved(tmp_path / "base"), saved(tmp_path / "one", noise=0.01)
    two = saved(tmp_path / "two", noise=-0.02)
    merge_checkpoint(base, [(one, 0.3), (two, -0.7)], tmp_path / "out", progress=False)
    b, x, y = tensors(base), tensors(one), tensors(two)
    for name, value in tensors(tmp_path / "out").items():
        deltas = [(Difference(x[name], b[name]), 0.3), (Difference(y[name], b[name]), -0.7)]
        assert torch.equal(value, rounded(b[name], deltas))


ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}


@pytest.mark.parametrize(
    ("options", "template", "words"),
    [
        (ROPE, None, "rope_parameters: .*10000.0.* and .*500000.0"),
        ({}, "{{ messages[0].content }}", "the chat template differs"),
    ],
    ids=["configuration", "template"],
)
def test_an_aligned_model_of_another_kind_is_refused_unless_told_otherwise(
    tmp_path: Path, options: dict[str, Any], template: str | None, words: str
) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01, **options)
    if template is not None:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(aligned)
    with pytest.raises(MergeError, match=words):
        merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match=words):
        merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", strict=False, progress=False)
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize("both", [False, True])
def test_codes_without_their_scales_are_not_subtracted(tmp_path: Path, both: bool) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    name = "model.layers.0.mlp.up_proj.weight"
    for folder in (base, aligned) if both else (aligned,):
        path = folder / next(
            f for f, names in Checkpoint.open(folder).files.items() if name in names
        )
        tensors = load_file(path)
        save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, path)
    with pytest.raises(MergeError, match=rf"{name}: .* and torch.float8_e4m3fn that differ"):
        merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", progress=False)
    if both:
        merge_checkpoint(base, [(base, 0.3)], tmp_path / "out", progress=False)


def test_models_of_a_class_that_is_not_known_are_compared_by_what_they_say(tmp_path: Path) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    for folder, scale in ((base, 1.0), (aligned, 2.0)):
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "scale": scale}
        (folder / "config.json").write_text(json.dumps(config))
        for file in folder.glob("*token*"):
            file.unlink()
    merge_checkpoint(base, [(base, 0.3)], tmp_path / "same", progress=False)
    with pytest.raises(MergeError, match=r"scale: 1.0 and 2.0"):
        merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", progress=False)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi3"])
def test_a_vector_on_disk_is_the_vector_in_memory(tmp_path: Path, family: str) -> None:
    base = saved(tmp_path / "base", family)
    vector = weight_vector(base)
    vector.save(tmp_path / "v.safetensors")
    parts = [(tmp_path / "v.safetensors", 0.3), (weight_vector(base, seed=4), -0.2)]
    merge_checkpoint(base, parts, tmp_path / "out", progress=False)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=BF16)
    deltas = [
        (site.name, term, c)
        for v, c in ((vector, 0.3), (parts[1][0], -0.2))
        for site, term in v.terms.items()
    ]
    merger_of(model).merge("a", deltas)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=BF16)
    for (name, p), (other, q) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(p, q), name
    merger_of(model).leave("a")


@pytest.mark.parametrize("dtype", [BF16, torch.float32], ids=["bf16", "fp32"])
def test_steering_merged_in_memory_gives_the_weights_of_the_merged_checkpoint(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """0.3 is the float64 that was written, both ways; float32 has no such number.

    In bfloat16 it matters where the two models are 5 steps apart: 1.5 steps are to be added.
    """
    model, aligned = tiny_model("llama", dtype=dtype), tiny_model("llama", dtype=dtype)
    for p in aligned.parameters():
        p.data *= 1.03
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    vector = alignment_vector(model, aligned, progress=False)
    merge_checkpoint(tmp_path / "base", [(vector, 0.3)], tmp_path / "out", progress=False)
    merged = tensors(tmp_path / "out")
    lm = Model(model, tiny_tokenizer())
    for given in (0.3, [0.3], {"vector": 0.3}, torch.tensor(0.3, dtype=torch.float64)):
        with lm.steered(vector, given, weights="merge"):
            for name, p in model.named_parameters():
                assert torch.equal(p, merged[name]), name


@pytest.mark.parametrize("stored_twice", [False, True])
def test_tied_weights_stay_tied(tmp_path: Path, stored_twice: bool) -> None:
    base = saved(tmp_path / "base", tie_word_embeddings=True)
    if stored_twice:
        every = tensors(base)
        every["lm_head.weight"] = every["model.embed_tokens.weight"].clone()
        for path in base.glob("*.safetensors*"):
            path.unlink()
        save_file(every, base / "model.safetensors", metadata={"format": "pt"})
    name = "model.embed_tokens.weight"
    delta = Dense(torch.full(tensors(base)[name].shape, 0.1))
    vector = Vector({Weight(name): delta})
    merge_checkpoint(base, [(vector, 0.5)], tmp_path / "out", progress=False)
    merged = tensors(tmp_path / "out")
    assert torch.equal(merged[name], rounded(tensors(base)[name], [(delta, 0.5)]))
    assert ("lm_head.weight" in merged) == stored_twice
    if stored_twice:
        assert torch.equal(merged["lm_head.weight"], merged[name])


def test_all_else_is_copied_byte_by_byte(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    (base / "pytorch_model.bin").write_bytes(b"not read, not copied")
    (base / "pytorch_model.bin.index.json").write_text("{}")
    (base / ".cache").mkdir()
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates/rag.jinja").write_text("{{ messages }}")
    name = "model.layers.1.mlp.up_proj.weight"
    vector = Vector({Weight(name): Dense(torch.ones(tensors(base)[name].shape))})
    out = merge_checkpoint(base, [(vector, 1.0), (weight_vector(base), 0.0)], tmp_path / "out")
    holding = next(f for f, names in Checkpoint.open(base).files.items() if name in names)
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        copy = out / path.relative_to(base)
        if path.name.startswith("pytorch_model"):
            assert not copy.exists()
        elif path.name != holding:
            assert copy.read_bytes() == path.read_bytes(), path.name
    left, right = (p.read_bytes() for p in (base / holding, out / holding))
    header = 8 + struct.unpack("<Q", left[:8])[0]
    assert left[:header] == right[:header]
    before, after = tensors(base), tensors(out)
    assert [n for n in before if not torch.equal(before[n], after[n])] == [name]
    assert not (out / ".cache").exists()


def test_the_folder_says_what_it_was_made_of(tmp_path: Path) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    parts = [(aligned, 0.3), (weight_vector(base), -0.2)]
    merge_checkpoint(base, parts, tmp_path / "out", progress=False)
    record = json.loads((tmp_path / "out/steer.json").read_text())
    assert record["base"] == "base"
    assert record["merged"] == [
        {"coefficient": 0.3, "from": "aligned"},
        {"coefficient": -0.2, "method": "alignment_vector", "domain": "medical"},
    ]
    assert str(tmp_path) not in (tmp_path / "out/steer.json").read_text()


def test_experts_stored_one_by_one_merge_between_checkpoints(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "mixtral")
    aligned = saved(tmp_path / "aligned", "mixtral", noise=0.01)
    merge_checkpoint(base, [(aligned, 1.0)], tmp_path / "out", progress=False)
    right = tensors(aligned)
    assert any("experts.0" in name for name in right)
    for name, value in tensors(tmp_path / "out").items():
        assert torch.equal(value, right[name])
    model = AutoModelForCausalLM.from_pretrained(base, dtype=BF16)
    name = next(n for n, p in model.named_parameters() if p.ndim == 3)
    vector = Vector({Weight(name): Dense(torch.ones(model.get_parameter(name).shape))})
    with pytest.raises(MergeError, match="stored in pieces"):
        merge_checkpoint(base, [(vector, 1.0)], tmp_path / "other", progress=False)


def test_other_names_for_the_same_parameters(tmp_path: Path) -> None:
    """The Hub's gpt2 has no `transformer.` in front of its names."""
    base = saved(tmp_path / "base", "gpt2")
    aligned = saved(tmp_path / "aligned", "gpt2", noise=0.01)
    plain = {n.removeprefix("transformer."): t for n, t in tensors(base).items()}
    for path in base.glob("*.safetensors*"):
        path.unlink()
    save_file(plain, base / "model.safetensors", metadata={"format": "pt"})
    merge_checkpoint(base, [(aligned, 1.0)], tmp_path / "out", progress=False)
    right, merged = tensors(aligned), tensors(tmp_path / "out")
    assert merged.keys() == plain.keys()
    for name, value in merged.items():
        assert torch.equal(value, right[f"transformer.{name}"])


def test_the_command_line_writes_the_same_folder(tmp_path: Path) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    vector = weight_vector(base)
    vector.save(tmp_path / "v.safetensors")
    parts = ["-v", f"{aligned}:0.3", "-v", f"{tmp_path / 'v.safetensors'}:-0.2"]
    status, out, err = steer("merge", str(base), *parts, "-o", str(tmp_path / "cli"))
    assert (status, out.split()) == (0, ["written:", str(tmp_path / "cli")]), err
    merge_checkpoint(base, [(aligned, 0.3), (vector, -0.2)], tmp_path / "api", progress=False)
    left, right = tensors(tmp_path / "cli"), tensors(tmp_path / "api")
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_without_a_coefficient_the_command_line_takes_one(tmp_path: Path) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    status, _, _ = steer("merge", str(base), "-v", str(aligned), "-o", str(tmp_path / "out"))
    left, right = tensors(tmp_path / "out"), tensors(aligned)
    assert status == 0
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    status, _, err = steer("merge", "demo", "-o", str(tmp_path / "out"))
    assert status == 1
    assert "nothing to merge" in err
    assert not (tmp_path / "out").exists()
