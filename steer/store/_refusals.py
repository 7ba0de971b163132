"""The errors for files that cannot be used; a foreign file is named for what it is."""

from collections.abc import Sequence

from steer.errors import VectorFileError

_KINDS = {
    "steer.vector": ("a vector file", "Vector"),
    "steer.activations": ("a file of recorded activations", "Activations"),
}
_BEGINNINGS = (
    (
        b"GGUF",
        "a GGUF file",
        "import a control vector: steer import FILE OUT.safetensors, or steer.exchange.read(path)",
    ),
    (
        b"PK\x03\x04",
        "a zip archive, as torch.save writes",
        "read a file of tensors alone with steer.exchange.read; pickles are never read",
    ),
    *((bytes([0x80, p]), "a pickle", "pickles are never read") for p in (2, 3, 4, 5)),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
    (b"\x93NUMPY", "a NumPy array", "build a vector with Vector.of({layer: tensor})"),
    (b"<", "an HTML or XML page", "download the raw file"),
    (b"{", "a JSON text", "of pairs, make a vector first: steer extract MODEL PAIRS -o FILE"),
)


def not_safetensors(beginning: bytes, size: int, length: int) -> VectorFileError:
    """Return the error for a file that does not begin like a safetensors file."""
    found = f"{size} bytes, of which the first 8 announce a header of {length}"
    do = "name a file written by save; if it was one, get it again"
    if size == 0:
        found = "an empty file"
    for magic, name, advice in _BEGINNINGS:
        if beginning.startswith(magic):
            found, do = name, advice
            break
    return VectorFileError(
        "not a safetensors file, or a truncated one",
        found=found,
        expected="8 bytes of header length, a JSON header of that length, tensors",
        do=do,
    )


def not_ours(key: str, keys: Sequence[str], names: Sequence[str]) -> VectorFileError:
    """Return the error for a safetensors file without the wanted metadata key."""
    wanted = _KINDS[key]
    adapter = any(".lora_A" in name or ".lora_B" in name for name in names)
    kind = "a PEFT adapter" if adapter else "a model's weights or another library's vector"
    kind = next((_KINDS[other][0] for other in keys if other in _KINDS), kind)
    shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return VectorFileError(
        f"a safetensors file, but not {wanted[0]}: it looks like {kind}",
        found=f"{len(names)} tensors: {shown}",
        expected=f"the metadata key {key!r}",
        do=f"name a file written by {wanted[1]}.save",
    )


def damaged(found: str, expected: str) -> VectorFileError:
    """Return the error for a file whose parts disagree."""
    return VectorFileError(
        "the file is damaged",
        found=found,
        expected=expected,
        do="get the file again; to change a description, load the file and save another",
    )


def wrong(where: str, found: object, expected: str) -> VectorFileError:
    """Return the error for an unusable value at a path of the header."""
    return VectorFileError(
        f"{where} in the header cannot be used",
        found=found,
        expected=expected,
        do="if you load: get the file again; if you save: correct this record",
    )
