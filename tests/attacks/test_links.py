"""What is merged holds only what belongs to the model, whatever links its folder holds."""

import os
from pathlib import Path

import pytest

from steer.errors import CheckpointError
from steer.merge import merge_checkpoint
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


def model(folder: Path) -> Path:
    """A model with its tokenizer."""
    tiny_model("llama", layers=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def refused(base: Path, out: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        merge_checkpoint(base, [], out, progress=False)
    assert not out.exists()
    assert [p.name for p in out.parent.iterdir() if p.name.endswith(".tmp")] == []
    return str(caught.value)


@pytest.mark.parametrize("at", ["notes.txt", "additional_chat_templates/tool.jinja"])
@pytest.mark.parametrize("target", ["secret", "/dev/zero", "/etc/passwd", "nowhere", "at itself"])
def test_links_that_lead_out_are_refused(at: str, target: str, tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    (tmp_path / "secret").write_text("a password")
    (base / at).parent.mkdir(exist_ok=True)
    where = base / at if target == "at itself" else tmp_path / target
    (base / at).symlink_to(where)
    assert str(base / at) in refused(base, tmp_path / "out")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    os.mkfifo(base / "pipe")
    assert "a device or pipe" in refused(base, tmp_path / "out")


def test_a_folder_of_templates_may_not_be_elsewhere(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("a password")
    (base / "additional_chat_templates").symlink_to(tmp_path / "private")
    assert "additional_chat_templates" in refused(base, tmp_path / "out")


def test_links_within_the_folder_are_copied_as_files(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    (base / "notes.txt").symlink_to("config.json")
    out = merge_checkpoint(base, [], tmp_path / "out", progress=False)
    assert not (out / "notes.txt").is_symlink()
    assert (out / "notes.txt").read_bytes() == (base / "config.json").read_bytes()


def downloaded(cache: Path, plain: Path) -> Path:
    """A model as the cache of downloaded models holds it: links from a commit to its blobs."""
    snapshot, blobs = cache / "models--a--b" / "snapshots" / "c0ffee", cache / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(plain.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_a_downloaded_model_is_copied(tmp_path: Path) -> None:
    snapshot = downloaded(tmp_path / "cache", model(tmp_path / "plain"))
    out = merge_checkpoint(snapshot, [], tmp_path / "out", progress=False)
    expected = {p.name: p.read_bytes() for p in snapshot.iterdir()}
    found = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "steer.json"}
    assert found == expected
    assert not any(p.is_symlink() for p in out.iterdir())


def test_a_cache_whose_blobs_lie_elsewhere_is_no_way_out(tmp_path: Path) -> None:
    snapshot = downloaded(tmp_path / "cache", model(tmp_path / "plain"))
    private = tmp_path / "private"
    snapshot.parent.parent.joinpath("blobs").rename(private)
    snapshot.parent.parent.joinpath("blobs").symlink_to(private)
    assert "private" in refused(snapshot, tmp_path / "out")
