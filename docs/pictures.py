"""Draws the pictures of the guides on the demo model: ``python docs/pictures.py``.

Two are made elsewhere: `demo.png` by ``steer demo``, and `console.png` by the test of the console
in JupyterLab (``make browser``).
"""

from pathlib import Path

from PIL import Image

import steer
from steer import Pairs, view
from steer.demo import load_model, vectors_path
from steer.demo.language import DOMAINS, pairs, questions
from steer.measure import off_target
from steer.view import View

FOLDER = Path(__file__).parent / "pictures"
LAYER = 3


def views() -> dict[str, View]:
    """Return every view of the guide "Looking inside" by the name of its picture."""
    lm = load_model()
    train = sum((pairs(name, 40) for name in DOMAINS), Pairs(()))
    unseen = sum((pairs(n, 20, split="test") for n in DOMAINS), Pairs(()))
    activations = steer.record(lm, train, progress=False)
    domains = {
        name: steer.mean_difference(activations, domain=name, position="template[-1]")
        for name in DOMAINS
    }
    vector, asked = domains["medical"], questions("medical", 8)
    weights = steer.Vector.load(vectors_path() / "medical-weights.safetensors")
    at_layer = {name: v[LAYER] for name, v in domains.items()}
    grid = [k / 4 for k in range(-4, 5)]
    effects = off_target(lm, at_layer, unseen, 0.5, progress=False)
    swept = steer.sweep(lm, vector[LAYER], unseen, grid, progress=False)
    return {
        "separation": view.separation(lm, vector, unseen.of_domain("medical")),
        "principal-components": view.principal_components(lm, unseen, layer=LAYER),
        "lens": view.lens(lm, vector, asked, layers=[1, 3, 5], k=4),
        "next-token": view.next_token(lm, vector[LAYER], asked[0], 0.6, k=4),
        "trajectory": view.trajectory(lm, vector, asked[0], layer=LAYER, max_new_tokens=24),
        "cosines": view.cosines(domains),
        "layer-cosines": view.layer_cosines(vector),
        "spectrum": view.spectrum(weights),
        "displacement": view.displacement(lm, weights, asked, against=vector),
        "interference": view.interference(effects, measure="margin"),
        "dose-response": view.dose_response(swept),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, found in views().items():
        path = FOLDER / f"{name}.png"
        found.plot().savefig(path, dpi=110)
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
