"""Merging from disk to disk: the same bytes but for the merged tensors, in bounded memory."""

import hashlib
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from steer import Model, Vector, alignment_vector
from steer.algebra import Dense, Direction, LowRank, Provenance, Residual, Weight
from steer.errors import CheckpointError, FitError, MergeError, VectorFileError
from steer.merge import _disk as disk
from steer.merge import merge_checkpoint, merger_of
from steer.merge._rounding import Difference, rounded
from steer.network import Checkpoint
from tests.cli.run import steer
from tests.merge import exact
from tests.store.samples import forged, join, split
from tests.tiny import tiny_model, tiny_tokenizer

BF16 = torch.bfloat16


def saved(folder: Path, family: str = "llama", *, noise: float = 0.0, **options: Any) -> Path:
    """A checkpoint in shards with its tokenizer; with noise, one aligned with the plain one."""
    model = tiny_model(family, dtype=BF16, **options)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_((torch.randn(p.shape, generator=generator) * noise).to(p.dtype))
    model.save_pretrained(folder, max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.tensor(name).clone() for name in checkpoint.names}


def weight_vector(folder: Path, coefficient: float = 0.05, seed: int = 3) -> Vector:
    """A low-rank term for each matrix of the model and a dense one for all else."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    terms: dict[Any, Any] = {}
    for name, p in model.named_parameters():
        if p.ndim == 2:
            B = torch.randn(p.shape[0], 2, generator=generator) * coefficient
            A = torch.randn(2, p.shape[1], generator=generator)
            terms[Weight(name)] = LowRank(B, A)
        else:
            terms[Weight(name)] = Dense(torch.randn(p.shape, generator=generator) * coefficient)
    return Vector(terms, Provenance(method="alignment_vector", domain="medical"))


# -- what is written ---------------------------------------------------------------------------


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
    merger_of(model).enter("a", deltas)
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


# -- what is refused ---------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    (tmp_path / "out").mkdir()
    merge_checkpoint(base, [], tmp_path / "out", progress=False)
    before = sorted(p.name for p in (tmp_path / "out").iterdir())
    for target in (tmp_path / "out", base, base / "config.json"):
        with pytest.raises(MergeError, match="the target is in use"):
            merge_checkpoint(base, [], target, progress=False)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before
    with pytest.raises(MergeError, match="parent folder"):
        merge_checkpoint(base, [], tmp_path / "no/where", progress=False)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("disk full"), MergeError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    write, calls = disk._write_shard, iter(range(100))

    def failing(*args: Any) -> None:
        if next(calls) == 2:
            raise error
        write(*args)

    monkeypatch.setattr(disk, "_write_shard", failing)
    with pytest.raises(raised):
        merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aligned", "base"]


def test_a_disk_too_small_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(tmp_path / "base")
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MergeError, match="does not fit on the disk"):
        merge_checkpoint(base, [], tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_residual_sites_are_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    mixed = weight_vector(base) + Vector({Residual(1): Direction(torch.ones(32))})
    with pytest.raises(MergeError, match="residual site"):
        merge_checkpoint(base, [(mixed, 1.0)], tmp_path / "out", progress=False)


def test_a_vector_of_another_model_is_refused(tmp_path: Path) -> None:
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other", width=64)
    with pytest.raises(FitError, match="does not fit"):
        merge_checkpoint(base, [(weight_vector(other), 1.0)], tmp_path / "out", progress=False)


def test_checkpoints_of_different_shapes_are_refused_with_every_name(tmp_path: Path) -> None:
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other", vocab=136)
    with pytest.raises(MergeError, match=r"embed_tokens.weight: \(128, 32\) and \(136, 32\)"):
        merge_checkpoint(base, [(other, 1.0)], tmp_path / "out", progress=False)
    fewer = saved(tmp_path / "fewer", layers=3)
    with pytest.raises(MergeError, match=r"layers.3.\S+: missing in the aligned"):
        merge_checkpoint(base, [(fewer, 1.0)], tmp_path / "out", progress=False)
    with pytest.raises(MergeError, match=r"layers.3.\S+: missing in the base"):
        merge_checkpoint(fewer, [(base, 1.0)], tmp_path / "out", progress=False)


def test_quantised_and_foreign_inputs_are_refused(tmp_path: Path) -> None:
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "fp8"}})
    )
    with pytest.raises(MergeError, match="quantised"):
        merge_checkpoint(base, [(other, 1.0)], tmp_path / "out", progress=False)
    with pytest.raises(MergeError, match="quantised"):
        merge_checkpoint(other, [(base, 1.0)], tmp_path / "out", progress=False)
    (tmp_path / "text").write_text("no vector")
    with pytest.raises(VectorFileError):
        merge_checkpoint(base, [(tmp_path / "text", 1.0)], tmp_path / "out", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        merge_checkpoint(base, [(tmp_path / "empty", 1.0)], tmp_path / "out", progress=False)


def test_a_damaged_vector_file_is_refused(tmp_path: Path) -> None:
    base, path = saved(tmp_path / "base"), tmp_path / "v.safetensors"
    weight_vector(base).save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(VectorFileError, match="damaged"):
        merge_checkpoint(base, [(path, 1.0)], tmp_path / "out", progress=False)


def test_a_vector_file_with_nan_is_refused_though_the_checksums_fit(tmp_path: Path) -> None:
    base, path = saved(tmp_path / "base"), tmp_path / "v.safetensors"
    weight_vector(base).save(path)
    header, body = split(path.read_bytes())
    name, entry = next((n, e) for n, e in header.items() if n != "__metadata__")
    start, stop = entry["data_offsets"]
    values = struct.pack("<f", float("nan")) + body[start + 4 : stop]
    data = join(header, body[:start] + values + body[stop:])

    def digest(document: dict[str, Any]) -> None:
        document["tensors"][name]["sha256"] = hashlib.sha256(values).hexdigest()

    path.write_bytes(forged(data, digest))
    with pytest.raises(VectorFileError, match=r"v\.safetensors: a tensor holds NaN"):
        merge_checkpoint(base, [(path, 1.0)], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_too_large_a_coefficient_is_refused_with_the_tensors_name(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    with pytest.raises(MergeError, match=r"\S+.weight: a merged weight is not finite"):
        merge_checkpoint(base, [(weight_vector(base), 1e39)], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "coefficient", ["1", True, None, float("nan"), float("inf"), 10**400, 1j, [1.0], b"1"]
)
def test_a_coefficient_that_is_no_number_is_refused(tmp_path: Path, coefficient: Any) -> None:
    base = saved(tmp_path / "base")
    with pytest.raises(MergeError, match="a coefficient must be a finite number"):
        merge_checkpoint(
            base, [(weight_vector(base), coefficient)], tmp_path / "out", progress=False
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [None, 0.5, ("a", 1.0, 2.0), (0.5, "folder"), "ab", {}])
def test_what_is_no_pair_is_refused(tmp_path: Path, wrong: Any) -> None:
    base = saved(tmp_path / "base")
    with pytest.raises(MergeError, match="a part to merge must be a pair"):
        merge_checkpoint(base, [wrong], tmp_path / "out", progress=False)


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.float64, torch.tensor])
def test_numbers_of_libraries_are_coefficients(tmp_path: Path, kind: Any) -> None:
    base = saved(tmp_path / "base")
    parts = [(weight_vector(base), 2)]
    merge_checkpoint(base, parts, tmp_path / "plain", progress=False)
    merge_checkpoint(base, [(parts[0][0], kind(2))], tmp_path / "out", progress=False)
    for name, value in tensors(tmp_path / "plain").items():
        assert torch.equal(tensors(tmp_path / "out")[name], value)


# -- memory ------------------------------------------------------------------------------------

_PEAK = """
import re, sys, threading
import torch
from pathlib import Path
from steer.merge import merge_checkpoint
torch.set_num_threads(1)

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

