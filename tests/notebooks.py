"""Runs the notebooks and checks their figures: ``python -m tests.notebooks``.

Each notebook in ``notebooks/`` is run from top to bottom in an empty folder, on one core and within
60 seconds of its time, 180 with the real model, with one cell more than it shows: the assertions of
``CHECKS`` on its variables. What it prints must be what is stored in it, up to small differences of
measured numbers; of the real model only the kinds of outputs are compared, since a word of a long
answer can hang on the last bit of a processor. ``--write`` stores what it printed. Names
(``04-study``) take these only.
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell

from steer.demo import MODEL_PATH
from tests.repository.blocks import differs

FOLDER = Path(__file__).parents[1] / "notebooks"
SECONDS = 60.0  # of CPU time, with one thread
_REAL = dict.fromkeys(  # with the real model
    ("01-quickstart.ipynb", "03-choosing.ipynb", "04-study.ipynb", "05-hybrid.ipynb"), 180.0
)
_WAIT = 10 * SECONDS  # on a clock: other work may have the core
_IN_TIME = """
import time as _time
assert _time.process_time() < {}, f"{{_time.process_time():.0f}} seconds of CPU time"
"""
_PICTURE = re.compile(r'"image/png": "[^"]*"')  # its letters are chance
_WIDGET = "application/vnd.jupyter.widget-view+json"
CHECKS = {
    "01-quickstart.ipynb": """
assert len(train) == 36 and len(unseen) == 12 and train.domains == ("cheerful",)
assert not {p.prompt for p in train} & {p.prompt for p in unseen}, "split by question"
assert activations.positions == ("template[-1]", "response_mean")
assert choice.evidence["cheerful"].gain > 0, choice
assert choice.test["cheerful"].value >= choice.baselines["cheerful"]["base"].value, choice
assert choice.best.kl <= 0.5, choice
with lm.steered(choice.vector, 0.0):
    assert three[1] == lm.generate([ASKED[0]] * 3, max_new_tokens=28)[1], "0 changes nothing"
assert shares[-1] >= shares[2] + 3 / 6 and shares[-1] > shares[0], shares
assert gate.accuracy >= 0.8, gate.accuracy
assert gated[0] != gated[2] and gated[1] == gated[3], gated
assert torch.equal(loaded.direction(choice.layer), choice.vector.direction(choice.layer))
""",
    "02-domains.ipynb": """
assert spoken[:4, 0, 0].max() >= 0.9 and spoken[5:, 0, 2].max() >= 0.9, spoken[:, 0]
assert likely[-1, 0, 2] >= 0.8, likely[:, 0]
assert gate.accuracy >= 0.98
assert reached["weights", True] > reached["weights", False], reached
assert max(reached.values()) >= 20, reached
""",
    "03-choosing.ipynb": """
halves = [e.value for found in agree.values() for e in found.measures["split-half cosine"]]
assert len(halves) == 6 and min(halves) >= 0.9, halves
assert choice.screened.candidates == 6 and choice.screened.kept == 4, choice
assert {trial.layer for trial in choice.trials} <= {8, 14, 20} and choice.layer in (14, 20), choice
assert choice.best.kl <= 0.5 and choice.limits.kl == 0.5, choice
assert evidence.gain > 0.1 and evidence.gained >= 4 and choice.palrs.kl <= 0.5, choice
assert choice.palrs.position == "template[-1]" and evidence.gain > choice.palrs.gain, choice
assert 0.1 < choice.displacement < 0.5 and abs(tenth * per_norm - 0.1) < 0.02, choice
assert 0 < fifth < choice.coefficient, fifth
assert cheerful["chosen"] >= 2 > cheerful["unsteered"] and cheerful["random vector"] <= 1, cheerful
assert answers["chosen"] != answers["unsteered"], answers
""",
    "04-study.ipynb": """
assert min(e.value for e in read.auc) > 0.85, read
for k in range(1, len(LAYERS)):
    assert max(abs(f.d_prime[k].value) for f in chance) < read.d_prime[k].value, (k, read, chance)
