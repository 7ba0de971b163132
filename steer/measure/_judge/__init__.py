"""Judges of generated answers: rules, a local model, or any OpenAI-compatible endpoint."""

from steer.measure._judge.endpoint import EndpointJudge
from steer.measure._judge.local import ModelJudge
from steer.measure._judge.protocol import Judge, Verdict
from steer.measure._judge.result import Judged, judge_answers, judged_accuracy
from steer.measure._judge.rule import RuleJudge
from steer.measure._judge.trained import TrainedJudge, trained_judge

__all__ = [
    "EndpointJudge",
    "Judge",
    "Judged",
    "ModelJudge",
    "RuleJudge",
    "TrainedJudge",
    "Verdict",
    "judge_answers",
    "judged_accuracy",
    "trained_judge",
]