base, part, small, small_part, out = sys.argv[1:]
merge_checkpoint(small, [(small_part, 0.3)], out + "-warm", progress=False)
before, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

thread = threading.Thread(target=watch, daemon=True)
thread.start()
merge_checkpoint(base, [(part, 0.3)], out, progress=False)
done.set()
thread.join()
print((peak - before) * 1024)
"""


def pair(folder: Path, form: str, **sizes: int) -> tuple[Path, Path]:
    """A checkpoint in one file, and what is merged into it: a checkpoint, or a dense vector."""
    model = tiny_model("llama", dtype=BF16, layers=1, **sizes)
    model.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    if form == "dense vector file":
        part = folder / "v.safetensors"
        Vector({Weight(n): Dense(t * 0.01) for n, t in noise.items()}).save(part)
        return folder / "base", part
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_((noise[name] * 0.001).to(BF16))
    model.save_pretrained(folder / "aligned")
    return folder / "base", folder / "aligned"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize("form", ["checkpoint", "dense vector file"])
def test_anonymous_memory_is_at_most_two_of_the_largest_tensors(tmp_path: Path, form: str) -> None:
    base, part = pair(tmp_path / "large", form, vocab=16384, width=512)
    small = pair(tmp_path / "small", form)
    largest = max(t.numel() * 2 for t in tensors(base).values())
    arguments = [str(p) for p in (base, part, *small, tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert largest == 2**24
    assert int(done.stdout.split()[-1]) <= 2 * largest
    assert (tmp_path / "out/model.safetensors").stat().st_size > largest


# -- command line ------------------------------------------------------------------------------


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
