"""The model card of a repository: what its vectors do, where that ends, and how to use them."""

import os
import re
from collections.abc import Mapping, Sequence

from steer.algebra._cards.vectors import model_fact
from steer.algebra._provenance import ModelInfo, Tuning
from steer.algebra._site import Residual, Weight
from steer.algebra._vector import Vector
from steer.errors import ArgumentError
from steer.show import Shown
from steer.show._markdown import card_markdown, markdown_text

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_LIMITS = """- A vector can change more than its name says. KL measures how much the output changes.
- Accuracy is the share of held-out pairs whose preferred answer is likelier than the other. It does
  not measure the text that a steered model writes. If no accuracy is shown, none was recorded.
- The library refuses a model with another configuration, tokenizer or chat template. It does not
  compare weights.
- A stored gate acts only if it is passed explicitly."""


def measured(results: Sequence[Shown | str]) -> list[str]:
    """Return what was measured as Markdown: cards of results, and texts as they are."""
    found = []
    for result in results:
        if isinstance(result, str):
            found.append(result.strip())
        elif isinstance(result, Shown):
            card = result._card()
            found.append(f"### {markdown_text(card.title)}\n\n{card_markdown(card)}")
        else:
            raise ArgumentError(
                "a model card cannot show this",
                found=type(result).__name__,
                expected="a result that prints itself, such as what select returned, or Markdown",
                do="pass str(result), or leave it out",
            )
    return found


def model_card(vectors: Mapping[str, Vector], repo: str, results: Sequence[str]) -> str:
    """Return the README of a repository with these vectors and results."""
    from huggingface_hub import ModelCardData

    licences = _licences(vectors)
    bases = [base for base in map(_hub_id, _models(vectors)) if base]
    data = ModelCardData(
        library_name="steer",
        tags=["steer", "activation-steering", *_kinds(vectors)],
        base_model=bases or None,
        base_model_relation="adapter" if bases else None,
        license=_identifier(licences),
    )
    parts = [f"# {repo.split('/')[-1]}", _about(vectors)]
    parts += [f"## {markdown_text(d)}\n\n{card_markdown(v._card())}" for d, v in vectors.items()]
    parts += ["## Measured", *(results or ["No baselines or other results were provided."])]
    parts += [f"## Use\n\n{_here(vectors, repo, bases)}", f"## Use elsewhere\n\n{_there(vectors)}"]
    said = ", ".join(map(markdown_text, licences)) or "None is stated"
    parts += [f"## Limits\n\n{_LIMITS}", f"## Licence\n\n{said}, as in the files."]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _models(vectors: Mapping[str, Vector]) -> list[ModelInfo]:
    """Return the models that vectors were made for, each once."""
    found = [vector.provenance.model for vector in vectors.values()]
    return list(dict.fromkeys(model for model in found if model is not None))


def _hub_id(model: ModelInfo) -> str | None:
    """Return the id of a model on the Hub; None for what is a path, or may be one."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    name = model.model_id
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name if name.count("/") == 1 and not os.path.exists(name) else None


def _licences(vectors: Mapping[str, Vector]) -> list[str]:
    return sorted({v.provenance.license for v in vectors.values() if v.provenance.license})


def _identifier(licences: Sequence[str]) -> str | None:
    """Return the Hub's identifier of a licence, `other` where the text is needed."""
    named = len(licences) == 1 and _IDENTIFIER.fullmatch(licences[0])
    return (licences[0].lower() if named else "other") if licences else None


def _kinds(vectors: Mapping[str, Vector]) -> list[str]:
    kinds = {type(site) for vector in vectors.values() for site in vector.sites}
    named = {Residual: "steering-vector", Weight: "task-vector"}
    return [name for kind, name in named.items() if kind in kinds]


def _about(vectors: Mapping[str, Vector]) -> str:
    models = [markdown_text(model_fact(model)) for model in _models(vectors)]
    made = f" for {'; '.join(models)}" if models else ""
    count = "A vector" if len(vectors) == 1 else f"Vectors of {len(vectors)} domains"
    return (
        f"{count}{made}. Each file holds one domain; `pip install residual-steer` reads it. A "
        "coefficient sets the strength; 0 is the unsteered model."
    )


def _here(vectors: Mapping[str, Vector], repo: str, bases: Sequence[str]) -> str:
    """Return the code that steers with these vectors, as they are meant."""
    gated = next((domain for domain, vector in vectors.items() if vector.gate is not None), None)
    if gated is None and len(vectors) == 1:
        [vector] = vectors.values()
        tuned = vector.tuning or Tuning(None, 1.0)
        part = "" if tuned.layer is None or len(vector) == 1 else f"[{tuned.layer}]"
        lines = [f"vector = steer.Vector.from_hub({repo!r})"]
        what = f"vector{part}, {tuned.coefficient:.4g}"
    else:
        lines, what = [f"knobs = steer.Composition.from_hub({repo!r})"], "knobs"
        if gated is not None:
            lines.append(f"knobs = knobs.gated(knobs.parts[{gated!r}].vector.gate)")
    base = bases[0] if bases else "MODEL"
    lines = ["import steer", "", f"lm = steer.Model.from_pretrained({base!r})", *lines]
    lines += [f"with lm.steered({what}):", '    print(lm.generate("…"))']
    return (
        "```python\n" + "\n".join(lines) + "\n```\n\nPass `revision=` to pin a commit. "
        'A loaded vector names its commit in `provenance.arguments["hub"]`.'
    )


def _there(vectors: Mapping[str, Vector]) -> str:
    """Return how other programs use these files."""
    said = []
    directions = [(domain, vector) for domain, vector in vectors.items() if vector.layers]
    if directions:
        domain, vector = directions[0]
        tuned = vector.tuning.layer if vector.tuning else None
        site = Residual(vector.layers[0] if tuned is None else tuned)
        said.append(
            "Add the direction to the output of its decoder block:\n\n"
            "```python\nfrom safetensors.torch import load_file\n\n"
            f"tensors = load_file({f'{domain}.safetensors'!r})\n"
            f'direction = tensors["{site}.v"]  # h + c * direction\n```\n\n'
            "`steer export FILE:C vector.gguf` writes a llama.cpp control vector; `--to` selects "
            "other formats."
        )
    if any(len(vector) > len(vector.layers) for vector in vectors.values()):
        said.append(
            "`steer merge MODEL -v FILE:C -o FOLDER` merges weight differences into a checkpoint; "
            "`steer export FILE:C FOLDER --to peft --with base=MODEL` writes low-rank ones as a "
            "LoRA adapter."
        )
    return "\n\n".join(said)