assert layer in (10, 14, 18) and float(acts[layer].mean()) > 0.25, acts
assert all(float(found.mean()) < float(acts[layer].mean()) for found in noise.values()), noise
assert all(fits[s][0] > 0.75 and abs(fits[s][1] - 1) < 0.25 for s in (-0.05, 0.05)), fits
assert all(fits[s][0] > 0.65 and 0.5 < fits[s][1] < 1 for s in (-0.2, 0.2)), fits
assert glad > dry, (glad, dry)
at, last = LAYERS.index(layer), lm.n_layers - 1
assert float(moved.mean[:layer].abs().max()) < 1e-4 and moved.cosine[layer].value > 0.999, moved
assert moved.cosine[last].value < 0.5 < moved.relative[last].value + 0.4, moved
assert abs(cosine) < 0.4 and gaps["nothing"].mean().abs() < 0.3, (cosine, gaps)
assert float(gaps["the vector"].mean()) > 0.5 * float(gaps["nothing"].mean()), "C fails"
assert counts[3] >= 2 > counts[1] and counts[3] > counts[0] and counts[4] <= 1, counts
assert float(at_test["vector"].mean()) > 0.2, at_test
assert float(at_test["vector"].mean()) > float(at_test["random"].mean()) + 0.1, at_test
""",
    "05-hybrid.ipynb": """
assert len(weights.sites) == 210 and len(residual.sites) == 1 and len(hybrid.sites) == 211
assert all(kl < 1.5 for kl, _ in measured.values()), measured
assert all(gained > 0.1 for _, gained in measured.values()), measured
assert 0.6 < measured["both"][1] / apart < 1.5, measured
assert measured["weights alone"][0] < measured["residual alone"][0], measured
assert counts["both"] >= 2 > counts["unsteered"] and counts["both, reversed"] <= 1, counts
assert answers["weights alone"] != answers["unsteered"], answers
assert all(abs(bridge.cosine[k].value) < 0.4 for k in (6, 14, 22, 29)), bridge
assert bridge.relative[29].value > bridge.relative[6].value > 0.001, bridge
assert gated[0] != gated[2] and gated[1] == gated[3], gated
assert loaded.sites == hybrid.sites
assert float((by_hybrid - by_parts).abs().max()) < 1e-3
""",
    "06-your-model.ipynb": """
assert (len(train), len(validation), len(test)) == (60, 30, 30), everything
assert not set(train) & set(validation) and not (set(train) | set(validation)) & set(test)
assert max(halves.values()) > 0.95 and max(apart.values()) > 3, (halves, apart)
((found_at,),) = [choice.held_out.values()]
assert choice.likelihood_effect and choice.best.kl <= KL_BUDGET, choice
assert found_at.steered.value >= 0.9 and found_at.steered.value > found_at.base.value, choice
assert all(found.rows[0]["margin"] < 0 < found.rows[-1]["margin"] for found in swept.values())
assert again == answers[1] and len({tuple(texts) for texts in answers.values()}) == 3, answers
assert loaded.tuning.layer == choice.layer and max(repeated.values()) < 0.1, repeated
assert "Choice" in str(page) and all("a prompt does as well" in doubt for doubt in doubts), doubts
""",
    "07-real-model.ipynb": """
