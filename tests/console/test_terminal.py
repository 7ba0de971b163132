"""`steer console` through a pipe, and on a terminal of its own."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steer.console import State
from steer.console._writer import Writer
from steer.demo import vectors_path
from steer.errors import CheckpointError
from tests.cli.run import steer
from tests.console.setting import LONG, QUESTION, TOKENS, answer, plain

OTHER = "Can my landlord keep the deposit?"
VECTORS = [f"-v{vectors_path() / d}.safetensors:0" for d in ("medical", "legal")]
RUN = ("console", "demo", *VECTORS, "--max-new-tokens", str(TOKENS))
COMMAND = [sys.executable, "-c", "from steer.cli import main; main()", *RUN]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}


def lines(*typed: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return what the console prints for lines that come through a pipe."""
    status, out, err = steer(*RUN, *options, stdin="".join(f"{line}\n" for line in typed))
    assert status == 0, err
    return out.splitlines()


def test_knobs_and_prompts_through_a_pipe() -> None:
    typed = ("medical=0.75", QUESTION, "medical=-0.75", "/reset", "/quit", OTHER)
    assert lines(*typed) == [
        "knobs: medical=+0  legal=+0",
        "knobs: medical=+0.75  legal=+0",
        f"unsteered: {plain()}",
        f"steered: {answer(0.75)}",
        "knobs: medical=-0.75  legal=+0",
        f"steered: {answer(-0.75)}",
        "knobs: medical=+0  legal=+0",
        f"steered: {plain()}",
    ]


def test_a_first_prompt_and_the_files_own_coefficients() -> None:
    file = str(vectors_path() / "medical.safetensors")
    asked = ("console", "demo", "-v", file, "--prompt", QUESTION, "--max-new-tokens", str(TOKENS))
    status, out, _ = steer(*asked)
    assert status == 0
    assert out.splitlines() == [
        "knobs: medical=+0.75",
        f"unsteered: {plain()}",
        f"steered: {answer(0.75)}",
    ]


def test_another_prompt_has_another_unsteered_text() -> None:
    printed = lines("legal=0.75", QUESTION, OTHER)
    assert f"unsteered: {plain(OTHER)}" in printed
    assert printed[-1] == f"steered: {answer(0.0, 0.75, OTHER)}"


def test_a_gate_that_is_asked_for() -> None:
    printed = lines("legal=0.75", QUESTION, options=("--gate",))
    assert printed[-1] == f"steered: {plain()}", "a medical question"


def test_mistakes_are_said_and_change_nothing() -> None:
    printed = "\n".join(lines("medical=0.5 medcal=1", "medical=nan", "/foo", "/knobs", "/help"))
    assert "there is no such domain" in printed
    assert "expected: medical, legal" in printed
    assert "coefficients that cannot be used" in printed
    assert "there is no such command" in printed
    assert "+0.5" not in printed
    assert printed.count("knobs: medical=+0  legal=+0") == 2
    for name in ("/ask", "/reset", "Ctrl-C", "Ctrl-D"):
        assert name in printed


def test_a_line_that_is_not_utf_8_is_refused_alone() -> None:
    typed = b"caf\xe9 au lait\nmedical=0.5\n"
    status, out, err = steer(*RUN, stdin=typed)
    assert (status, "Traceback" in err) == (0, False)
    assert "this line is not UTF-8" in out
    assert out.splitlines()[-1] == "knobs: medical=+0.5  legal=+0"


def test_asking_nothing_and_having_no_input_at_all() -> None:
    assert "to do:    write the prompt after it" in "\n".join(lines("/ask"))
    status, out, _ = steer(*RUN, stdin=None)
    assert (status, out.splitlines()) == (0, ["knobs: medical=+0  legal=+0"])


def test_a_prompt_too_long_for_the_model_is_noted_before_its_answers() -> None:
    printed = lines(LONG, "medical=0.5", QUESTION)
    noted = [k for k, line in enumerate(printed) if "the 256 positions that the model" in line]
    assert len(noted) == 1, "once for a prompt"
    assert printed[noted[0] + 1].startswith("unsteered: ")


def test_without_a_vector_there_is_no_knob() -> None:
    status, out, err = steer("console", "some/model")
    assert (status, out) == (1, "")
    assert "there is no knob to turn" in err


def test_the_toy_has_knobs_of_its_own() -> None:
    asked = ("console", "demo", "--prompt", QUESTION, "--max-new-tokens", str(TOKENS))
    status, out, _ = steer(*asked)
    assert status == 0
    assert out.splitlines() == [
        "knobs: medical=+0  legal=+0  financial=+0",
        f"unsteered: {plain()}",
        f"steered: {plain()}",
    ]


