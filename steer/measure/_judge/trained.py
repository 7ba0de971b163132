"""A judge fitted on recorded pairs: is an answer closer to the chosen or the rejected ones?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from steer.engine import unsteered
from steer.errors import SelectionError
from steer.extract import Activations
from steer.measure._interval import Share
from steer.measure._judge.protocol import BatchJudge, Verdict
from steer.model import Model, check_model, exchange_batch
from steer.network import as_prompts
from steer.pairs import Pairs, Prompt, as_pairs

POSITION = "response_mean"


@dataclass(frozen=True, eq=False, slots=True)
class TrainedJudge(BatchJudge):
    """Reads an answer with the unsteered model and compares its mean activation with two means.

    score = ⟨h − (μ⁺ + μ⁻)/2, μ⁺ − μ⁻⟩ / ‖μ⁺ − μ⁻‖² at one layer, where h is the mean of the
    residual stream over the answer's tokens: 1/2 at the mean of the chosen training answers, −1/2
    at that of the rejected ones. An answer above 0 gets the first label, below 0 the second.

    Args:
        model: The model that reads; it must not be steered while it judges.
        layer: The layer (block output, 0-based).
        mean: (μ⁺ + μ⁻)/2, in residual units.
        direction: (μ⁺ − μ⁻) / ‖μ⁺ − μ⁻‖², in inverse residual units.
        labels: The labels of answers like the chosen and like the rejected ones.
        error: Share of the held-out answers, of both kinds, that get the wrong label.
    """

    model: Model
    layer: int
    mean: Float[Tensor, " d_model"]
    direction: Float[Tensor, " d_model"]
    labels: tuple[str, str]
    error: Share

    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Verdict]:
        """Return the label of each answer, with its score as reply.

        Args:
            prompts: The prompts, one for each answer.
            answers: The answers; an empty one is left undecided.

        Raises:
            SteeringError: The model is being steered.
        """
        unsteered(self.model.engine, "judging")
        said = [k for k, answer in enumerate(answers) if answer.strip()]
        found = [Verdict(None)] * len(answers)
        asked, given = as_prompts([prompts[k] for k in said]), [answers[k] for k in said]
        if not said:
            return found
        lengths = exchange_batch(self.model.chat, asked, given).prompt_lengths
        streams = self.model.activations(asked, given, layers=[self.layer])
        for k, start, stream in zip(said, lengths, streams, strict=True):
            h = stream[0, start:].double().mean(dim=0).cpu()
            score = float((h - self.mean) @ self.direction)
            label = None if score == 0 else self.labels[score < 0]
            found[k] = Verdict(label, reply=f"score {score:+.2f}")
        return found


def trained_judge(
    model: Model,
    recording: Activations,
    held_out: Pairs,
    *,
    layer: int | None = None,
    labels: tuple[str, str] = ("chosen", "rejected"),
) -> TrainedJudge:
    """Return a judge fitted on recorded training pairs, with its error on held-out ones.

    It is fixed before it reads any answer of a steered model. The error says how well it labels
    answers written like the held-out ones, not how well it labels the model's own.

    Args:
        model: The model; it must not be steered.
        recording: The result of `record(model, pairs, at="response_mean")` for one domain.
        held_out: Pairs to test the judge on, none of which was recorded.
        layer: The layer to read; by default the recorded one nearest to half the depth.
        labels: The labels of answers like the chosen and like the rejected ones.

    Raises:
        SelectionError: There are no pairs, the layer was not recorded, the means do not differ
            there, or the labels are equal.
        RecordingError: The recording has several domains, or no `response_mean`.
        SteeringError: The model is being steered.
    """
    check_model(model)
    held_out = as_pairs(held_out)
    moments = recording.of(recording.domain(), recording.position(POSITION))
    middle = min(recording.layers, key=lambda n: (abs(n + 1 - model.n_layers / 2), n))
    layer = middle if layer is None else layer
    known = layer in recording.layers
    row = recording.layers.index(layer) if known else 0
    difference = moments.difference[row].double().cpu()
    if not held_out or not known or not bool(difference.any()) or labels[0] == labels[1]:
        raise SelectionError(
            "a judge cannot be fitted and tested on these",
            found=f"{len(held_out)} held-out pairs, layer {layer}, labels {labels}",
            expected=f"pairs, one of the layers {list(recording.layers)} at which the means of "
            "chosen and rejected differ, and two different labels",
            do="train, held_out, test = pairs.split(); trained_judge(lm, recording, held_out)",
        )
    mean = moments.mean_chosen[row].double().cpu() - difference / 2
    direction = difference / (difference @ difference)
    untested = TrainedJudge(model, layer, mean, direction, labels, Share(0, 1))
    prompts = [pair.prompt for pair in held_out] * 2
    answers = [pair.chosen for pair in held_out] + [pair.rejected for pair in held_out]
    right = [labels[0]] * len(held_out) + [labels[1]] * len(held_out)
    verdicts = untested.many(prompts, answers)
    wrong = sum(v.label != label for v, label in zip(verdicts, right, strict=True))
    return replace(untested, error=Share(wrong, len(right)))
