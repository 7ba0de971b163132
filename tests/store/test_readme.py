"""The description of the format in `vectors/README.md` is true."""

import json
import re
from pathlib import Path

import pytest
import torch

from steer.algebra import Weight
from tests.store.samples import KEY, forged, full, split, write

README = (Path(__file__).parents[2] / "vectors" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def read():
    code = next(c for c in re.findall(r"```python\n(.*?)```", README, re.S) if "def read" in c)
    assert len([line for line in code.splitlines() if line]) <= 22
    names: dict = {}
    exec(code, names)
    return names["read"]


def test_the_reader_reads(read, tmp_path):
    full().save(tmp_path / "v")
    tensors, document = read(tmp_path / "v")
    assert list(tensors) == [str(site) for site in full().sites]
    assert torch.equal(tensors["resid_post.2"]["v"], full().direction(2))
    assert torch.equal(
        tensors["weight:lm_head.weight"]["A"], full().terms[Weight("lm_head.weight")].A
    )
    assert document["tuning"]["coefficient"] == -0.75


def test_the_reader_refuses_changes_and_newer_versions(read, tmp_path):
    full().save(tmp_path / "v")
    good = (tmp_path / "v").read_bytes()
    with pytest.raises(ValueError, match="was changed"):
        read(write(tmp_path / "x", good.replace(b"medical", b"musical")))
    newer = forged(good, lambda document: document.update(format_version=2))
    with pytest.raises(ValueError, match="does not know"):
        read(write(tmp_path / "x", newer))


def members(value, prefix=()):
    for name, item in value.items():
        yield (*prefix, name)
        inner = item[0] if isinstance(item, list) and item else item
        if isinstance(inner, dict) and name not in ("arguments", "tensors"):
            yield from members(inner, (*prefix, name))


def test_the_document_is_described_member_by_member(tmp_path):
    full().save(tmp_path / "v")
    header, _ = split((tmp_path / "v").read_bytes())
    assert all(f"`{key}`" in README for key in header["__metadata__"])
    known = {name for path in members(json.loads(header["__metadata__"][KEY])) for name in path}
    table = README.split("## The document, version 1")[1].split("## Rules")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| ")][1:]
    named = {
        name for cell in cells for code in re.findall(r"`([^`]+)`", cell) for name in words(code)
    }
    inside = {name for code in re.findall(r"`(\{[^`]+\})`", table) for name in words(code)}
    assert named | inside == known


def words(code):
    return re.findall(r"[a-z_0-9]+", code)