def test_without_a_model_the_toy_opens_where_the_real_one_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> Path:
        raise CheckpointError("no index", found="no network", expected="one", do="connect")

    monkeypatch.setattr("steer.demo.smollm2.model_folder", missing)
    status, out, err = steer("console", stdin="/quit\n")
    assert status == 0
    assert out.splitlines() == ["knobs: medical=+0  legal=+0  financial=+0"]
    assert "This is the toy that ships; smollm2 cannot be had: no index (no network)." in err


def test_a_pipe_of_another_process() -> None:
    typed = f"medical=-0.75\n{QUESTION}\n"
    run = subprocess.run(
        COMMAND, input=typed, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1:] == [
        "knobs: medical=-0.75  legal=+0",
        f"unsteered: {plain()}",
        f"steered: {answer(-0.75)}",
    ]


class Screen:
    """A terminal with `steer console` in it."""

    def __init__(self, process: "subprocess.Popen[bytes]", end: int) -> None:
        self.process = process
        self._end = end
        self._ahead = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._end, text.encode())

    def wait(self, wanted: str) -> str:
        """Return what is printed up to and with a text, from where the last wait ended."""
        while wanted not in self._ahead:
            ready, _, _ = select.select([self._end], [], [], 60)
            assert ready, f"{wanted!r} did not come after {self._ahead!r}"
            try:
                new = os.read(self._end, 65536)
            except OSError:  # how Linux says that the other side is closed
                new = b""
            assert new, f"{wanted!r} did not come after {self._ahead!r}"
            self._ahead += new.decode(errors="replace")
        before, found, self._ahead = self._ahead.partition(wanted)
        return before + found

    def interrupt(self, wanted: str) -> None:
        """Press Ctrl-C until a text comes: between a prompt and its reading none is seen."""
        for _ in range(30):
            os.kill(self.process.pid, signal.SIGINT)
            if select.select([self._end], [], [], 2)[0]:
                self.wait(wanted)
                return
        raise AssertionError(f"{wanted!r} did not come")


def _hear_interrupts() -> None:
    """Have Ctrl-C heard also where the tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def screen(columns: int = 160, tokens: int = TOKENS) -> Iterator[Screen]:
    """Run the command in a terminal of its own."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "40"}
    command = [*COMMAND[:-1], str(tokens)]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT | size,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )
    os.close(theirs)
    try:
        yield Screen(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_both_texts_side_by_side_on_a_terminal() -> None:
    with screen() as at:
        at.wait("/help says how")
        at.wait("> ")
        at.type("medical=-0.75\n")
        at.wait("knobs: medical=-0.75")
        at.type(f"{QUESTION}\n")
        drawn = at.wait("see a doctor") + at.wait("> ")
        assert "unsteered" in drawn
        assert "steered" in drawn
        head = next(line for line in drawn.splitlines() if "unsteered" in line)
        assert head.count("steered") == 2, "in one line"
        assert drawn.count("unsteered") > 5, "drawn anew as it grows"
        at.type("\x04")  # Ctrl-D
        assert at.process.wait(60) == 0


def test_ctrl_c_stops_the_answer_and_not_the_program() -> None:
    with screen(tokens=4000) as at:
        at.wait("> ")
        at.type("medical=-3\n")  # so strong a push that it does not come to an end
        at.wait("knobs: medical=-3")
        at.wait("> ")
        at.type(f"{QUESTION}\n")
        at.wait("unsteered")
        os.kill(at.process.pid, signal.SIGINT)
        at.wait("stopped")
        at.wait("> ")
        at.type("/knobs\n")
        at.wait("knobs: medical=-3")
        at.wait("> ")
        at.interrupt("> ")  # while nothing is being answered
        at.type("/quit\n")
        assert at.process.wait(60) == 0


@pytest.mark.parametrize("where", ["unsteered", "steered"])
def test_a_stopped_answer_is_asked_again_in_full(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, run = [], Writer.run

    def pressing(writer: Writer, state: State, show: Any, wanted: Any) -> None:
        def press(now: State) -> None:
            show(now)
            if now.doing == where and not shown:
                shown.append(now)
                signal.raise_signal(signal.SIGINT)

        run(writer, state, press, wanted)

    monkeypatch.setattr(Writer, "run", pressing)
    printed = lines("medical=0.75", QUESTION, QUESTION)
    assert len(shown) == 1
    assert printed.count("stopped") == 1
    assert printed[-2:] == [f"unsteered: {plain()}", f"steered: {answer(0.75)}"]
    cut = printed[printed.index("stopped") - 1]
    whole = printed[-2 if where == "unsteered" else -1]
    assert whole.startswith(cut)
    assert len(cut) < len(whole)
