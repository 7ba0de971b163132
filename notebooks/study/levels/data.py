"""Questions in medicine, law and money, each with an answer at three levels.

Expert answers are the first sentences of published ones, read from a folder that is not a part of
this repository. Generic answers and avoidance are written for this project, in `answers.json`.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer import Answers, Pair, Pairs

DOMAINS = ("medicine", "law", "money")
LEVELS = ("avoidance", "generic", "expert")
SIZES = (60, 10, 30)  # questions of a domain to make vectors, to search and to test with
_TEMPLATES = (8, 3, 5)  # written answers of a level, split likewise
_QUESTION, _ANSWER = (15, 200), (60, 160)  # characters, least and most
_WRITTEN: Mapping[str, Mapping[str, list[str]]] = json.loads(
    Path(__file__).with_name("answers.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True, eq=False)
class Domain:
    """The questions of one domain in three parts, which share no question and no written answer.

    Args:
        name: Its name.
        train: What vectors are made from.
        search: What coefficients are chosen with.
        test: What only the final stage reads.
    """

    name: str
    train: Answers
    search: Answers
    test: Answers


def domains(data: Path) -> dict[str, Domain]:
    """Return the three domains, read from the folder of published data."""
    return {name: _domain(name, data) for name in DOMAINS}


def pairs(part: Answers, chosen: str, rejected: str, domain: str) -> Pairs:
    """Return pairs that prefer one level to another."""
    return Pairs.of(
        Pair(question, over, under, domain)
        for question, over, under in zip(
            part.prompts, part.answers[chosen], part.answers[rejected], strict=True
        )
    )


def _domain(name: str, data: Path) -> Domain:
    rng = random.Random(f"{name} 0")
    sources = [list(_usable(source(data))) for source in _SOURCES[name]]
    wanted = sum(SIZES)
    chosen: dict[str, str] = {}
    for k, source in enumerate(sources):  # as many of each source as there are
        rng.shuffle(source)
        share = -(-(wanted - len(chosen)) // (len(sources) - k))
        chosen |= dict(source[:share])
    left = [row for source in sources for row in source if row[0] not in chosen]
    chosen |= dict(left[: wanted - len(chosen)])
    rows = list(chosen.items())
    rng.shuffle(rows)
    parts, start = [], 0
    for size, templates in zip(SIZES, _templates(name), strict=True):
        parts.append(_answers(rows[start : start + size], templates))
        start += size
    return Domain(name, *parts)


def _templates(name: str) -> Iterator[Mapping[str, list[str]]]:
    """Yield the written answers of each part, by level."""
    start = 0
    for number in _TEMPLATES:
        yield {level: own[start : start + number] for level, own in _WRITTEN[name].items()}
        start += number


def _answers(rows: Sequence[tuple[str, str]], templates: Mapping[str, list[str]]) -> Answers:
    written = {
        level: [own[(k + shift) % len(own)] for k in range(len(rows))]
        for shift, (level, own) in enumerate(templates.items())
    }
    known = {"expert": [answer for _, answer in rows], **written}
    return Answers([question for question, _ in rows], {level: known[level] for level in LEVELS})


Source = Callable[[Path], Iterator[tuple[str, str]]]
_BLANKS, _END = re.compile(r"\s+"), re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_TRACES = re.compile(  # of how an answer was made, of lists, and of references to what was left out
    r"[*<>\[\]|]|[^\x00-ɏ‐-”]|^[-(\d•]|\?|:$|passage|search|context|candidate|"
    r"Human Phenotype|key points|\bI\b|the (?:question|answer|student)|following|these terms",
    re.I,
)


def _usable(rows: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the questions that are short enough, each once, with a shortened answer."""
    seen = set()
    for question, answer in rows:
        asked = _BLANKS.sub(" ", question).strip().replace(" ?", "?").replace("?" * 2, "?")
        asked = asked.replace("What is (are)", "What is")
        told = _shortened(answer)
        if told and _QUESTION[0] <= len(asked) <= _QUESTION[1] and asked not in seen:
            seen.add(asked)
            yield asked, told


def _shortened(answer: str) -> str:
    """Return the first sentences of an answer, empty if they do not stand alone."""
    told = ""
    for sentence in _END.split(_BLANKS.sub(" ", answer).strip().replace(" .", ".")):
        if len(told) + 1 + len(sentence) > _ANSWER[1]:
            break
        told = f"{told} {sentence}".strip()
    whole = len(told) >= _ANSWER[0] and told[-1] in ".!" and not _TRACES.search(told)
    return told if whole else ""


def _lines(file: str, question: str, answer: str, **wanted: Any) -> Source:
    """Return a source that reads a file of JSON lines; `wanted` are values of other columns."""

    def read(data: Path) -> Iterator[tuple[str, str]]:
        for line in (data / file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if all(row[name] in values for name, values in wanted.items()):
                yield row[question], row[answer]

    return read


_EXPERTQA = "expertqa/raw/expertqa_lfqa.jsonl"
_SOURCES: Mapping[str, tuple[Source, ...]] = {  # those with fewest questions first
    "medicine": (
        _lines("kqa/raw/questions_w_answers.jsonl", "Question", "Free_form_answer"),
        _lines("medquad/raw/medquad_sample.jsonl", "question", "answer"),
    ),
    "law": (
        _lines(_EXPERTQA, "question", "answer", field=("Law",)),
        _lines("lexam/raw/lexam_open_en.jsonl", "question", "answer"),
        _lines("cc_faq/raw/cc_faq_en.jsonl", "question", "answer"),
    ),
    "money": (_lines("ask_cfpb/raw/ask_cfpb.jsonl", "question", "answer"),),
}
