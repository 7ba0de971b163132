"""From the published files of a data set to the documents of a task.

Each function is the `custom_dataset` of a task file in `tasks/`: it is called with the task's
metadata, of which it takes the folder of the data sets, and returns its splits.
"""

import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from steer.errors import HarnessError
from steer.harness._files import Row, locate, read_json, read_lines

if TYPE_CHECKING:
    import datasets

    Splits = dict[str, datasets.Dataset]

_NOTE = re.compile(r"<<[^>]*>>")  # what a calculator was told, inside GSM8K's solutions
_NUMBERS = ("task_id", "labels")  # what need not be text
_TURN = "\n\nAssistant:"


def gsm8k(data: str | None = None, **_: Any) -> "Splits":
    """Return GSM8K's problems: `question`, `answer` (the worked solution) and `number`.

    Args:
        data: Folder with `gsm8k/test.jsonl` and `gsm8k/train.jsonl`.

    Returns:
        Splits `test` and `train`; worked examples are taken from `train`.

    Reference:
        arXiv 2110.14168.
    """

    def document(row: Row) -> Row:
        solution, _, number = _NOTE.sub("", row["answer"]).rpartition("####")
        answer = f"{solution.strip()}\n#### {number.strip()}"
        return {"question": row["question"], "answer": answer, "number": number.strip()}

    return {
        split: _documents(read_lines(locate(data, f"gsm8k/{split}.jsonl")), document)
        for split in ("test", "train")
    }


def humaneval(data: str | None = None, **_: Any) -> "Splits":
    """Return HumanEval's problems: `task_id`, `prompt`, `entry_point`, `test`.

    Args:
        data: Folder with `humaneval/HumanEval.jsonl`.

    Reference:
        arXiv 2107.03374.
    """
    names = ("task_id", "prompt", "entry_point", "test")
    rows = read_lines(locate(data, "humaneval/HumanEval.jsonl"))
    return {"test": _documents(rows, lambda row: {name: row[name] for name in names})}


def mbpp(data: str | None = None, **_: Any) -> "Splits":
    """Return MBPP's test problems, 11 to 510: `task_id`, `text`, `setup`, `tests`.

    Args:
        data: Folder with `mbpp/mbpp.jsonl`.

    Reference:
        arXiv 2108.07732.
    """

    def document(row: Row) -> Row | None:
        if not 11 <= row.get("task_id", 0) <= 510:
            return None
        setup = row.get("test_setup_code") or ""
        tests = list(row["test_list"])
        return {"task_id": row["task_id"], "text": row["text"], "setup": setup, "tests": tests}

    return {"test": _documents(read_lines(locate(data, "mbpp/mbpp.jsonl")), document)}


def truthfulqa_mc1(data: str | None = None, **_: Any) -> "Splits":
    """Return TruthfulQA with one true answer: `question`, `choices`, `labels` (1 if true).

    Args:
        data: Folder with `truthfulqa/mc_task.json`.

    Reference:
        arXiv 2109.07958.
    """
    return _truthfulqa(data, "mc1_targets")


def truthfulqa_mc2(data: str | None = None, **_: Any) -> "Splits":
    """Return TruthfulQA with several true answers, as `truthfulqa_mc1` does.

    Args:
        data: Folder with `truthfulqa/mc_task.json`.
    """
    return _truthfulqa(data, "mc2_targets")


def persona(data: str | None = None, persona: str | None = None, **_: Any) -> "Splits":
    """Return a file of model-written persona questions: `question`, `choices`, `labels`.

    Args:
        data: Folder with `anthropic_evals/NAME.jsonl`.
        persona: NAME.

    Raises:
        HarnessError: No name was given.

    Reference:
        arXiv 2212.09251.
    """
    if not persona:
        raise HarnessError(
            "which persona?",
            found="persona",
            expected="persona:NAME, the name of a file of anthropic_evals without .jsonl",
            do="name the task for instance persona:agreeableness",
        )

    def document(row: Row) -> Row:
        answers = [row["answer_matching_behavior"], row["answer_not_matching_behavior"]]
        choices = [answer.strip() for answer in answers]
        return {"question": row["question"], "choices": choices, "labels": [1, 0]}

    rows = read_lines(locate(data, f"anthropic_evals/{persona}.jsonl"))
    return {"test": _documents(rows, document)}


def harmless(data: str | None = None, **_: Any) -> "Splits":
    """Return harmlessness preferences: `question` (the dialogue so far), `choices`, `labels`.

    Args:
        data: Folder with `hh_rlhf/harmless-base/test.jsonl`.

    Reference:
        arXiv 2204.05862.
    """

    def document(row: Row) -> Row:
        texts = [row["chosen"], row["rejected"]]
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
        end = texts[0].rindex(_TURN, 0, sum(1 for _ in alike)) + len(_TURN)
        return {
            "question": texts[0][:end].lstrip(),
            "choices": [text[end:].strip() for text in texts],
            "labels": [1, 0],
        }

    rows = read_lines(locate(data, "hh_rlhf/harmless-base/test.jsonl"))
    kept = [row for row in rows if not _ends_with_a_turn(row)]
    if len(kept) < len(rows):
        warnings.warn(
            f"harmless: {len(rows) - len(kept)} of {len(rows)} rows are left out; they have an "
            "empty answer, which has no likelihood",
            stacklevel=2,
        )
    return {"test": _documents(kept, document)}


def _ends_with_a_turn(row: Row) -> bool:
    """Return whether one of the two dialogues ends before its last answer."""
    texts = (row.get("chosen"), row.get("rejected"))
    return any(isinstance(text, str) and text.rstrip().endswith(_TURN.strip()) for text in texts)


def _truthfulqa(data: str | None, targets: str) -> "Splits":
    def document(row: Row) -> Row:
        answers = row[targets]
        return {
            "question": row["question"],
            "choices": list(answers),
            "labels": list(answers.values()),
        }

    rows = read_json(locate(data, "truthfulqa/mc_task.json"))
    return {"test": _documents(rows, document)}


def _whole(document: Row) -> Row:
    """Return a document that can be asked, scored and kept to its end."""
    for name, value in document.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str):
                part.encode()  # half of a surrogate pair could be neither asked nor kept
            elif name not in _NUMBERS:
                raise TypeError(f"{name!r} holds {type(part).__name__} in place of text")
    if not all(choice.strip() for choice in document.get("choices", ())):
        raise ValueError("an answer is empty")  # it would have no likelihood
    if 1 not in document.get("labels", (1,)):
        raise ValueError("no answer is labelled 1")
    return document


def _documents(rows: Sequence[Row], document: Callable[[Row], Row | None]) -> "datasets.Dataset":
    """Return the documents of rows, without those for which there is none."""
    from datasets import Dataset

    found = []
    for number, row in enumerate(rows, start=1):
        try:
            made = document(row)
            found += [] if made is None else [_whole(made)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HarnessError(
                f"row {number} (counted from 1) is not of the published shape",
                found=f"{type(error).__name__}: {error}; {str(row)[:120]}",
                expected="the members of the data set as it is published",
                do="download the data set again",
            ) from error
    if not found:
        raise HarnessError(
            "the data set has no document for this task",
            found=f"{len(rows)} rows, none of them used",
            expected="at least one",
            do="download the data set again",
        )
    return Dataset.from_list(found)
