"""Run the experiments and print their tables: `python -m notebooks.experiments`."""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from notebooks.experiments.report import draw, show
from notebooks.experiments.study import study
from steer.demo import load_model, vectors_path
from vectors.make_toy import load_vectors


def main() -> None:
    """Measure, print the tables, and draw the picture."""
    parser = argparse.ArgumentParser(description="The alignment-vector experiments on the toy.")
    parser.add_argument("--vectors", type=Path, help="folder of the alignment vectors")
    parser.add_argument("--out", type=Path, default=Path("steer-domains"), help="folder to write")
    parser.add_argument("--questions", type=int, default=30, help="test questions per domain")
    parser.add_argument("--search", type=int, default=4, help="questions per domain to search with")
    parser.add_argument("--seed", type=int, default=0, help="of questions and training")
    options = parser.parse_args()
    torch.set_num_threads(1)  # more threads only wait for each other in a model this small
    console = Console(highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    weights, safety = load_vectors(options.vectors or vectors_path())
    found = study(
        load_model(),
        weights,
        safety,
        n_search=options.search,
        n_judged=options.questions,
        seed=options.seed,
        say=console.print,
    )
    show(found, console)
    draw(found, options.out / "domains.png")
    console.print(f"saved {options.out / 'domains.png'}", soft_wrap=True)


if __name__ == "__main__":
    main()
