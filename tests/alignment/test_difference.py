"""The difference is exact, complete, recorded, and refused where it has no meaning."""

import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import steer
from steer.algebra import Vector, Weight
from steer.algebra._term import dense
from steer.alignment import alignment_vector, write_alignment_vector
from steer.alignment._source import subtract
from steer.errors import AlignmentError, ArgumentError
from steer.network import Checkpoint
from tests.alignment.models import expected, pair, saved
from tests.store.samples import bits, records
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


QUIET: dict[str, Any] = {"progress": False}


def assert_is(vector: Vector, difference: dict[str, torch.Tensor], *, exact: bool) -> None:
    """The vector holds these differences, rounded to float32 at most, and no more."""
    assert {site.name for site in vector.sites if isinstance(site, Weight)} == set(difference)
    for name, value in difference.items():
        found = dense(vector.terms[Weight(name)])
        assert found.dtype is torch.float32
        assert torch.equal(found.double(), value if exact else value.float().double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_from_disk_and_memory(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base, aligned = pair(family, dtype=dtype)
    folders = [
        saved(model, tmp_path / name, tokenizer=False)
        for name, model in (("base", base), ("aligned", aligned))
    ]
    wanted = expected(base, aligned)
    assert_is(alignment_vector(*folders, **QUIET), wanted, exact=True)
    assert_is(alignment_vector(base, aligned, **QUIET), wanted, exact=True)
    mixed = alignment_vector(base, Checkpoint.open(folders[1]), strict=False, **QUIET)
    assert_is(mixed, wanted, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_weights_are_rounded_once(dtype: torch.dtype) -> None:
    base, aligned = pair("llama", dtype=dtype)
    assert_is(alignment_vector(base, aligned, **QUIET), expected(base, aligned), exact=False)


def test_adding_the_vector_to_bfloat16_weights_gives_the_aligned_model() -> None:
    base, aligned = pair("llama", dtype=torch.bfloat16)
    vector = alignment_vector(base, aligned, **QUIET)
    with torch.no_grad():
        for site, term in vector.terms.items():
            assert isinstance(site, Weight)
            parameter = base.get_parameter(site.name)
            parameter.copy_((parameter.double() + dense(term).double()).to(parameter.dtype))
    for left, right in zip(base.parameters(), aligned.parameters(), strict=True):
        assert torch.equal(left, right)


@given(
    st.floats(-1e3, 1e3, width=16), st.floats(-1.0, 1.0, width=16).filter(lambda step: step != 0.0)
)
def test_a_difference_of_neighbours_is_exact(value: float, step: float) -> None:
    base = torch.tensor([value]).to(torch.bfloat16)
    aligned = (base.float() * (1 + step / 8)).to(torch.bfloat16)
    found = subtract("w", aligned, base)
    exact = float(aligned.double() - base.double())
    assert (0.0 if found is None else float(found.W.double())) == exact


def test_tied_weights_come_once_under_the_embedding_s_name() -> None:
    base, aligned = pair("gpt2", tie_word_embeddings=True)
    vector = alignment_vector(base, aligned, **QUIET)
    assert Weight("transformer.wte.weight") in vector.sites
    assert Weight("lm_head.weight") not in vector.sites


def test_what_does_not_differ_is_left_out_and_equal_models_are_refused() -> None:
    base, aligned = pair("llama")
    same = [n for n, p in base.named_parameters() if torch.equal(p, aligned.get_parameter(n))]
    vector = alignment_vector(base, aligned, **QUIET)
    assert len(vector) == len(list(base.parameters())) - len(same) > 0
    with pytest.raises(AlignmentError, match="the two models are the same"):
        alignment_vector(base, base, **QUIET)


def test_include_takes_what_it_names() -> None:
    base, aligned = pair("llama")
    vector = alignment_vector(base, aligned, include=["*.mlp.*", "lm_head.weight"], **QUIET)
    names = [str(site) for site in vector.sites]
    assert names
    assert all(".mlp." in name or "lm_head" in name for name in names)
    with pytest.raises(AlignmentError, match="include matches no parameter"):
        alignment_vector(base, aligned, include=["*.none.*"], **QUIET)
    with pytest.raises(ArgumentError, match="include must be a sequence"):
        alignment_vector(base, aligned, include="lm_head.weight", **QUIET)


def test_a_vocabulary_that_grew_is_refused_or_left_out() -> None:
    base, aligned = tiny_model("llama", vocab=128), tiny_model("llama", vocab=130, seed=1)
    with pytest.raises(AlignmentError, match="not of one architecture") as caught:
        alignment_vector(base, aligned, **QUIET)
    assert "model.embed_tokens.weight: (128, 32) and (130, 32)" in str(caught.value)
    with pytest.warns(UserWarning, match="vocab_size: 128 and 130"):
        vector = alignment_vector(base, aligned, include=["model.layers.*"], strict=False, **QUIET)
    assert len(vector) == 4 * 9


def test_every_mismatch_is_named_up_to_ten_and_counted() -> None:
    with pytest.raises(AlignmentError) as caught:
        alignment_vector(tiny_model("llama"), tiny_model("gpt2"), **QUIET)
    lines = str(caught.value.found).splitlines()
    assert len(lines) == 11
    assert lines[-1].strip() == f"… {39 + 52} in all"
    with pytest.raises(AlignmentError, match=r"lm_head.weight: \(128, 32\) and missing"):
        alignment_vector(
            tiny_model("llama"), tiny_model("llama", tie_word_embeddings=True), **QUIET
        )


def test_another_configuration_is_refused_unless_told_otherwise() -> None:
    base, aligned = tiny_model("llama"), tiny_model("llama", seed=1, rms_norm_eps=1e-3)
    with pytest.raises(AlignmentError, match=r"rms_norm_eps: 1e-06 and 0.001"):
        alignment_vector(base, aligned, **QUIET)
    with pytest.warns(UserWarning, match="rms_norm_eps"):
        alignment_vector(base, aligned, strict=False, **QUIET)
    harmless = tiny_model("llama", seed=1, attention_dropout=0.1, bos_token_id=5)
    alignment_vector(base, harmless, **QUIET)


@pytest.mark.parametrize("what", ["tokenizer", "chat template"])
def test_another_tokenizer_or_template_is_refused_unless_told_otherwise(
    what: str, tmp_path: Path
) -> None:
    base, aligned = pair("llama")
    folders = [saved(base, tmp_path / "base"), saved(aligned, tmp_path / "aligned")]
    changed = tiny_tokenizer()
    if what == "tokenizer":
        changed.add_tokens(["<extra>"])
    else:
        changed.chat_template += "!"
    changed.save_pretrained(folders[1])
    with pytest.raises(AlignmentError, match=f"the {what} differs"):
        alignment_vector(*folders, **QUIET)
    with pytest.warns(UserWarning, match=f"the {what} differs"):
        alignment_vector(*folders, strict=False, **QUIET)
    lm = steer.Model(base, tiny_tokenizer())
    with pytest.raises(AlignmentError, match=f"the {what} differs"):
        alignment_vector(lm, folders[1], **QUIET)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    base, aligned = pair("llama")
    with torch.no_grad():
        aligned.get_parameter("model.norm.weight")[3] = value
    with pytest.raises(AlignmentError, match=r"difference of model.norm.weight is not finite"):
        alignment_vector(base, aligned, **QUIET)


class WithBuffers(nn.Module):
    """A module with a trained buffer, a count and a position table."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3) + shift)
        self.register_buffer("bias_correction", torch.ones(2))
        self.register_buffer("steps", torch.tensor(round(shift * 8)))
        self.register_buffer("positions", torch.ones(2) + shift, persistent=False)


def test_buffers_computed_or_counted_are_skipped_and_trained_ones_refused() -> None:
    base, aligned = WithBuffers(0.0), WithBuffers(0.5)
    vector = alignment_vector(base, aligned, **QUIET)
    assert [str(site) for site in vector.sites] == ["weight:weight"]
    assert vector.provenance.model is None
    aligned.get_buffer("bias_correction").add_(1.0)
    with pytest.raises(AlignmentError, match="buffers of the two models differ"):
        alignment_vector(base, aligned, **QUIET)


def test_weights_that_are_not_there_or_no_numbers_are_refused() -> None:
    base, aligned = pair("llama")
    with pytest.raises(AlignmentError, match="is offloaded"):
        alignment_vector(base, aligned.to("meta"), **QUIET)
    quantised = nn.Linear(2, 2)
    quantised.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(AlignmentError, match=r"quantised \(torch.int8\)"):
        alignment_vector(quantised, quantised, **QUIET)
    name = "model.layers.0.mlp.up_proj.weight"
    models = pair("llama")
    for model in models:  # codes, whose scales stand elsewhere
        codes = model.get_parameter(name).detach().to(torch.float8_e4m3fn)
        model.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(codes, False)
    with pytest.raises(AlignmentError, match=rf"{name} is quantised \(torch.float8_e4m3fn\)"):
        alignment_vector(*models, **QUIET)


def test_the_record_says_how_it_was_made(tmp_path: Path) -> None:
    base, aligned = pair("llama")
    folders = [saved(base, tmp_path / "base"), saved(aligned, tmp_path / "aligned")]
    made = alignment_vector(*folders, rank=2, domain="medical", **QUIET).provenance
    assert (made.method, made.domain, made.version) == (
        "alignment_vector",
        "medical",
        steer.__version__,
    )
    assert made.arguments["base"] == str(folders[0])
    assert made.arguments["aligned"] == str(folders[1])
    assert made.arguments["rank"] == 2
    kept = made.arguments["kept_energy"]
    assert isinstance(kept, float)
    assert 0.0 < kept < 1.0
    assert made.model == steer.Model(base, tiny_tokenizer()).info.__class__(
        str(folders[0]), None, 2, 32, *_marks(base)
    )


def _marks(model: Any) -> tuple[str, str, str]:
    info = steer.Model(model, tiny_tokenizer()).info
    return info.config, info.tokenizer, info.template


@pytest.mark.parametrize("options", [{}, {"rank": 3}, {"energy": 0.7}, {"dtype": torch.bfloat16}])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_writing_gives_what_taking_gives(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    base, aligned = pair(family, dtype=torch.bfloat16)
    written, kept = tmp_path / "written.safetensors", tmp_path / "saved.safetensors"
    table = write_alignment_vector(base, aligned, written, **options, **QUIET)
    vector = alignment_vector(base, aligned, **options, **QUIET)
    vector.save(kept)
    loaded = Vector.load(written)
    assert records(loaded) == records(Vector.load(kept))
    assert bits(loaded) == bits(vector)
    assert [row.name for row in table.rows] == [
        s.name for s in vector.sites if isinstance(s, Weight)
    ]
    for row in table.rows:
        assert row.shape == vector.terms[Weight(row.name)].shape


def test_a_file_written_where_everything_differs_is_the_file_saved(tmp_path: Path) -> None:
    base, aligned = tiny_model("gpt2"), tiny_model("gpt2", seed=1)
    alignment_vector(base, aligned, **QUIET).save(tmp_path / "saved")
    write_alignment_vector(base, aligned, tmp_path / "written", **QUIET)
    assert (tmp_path / "written").read_bytes() == (tmp_path / "saved").read_bytes()


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    base, aligned = pair("llama")
    with torch.no_grad():
        aligned.get_parameter("model.norm.weight")[0] = torch.nan
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"before")
    with pytest.raises(AlignmentError):
        write_alignment_vector(base, aligned, out, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert out.read_bytes() == b"before"


def test_a_checkpoint_of_another_dtype_is_compared_in_float32(tmp_path: Path) -> None:
    base, aligned = pair("llama", dtype=torch.bfloat16)
    folder = saved(aligned.float(), tmp_path, shard="1GB", tokenizer=False)
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float32}
    vector = alignment_vector(base, folder, **QUIET)
    assert_is(vector, expected(base, aligned), exact=True)


def test_models_are_not_changed() -> None:
    base, aligned = pair("llama")
    before = [p.detach().clone() for p in (*base.parameters(), *aligned.parameters())]
    alignment_vector(base, aligned, rank=2, **QUIET)
    after = [*base.parameters(), *aligned.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_nothing_but_the_bar_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base, aligned = pair("llama")
    folders = [saved(base, tmp_path / "base"), saved(aligned, tmp_path / "aligned")]
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alignment_vector(*folders, **QUIET)
    assert capfd.readouterr() == ("", "")
    alignment_vector(*folders)
    assert capfd.readouterr() == ("", ""), "a bar was written where nobody watches"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        alignment_vector(*folders)
        assert "difference" in sys.stderr.getvalue()


def test_a_quantised_checkpoint_of_floats_is_refused(tmp_path: Path) -> None:
    """Eight-bit floats mean nothing without their scales."""
    base, aligned = pair("llama")
    folder = saved(aligned, tmp_path, shard="1GB", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(steer.errors.CheckpointError, match=r"lm_head.weight: quantised"):
        alignment_vector(base, folder, **QUIET)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_model_changed_in_memory_is_not_recorded_as_its_base(wrapped: bool) -> None:
    base, aligned = pair("llama")
    base.config._name_or_path = aligned.config._name_or_path = "owner/base"
    sides = [steer.Model(m, tiny_tokenizer()) if wrapped else m for m in (base, aligned)]
    arguments = alignment_vector(*sides, **QUIET).provenance.arguments
    assert arguments["base"] == "owner/base"
    assert arguments["aligned"] == "owner/base, changed in memory"


def test_a_base_changed_in_memory_is_not_recorded_as_the_folder_it_came_from(
    tmp_path: Path,
) -> None:
    base, aligned = pair("llama")
    folder = saved(aligned, tmp_path, tokenizer=False)
    base.config._name_or_path = str(folder)
    arguments = alignment_vector(base, folder, strict=False, **QUIET).provenance.arguments
    assert arguments["base"] == f"{folder}, changed in memory"
    assert arguments["aligned"] == str(folder)