late = {method: at["cheerful", 22, method] for method in ("mean", "gradient", "words", "generated")}
gained = {method: sum(row["gains"]) / len(row["gains"]) for method, row in late.items()}
assert gained["gradient"] > 2 * gained["words"] and gained["gradient"] > 2 * gained["mean"], gained
assert late["gradient"]["tokens"]["rejected marks"] < -3, late["gradient"]["tokens"]
assert late["generated"]["judged"] > late["gradient"]["judged"], "likelihood and text part ways"
new = [key for key in at if key[2] == "layers" and key[0] in ("formal", "terse", "wealth-seeking")]
assert len(new) == 3 and at["formal", 14, "layers"]["judged"] == 0, new
ten = [row["cosine"] for row in rows("pairs") if row["pairs"] == 10]
assert len(ten) == 3 and min(ten) > 0.9, ten
(deep,) = (row for row in rows("inside") if row["layer"] == 22)
assert sum(deep["gains"]["displacement"]) > 2 * sum(deep["gains"]["mean of its norm"]), deep
sides = [by_answer(row) for row in rows("shuffled")]
assert len(sides) == 9 and all(yes * no < 0 and abs(yes + no) < 0.5 for yes, no in sides), sides
""",
}


def main() -> int:
    """Run the notebooks; return 0 if all are as they should be, else 1."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", help="notebooks to run, by default all")
    arguments.add_argument("--write", action="store_true", help="store what the notebooks print")
    given = arguments.parse_args()
    there = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    asked = [name.removesuffix(".ipynb") for name in given.names]
    wanted = asked or list(dict.fromkeys([*there, *(Path(name).stem for name in CHECKS)]))
    problems = []
    for name in wanted:
        known = name in there
        found = check(there[name], write=given.write) if known else ["there is no such notebook"]
        problems += found
        sys.stdout.write(f"{name}: {'; '.join(found) or 'ok'}\n")
    return 1 if problems else 0


def check(path: Path, *, write: bool = False) -> list[str]:
    """Return what is wrong with a notebook; nothing if it runs and prints what it shows.

    Args:
        path: The notebook.
        write: Whether to store what it prints instead of comparing.
    """
    if path.name not in CHECKS:
        return ["no assertions for it in tests/notebooks.py"]
    stored = nbformat.read(path, as_version=4)
    try:
        limit = _REAL.get(path.name, SECONDS)
        run = executed(stored, CHECKS[path.name] + _IN_TIME.format(limit))
    except (TimeoutError, DeadKernelError):  # a kernel that is cancelled is reported dead
        return [f"not done after {_WAIT:.0f} seconds, or its kernel died"]
    except CellExecutionError as error:
        return [str(error)]
    if write:
        nbformat.write(run, path)
        return []
    nbformat.validate(stored)
    return _differences(stored, run, texts=path.name not in _REAL) + _machine(path)


def executed(notebook: Any, assertions: str) -> Any:
    """Return a notebook as it is after it ran in an empty folder, without its traces of time."""
    run = nbformat.from_dict(notebook)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    run.cells.append(new_code_cell(assertions))
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            run,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            coalesce_streams=True,  # how prints are cut into outputs is chance
        )
        env = os.environ | {"OMP_NUM_THREADS": "1"}  # one core is enough
        asyncio.run(asyncio.wait_for(client.async_execute(env=env), _WAIT))
    run.cells.pop()
    for cell in run.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not _passing(o)]
    run.metadata.pop("widgets", None)
    run.metadata["language_info"] = {"name": "python"}
    return nbformat.reads(nbformat.writes(run).replace(str(MODEL_PATH), "demo model"), as_version=4)


def _passing(output: Any) -> bool:
    """Return whether an output is a warning or a progress bar."""
    return output.get("name") == "stderr" or _WIDGET in output.get("data", {})


def _differences(stored: Any, run: Any, *, texts: bool) -> list[str]:
    problems = []
    for number, (old, new) in enumerate(zip(stored.cells, run.cells, strict=True)):
        if old.cell_type != "code":
            continue
        if _kinds(old) != _kinds(new):
            problems.append(f"cell {number}: outputs {_kinds(new)}, stored {_kinds(old)}")
        elif texts and (difference := differs(_text(new), _text(old))):
            problems.append(f"cell {number}: {difference}")
    return problems


def _kinds(cell: Any) -> list[str]:
    return [
        f"{output.output_type} {','.join(sorted(output.get('data', {})))}".strip()
        for output in cell.outputs
    ]


def _text(cell: Any) -> str:
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return "\n".join(text for text in texts if not text.startswith("<Figure"))


def _machine(path: Path) -> list[str]:
    """Return traces of the machine on which a notebook was run."""
    text = _PICTURE.sub("", path.read_text(encoding="utf-8"))
    traces = [str(FOLDER.parent), str(Path.home()), tempfile.gettempdir(), "Traceback"]
    return [f"it holds {trace!r}" for trace in traces if trace in text]


if __name__ == "__main__":
    sys.exit(main())
