"""What a document's responses are worth; the `process_results` of the task files.

A model whose output is NaN or gives every answer the same likelihood is right nowhere: an answer
counts as preferred only if it is strictly likelier than every other one.
"""

import math
import re
from collections.abc import Sequence

import torch

from steer.harness._files import Row

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
Likelihoods = Sequence[tuple[float, bool]]  # log-probability in nats, whether it is the greedy one


def gsm8k(document: Row, results: Sequence[str]) -> dict[str, float]:
    """Return whether a solution ends with the right number.

    Args:
        document: The problem, with its `number`.
        results: One solution.

    Returns:
        `exact_match`: the number after `####`, or else the last number, is right;
        `strict_match`: the number after `####` is.
    """
    text = results[0]
    wanted = _value(document["number"])
    _, marked, after = text.partition("####")
    stated = _NUMBER.search(after)
    numbers = _NUMBER.findall(text)
    last = stated.group() if stated else (numbers[-1] if numbers else None)
    return {
        "exact_match": float(last is not None and _value(last) == wanted),
        "strict_match": float(bool(marked) and stated is not None and _value(stated[0]) == wanted),
    }


def preferred(document: Row, results: Likelihoods) -> dict[str, float]:
    """Return whether the answer with label 1 is likelier than every other one.

    Args:
        document: `choices` and their `labels`, one of which is 1.
        results: Log-probability of each choice, nats.

    Returns:
        `acc`, by the sum over tokens, and `acc_norm`, by the mean over characters.
    """
    gold = list(document["labels"]).index(1)
    sums = [value for value, _ in results]
    lengths = [max(1, len(choice.strip())) for choice in document["choices"]]
    means = [value / n for value, n in zip(sums, lengths, strict=True)]
    return {"acc": _highest(sums, gold), "acc_norm": _highest(means, gold)}


def matching(document: Row, results: Likelihoods) -> dict[str, float]:
    """Return whether, and by how much, the answer that matches a behaviour is preferred.

    Args:
        document: `choices`, the matching one first.
        results: Log-probability of each choice, nats.

    Returns:
        `matching`, and `margin`: log-probability of the matching answer less that of the other.
    """
    (yes, _), (no, _) = results
    return {"matching": float(yes > no), "margin": yes - no}


def truth_mass(document: Row, results: Likelihoods) -> dict[str, float]:
    """Return the share of probability that the true answers have among all answers.

    Args:
        document: `choices` and their `labels`, 1 if true.
        results: Log-probability of each choice, nats.

    Returns:
        `mass`, in [0, 1].
    """
    values = torch.tensor([value for value, _ in results], dtype=torch.float64)
    true = torch.tensor([label == 1 for label in document["labels"]])
    mass = float(values.softmax(dim=0)[true].sum())
    return {"mass": 0.0 if math.isnan(mass) else mass}


def _highest(values: Sequence[float], gold: int) -> float:
    return float(all(values[gold] > v for k, v in enumerate(values) if k != gold))


def _value(text: str) -> float:
    """Return the number that a text writes, NaN if it writes none."""
    match = _NUMBER.search(text)
    return float(match.group().replace(",", "")) if match else math.nan
