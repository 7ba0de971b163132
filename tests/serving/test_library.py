"""What a request is resolved to, and what keys of a prefix cache it may share."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import steer
from steer.errors import ArgumentError, CapabilityError, CompositionError
from steer.serving._adapters import rank
from steer.serving._folder import read_folder, residuals
from steer.serving._library import Library, salt
from steer.serving._setting import NO_END, read_setting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    steer.Vector.of({1: torch.ones(4)}).save(tmp_path / "a.safetensors")
    steer.Vector.of({1: -torch.ones(4)}).save(tmp_path / "b.safetensors")
    return tmp_path


def _entries(folder: Path, document: object, prompt: int = 10) -> list:
    library = Library(residuals(read_folder(str(folder))))
    return library.entries(read_setting(document, 8), prompt)


def test_entries_name_slot_coefficient_and_positions(folder: Path) -> None:
    found = _entries(folder, {"coefficients": {"b": 2.0, "a": 0.0}, "scope": "response"})
    assert [(slot, c, first, end) for slot, _, c, first, end in found] == [(1, 2.0, 10, NO_END)]


def test_an_unknown_domain_is_refused_with_those_that_are_loaded(folder: Path) -> None:
    with pytest.raises(CompositionError, match="a, b"):
        _entries(folder, {"c": 1.0})


def test_a_salt_follows_content_and_positions(folder: Path) -> None:
    def key(document: object, prompt: int = 10, own: str | None = None) -> str:
        return salt(_entries(folder, document, prompt), own)

    everywhere = key({"a": 1.0})
    assert key({"a": 1.0}, prompt=20) == everywhere
    assert key({"a": 1.0, "b": 0.0}) == everywhere
    response = {"coefficients": {"a": 1.0}, "scope": "response"}
    assert len({everywhere, key({"a": 1.5}), key({"b": 1.0}), key(response)}) == 4
    assert key(response, prompt=20) != key(response)
    assert key({"a": 1.0}, own="x") != everywhere
    steer.Vector.of({1: 2 * torch.ones(4)}).save(folder / "a.safetensors")
    assert key({"a": 1.0}) != everywhere


def test_a_salt_cannot_be_computed_outside_the_server() -> None:
    """Everything but the secret is known to clients: content, coefficient, positions, own salt."""
    code = "from steer.serving._library import salt; print(salt([(0, 'a', 1.0, 0, 9)], None))"
    here = [sys.executable, "-c", code]
    assert subprocess.check_output(here) != subprocess.check_output(here)


def test_a_folder_that_cannot_be_served_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        read_folder(str(tmp_path / "nowhere"))
    steer.Vector.of({-1: torch.ones(4)}).save(folder / "e.safetensors")
    with pytest.raises(CapabilityError, match="'e' cannot be served"):
        read_folder(str(folder))


def test_a_full_change_of_weights_is_refused_and_a_low_rank_one_has_its_rank() -> None:
    site = steer.Weight("w.weight")
    low = steer.Vector({site: steer.LowRank(torch.ones(4, 2), torch.ones(2, 4))})
    assert rank({"a": low, "b": low}) == 4
    with pytest.raises(CapabilityError, match="low-rank"):
        rank({"a": steer.Vector({site: steer.Dense(torch.ones(4, 4))})})
