"""Measuring settings of the knobs: many at once, on each pair, on each domain, saved as it goes."""

from steer.measure._baselines import Baselines, baselines, prompt_prefix, random_like
from steer.measure._data import Answers
from steer.measure._degeneration import Degeneration, degeneration, repetition
from steer.measure._estimate import Estimate, mean_of
from steer.measure._grid import Setting
from steer.measure._interval import Share, ShareChange, wilson
from steer.measure._judge.endpoint import EndpointJudge
from steer.measure._judge.local import ModelJudge
from steer.measure._judge.protocol import Judge, Verdict
from steer.measure._judge.result import Judged, judge_answers, judged_accuracy
from steer.measure._judge.rule import RuleJudge
from steer.measure._judge.trained import TrainedJudge, trained_judge
from steer.measure._kl import (
    NEUTRAL_PROMPTS,
    NeutralText,
    kl_divergence,
    neutral_text,
    perplexity,
)
from steer.measure._likelihood import Likelihoods, Scorer, likelihoods
from steer.measure._off_target import OffTarget, off_target
from steer.measure._preference import (
    LevelPreference,
    Preference,
    level_preference,
    preference,
)
from steer.measure._reliability import Reliability, reliability
from steer.measure._result import Sweep
from steer.measure._steerability import Steerability, steerability
from steer.measure._sweep import sweep

__all__ = [
    "NEUTRAL_PROMPTS",
    "Answers",
    "Baselines",
    "Degeneration",
    "EndpointJudge",
    "Estimate",
    "Judge",
    "Judged",
    "LevelPreference",
    "Likelihoods",
    "ModelJudge",
    "NeutralText",
    "OffTarget",
    "Preference",
    "Reliability",
    "RuleJudge",
    "Scorer",
    "Setting",
    "Share",
    "ShareChange",
    "Steerability",
    "Sweep",
    "TrainedJudge",
    "Verdict",
    "baselines",
    "degeneration",
    "judge_answers",
    "judged_accuracy",
    "kl_divergence",
    "level_preference",
    "likelihoods",
    "mean_of",
    "neutral_text",
    "off_target",
    "perplexity",
    "preference",
    "prompt_prefix",
    "random_like",
    "reliability",
    "repetition",
    "steerability",
    "sweep",
    "trained_judge",
    "wilson",
]
