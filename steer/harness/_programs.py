"""From a model's completion to a program with its tests, and whether that passes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from steer.harness._estimate import pass_at_k
from steer.harness._files import Row
from steer.harness._sandbox import run_programs

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.S | re.I)
_KS = (1, 10, 100)

Graded = list[Row]


def code_of(text: str) -> str:
    """Return the code of an answer: its first fenced block if it has one, else all of it.

    Args:
        text: The answer; a block that is not closed goes to the end.
    """
    block = _FENCE.search(text)
    return block.group(1) if block else text


def humaneval_program(document: Row, completion: str) -> str:
    """Return HumanEval's prompt, the completion and the tests as one program.

    Args:
        document: The problem.
        completion: What the model wrote after the prompt, or a fenced block that defines the
            function anew.
    """
    check = f"check({document['entry_point']})"
    return "\n".join([document["prompt"] + code_of(completion), document["test"], check, ""])


def humaneval_chat_program(document: Row, completion: str) -> str:
    """Return the program of an answer that defines the whole function.

    Args:
        document: The problem; its prompt defines what the function may need.
        completion: The model's answer.
    """
    return humaneval_program(document, "\n" + code_of(completion))


def mbpp_program(document: Row, completion: str) -> str:
    """Return a completion and the tests of an MBPP problem as one program.

    Args:
        document: The problem.
        completion: What the model wrote.
    """
    return "\n".join([code_of(completion), document["setup"], *document["tests"], ""])


def humaneval_graded(answers: Sequence[Sequence[str]], documents: Sequence[Row]) -> list[Graded]:
    """Run the completions of HumanEval; a filter of its task file.

    Args:
        answers: Completions of each problem.
        documents: The problems.

    Returns:
        For each problem and completion: `program`, `outcome` and `error`.

    Raises:
        HarnessError: Executing code was not allowed.
    """
    return _graded(humaneval_program, answers, documents)


def humaneval_chat_graded(
    answers: Sequence[Sequence[str]], documents: Sequence[Row]
) -> list[Graded]:
    """Run the answers of HumanEval asked in conversation; see `humaneval_graded`.

    Args:
        answers: Answers to each problem.
        documents: The problems.
    """
    return _graded(humaneval_chat_program, answers, documents)


def mbpp_graded(answers: Sequence[Sequence[str]], documents: Sequence[Row]) -> list[Graded]:
    """Run the completions of MBPP; see `humaneval_graded`.

    Args:
        answers: Completions of each problem.
        documents: The problems.
    """
    return _graded(mbpp_program, answers, documents)


def pass_rates(document: Row, results: Sequence[Graded]) -> dict[str, float]:
    """Return pass@k of one problem, for k = 1, 10, 100 as far as there are samples.

    Args:
        document: The problem.
        results: One entry, the graded samples.
    """
    (graded,) = results
    passed = sum(one["outcome"] == "passed" for one in graded)
    return {f"pass@{k}": pass_at_k(len(graded), passed, k) for k in _KS if k <= len(graded)}


def _graded(
    program: Callable[[Row, str], str], answers: Sequence[Sequence[str]], documents: Sequence[Row]
) -> list[Graded]:
    sources = [
        [program(document, text) for text in texts]
        for texts, document in zip(answers, documents, strict=True)
    ]
    verdicts = iter(run_programs([source for group in sources for source in group]))
    return [[_entry(source, next(verdicts)) for source in group] for group in sources]


def _entry(source: str, verdict: Any) -> Row:
    return {"program": source, **asdict(verdict)}
