"""Measures: small functions that return a value and how sure it is.

Every result prints itself and has `rows`, a list of dictionaries: `pandas.DataFrame(result.rows)`
is its table. A result that is one number has `value` and `interval`, its 95% interval.
"""

from steer.evaluate.baselines import prompt_prefix, random_like
from steer.evaluate.compare import Baselines, baselines
from steer.evaluate.degeneration import (
    Degeneration,
    compression,
    degeneration,
    distinct,
    repetition,
)
from steer.evaluate.estimate import Estimate
from steer.evaluate.interval import Share, ShareChange, wilson
from steer.evaluate.judge import (
    EndpointJudge,
    Judge,
    Judged,
    ModelJudge,
    RuleJudge,
    TrainedJudge,
    Verdict,
    judge_answers,
    judged_accuracy,
    trained_judge,
)
from steer.evaluate.kl import NeutralText, kl_divergence, kl_per_token, neutral_text, perplexity
from steer.evaluate.levels import LevelPreference, level_preference
from steer.evaluate.preference import Preference, preference
from steer.evaluate.reliability import Reliability, reliability
from steer.evaluate.steerability import Steerability

__all__ = [
    "Baselines",
    "Degeneration",
    "EndpointJudge",
    "Estimate",
    "Judge",
    "Judged",
    "LevelPreference",
    "ModelJudge",
    "NeutralText",
    "Preference",
    "Reliability",
    "RuleJudge",
    "Share",
    "ShareChange",
    "Steerability",
    "TrainedJudge",
    "Verdict",
    "baselines",
    "compression",
    "degeneration",
    "distinct",
    "judge_answers",
    "judged_accuracy",
    "kl_divergence",
    "kl_per_token",
    "level_preference",
    "neutral_text",
    "perplexity",
    "preference",
    "prompt_prefix",
    "random_like",
    "reliability",
    "repetition",
    "trained_judge",
    "wilson",
]
