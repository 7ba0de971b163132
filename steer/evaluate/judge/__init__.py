"""Judges of generated answers: rules, a local model, or any OpenAI-compatible endpoint."""

from steer.evaluate.judge.endpoint import EndpointJudge
from steer.evaluate.judge.local import ModelJudge
from steer.evaluate.judge.protocol import Judge, Verdict
from steer.evaluate.judge.result import Judged, judge_answers, judged_accuracy
from steer.evaluate.judge.rule import RuleJudge
from steer.evaluate.judge.trained import TrainedJudge, trained_judge

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
