"""A sweep's file: resumed without doing anything twice, refused if damaged or foreign."""

import copy
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import steer
from steer.errors import SelectionError, TextError
from steer.measure import preference, sweep
from tests.conformance.cases import vector
from tests.measure.setting import model, near, pairs
from tests.tiny import tiny_model, tiny_tokenizer

GRID = torch.linspace(-1, 1, 70)  # more than are measured together


def run(path, lm=None, grid=GRID, **changes):
    request = {"what": vector(1, 2), "data": pairs(), "max_tokens": 256, **changes}
    return sweep(lm or model(), grid=grid, save=path, progress=False, **request)


def edited(path, statement):
    """What a statement returns, run on the file from outside."""
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(statement).fetchall()


def here():
    """Options of a process that imports these tests."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    return {"cwd": root, "env": environment, "capture_output": True, "text": True}


def margin(lm, part):
    """A measure with a name of its own."""
    return {"margin": preference(lm, part).margin}


class Counted:
    """A model that counts its forwards, and fails at one of them."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls = 0
        self.fail_at = fail_at
        self.lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
        self.lm.architecture.blocks[3].register_forward_hook(self.count)

    def count(self, *_):
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        self.calls += 1


def test_a_finished_sweep_runs_nothing(tmp_path) -> None:
    path = tmp_path / "deep" / "sweep.db"
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    first = run(path, lm)
    content = path.read_bytes()
    forwards = []
    for block in lm.architecture.blocks:
        block.register_forward_hook(lambda *_: forwards.append(1))
    second = run(path, lm)
    assert not forwards
    assert second.rows == first.rows == run(None).rows
    assert second.way == "resumed"
    assert path.read_bytes() == content


@pytest.mark.parametrize("fail_at", [0, 1, 5, 6, 11])
def test_a_measure_that_is_interrupted_goes_on_where_it_stopped(tmp_path, fail_at) -> None:
    path, grid = tmp_path / "sweep.db", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    whole = Counted()
    expected = run(None, whole.lm, grid=grid, measure=margin).rows
    each = whole.calls // len(grid)
    first, second = Counted(fail_at * each // 2), Counted()  # 2 domains
    with pytest.raises(KeyboardInterrupt):
        run(path, first.lm, grid=grid, measure=margin)
    found = run(path, second.lm, grid=grid, measure=margin)
    assert second.calls == each * (len(grid) - fail_at // 2)
    assert found.rows == expected


def test_a_likelihood_sweep_goes_on_after_what_is_saved(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    whole = run(path, lm)
    rows: list[int] = []
    lm.architecture.blocks[3].register_forward_hook(lambda m, a, o: rows.append(a[0].shape[0]))
    run(None, lm)
    everything = sum(rows)
    edited(path, "DELETE FROM steer_sweep_3 WHERE setting >= 64")  # one group of settings is left
    rows.clear()
    assert run(path, lm).rows == whole.rows
    assert 0 < sum(rows) < everything / 5


def test_a_row_that_is_missing_is_measured_again(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    whole = run(path)
    for lost in ("3", "0, 40, 69"):
        edited(path, f"DELETE FROM steer_sweep_3 WHERE setting IN ({lost})")
        again = run(path)
        for a, b in zip(again.rows, whole.rows, strict=True):
            assert a["accuracy"] == b["accuracy"]
            assert a["margin"] == near(b["margin"], b["likelihood"])
        assert edited(path, "SELECT count(*) FROM steer_sweep_3") == [(len(GRID) + 1,)]
        assert run(path).way == "resumed"


def test_a_file_that_was_cut_short_is_refused_or_measured_again(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    whole = run(path)
    content = path.read_bytes()
    for cut in (1, 40, 200, 4096, 9000):
        path.write_bytes(content[:-cut])
        refused_or_equal(path, whole)


def test_the_size_of_a_forward_is_that_of_the_file(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    whole = run(path, max_tokens=100)
    edited(path, "DELETE FROM steer_sweep_3 WHERE setting >= 64")
    assert run(path, max_tokens=None).rows == whole.rows
    ((head,),) = edited(path, "SELECT content FROM steer_sweep_3 WHERE setting < 0")
    assert json.loads(head)["max_tokens"] == 100


@pytest.mark.parametrize(
    "change",
    [
        {"grid": GRID[:-1]},
        {"what": vector(1, 2, seed=1)},
        {"what": vector(1)},
        {"scope": "response"},
        {"layers": [1]},
        {"reduce": "sum"},
        {"data": pairs()[:2]},
        {"measure": margin},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_file_of_another_sweep_is_refused(tmp_path, change) -> None:
    path = tmp_path / "sweep.db"
    run(path)
    content = path.read_bytes()
    with pytest.raises(SelectionError, match="belongs to another sweep"):
        run(path, **change)
    assert path.read_bytes() == content


def numbers(lm, part, bound=0.0):
    """A measure with something that its name does not tell."""
    return {"margin": bound}


@pytest.mark.parametrize("kind", ["partial", "lambda"])
def test_what_has_no_name_of_its_own_is_told_by_its_content(tmp_path, kind) -> None:
    def measure(bound):
        whole = partial(numbers, bound=bound)
        return whole if kind == "partial" else lambda lm, part: whole(lm, part)

    path, grid = tmp_path / "sweep.db", [0.0]
    assert run(path, measure=measure(1.0), grid=grid).rows[0]["margin"] == 1.0
    assert run(path, measure=measure(1.0), grid=grid).way == "resumed"
    with pytest.raises(SelectionError, match="belongs to another sweep"):
        run(path, measure=measure(2.0), grid=grid)


def test_another_model_is_another_sweep(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    run(path)
    with pytest.raises(SelectionError, match="another sweep"):
        run(path, steer.Model(tiny_model("llama", layers=5), tiny_tokenizer()))


def test_other_weights_are_another_sweep(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    run(path)
    hf_model = copy.deepcopy(model().hf_model)
    copied = steer.Model(hf_model, tiny_tokenizer())
    assert run(path, copied).way == "resumed"
    with torch.no_grad():
        list(hf_model.parameters())[3].mul_(1.001)
    with pytest.raises(SelectionError, match="another sweep"):
        run(path, copied)


def quality_and_cost(lm, part):
    """The first number is named last by the alphabet."""
    margin = preference(lm, part).margin
    return {"quality": margin, "cost": -margin}


def test_a_resumed_sweep_has_the_order_of_a_fresh_one(tmp_path) -> None:
    path, grid = tmp_path / "sweep.db", [0.0, 0.5, 1.0]
    data = {"zoology": pairs()[:1], "art": pairs()[1:]}
    fresh, resumed = (
        run(path, grid=grid, data=data, measure=quality_and_cost) for _ in ("fresh", "resumed")
    )
    assert resumed.way == "resumed"
    assert [list(row.items()) for row in resumed.rows] == [list(row.items()) for row in fresh.rows]
    assert "quality" in fresh.best()
    assert resumed.best() == fresh.best()


def test_a_file_is_written_by_one_sweep_at_a_time(tmp_path) -> None:
    path, grid = tmp_path / "sweep.db", [0.0, 0.5]
    other, refused = steer.Model(tiny_model("llama"), tiny_tokenizer()), tmp_path / "refused"

    def measure(lm, part):
        with pytest.raises(SelectionError, match="another sweep is being saved to") as error:
            run(path, other, grid=grid, measure=quality_and_cost)
        with refused.open("a") as file:
            file.write(error.value.what + "\n")
        return {"x": 1.0}

    measure.__qualname__ = "measure"
    found = run(path, grid=grid, measure=measure)
    assert len(refused.read_text().splitlines()) == 4
    assert run(path, grid=grid, measure=measure).rows == found.rows


def test_a_folder_is_no_file_to_save_to(tmp_path) -> None:
    with pytest.raises(SelectionError, match="cannot be written or replaced"):
        run(tmp_path)


def test_a_database_of_something_else_is_left_alone(tmp_path) -> None:
    path = tmp_path / "notes.db"
    edited(path, "CREATE TABLE notes (text TEXT)")
    content = path.read_bytes()
    with pytest.raises(SelectionError, match="no file of a sweep"):
        run(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["notes.db"]


def test_a_table_beside_that_of_a_sweep_is_refused(tmp_path) -> None:
    path = tmp_path / "sweep.db"
    run(path)
    edited(path, "CREATE TABLE notes (text TEXT)")
    with pytest.raises(SelectionError, match="tables of something else"):
        run(path)


def test_a_finished_sweep_is_one_file(tmp_path) -> None:
    run(tmp_path / "sweep.db")
    assert os.listdir(tmp_path) == ["sweep.db"]


def test_another_process_is_refused_while_a_sweep_runs(tmp_path) -> None:
    path = tmp_path / "sweep.db"

    def measure(lm, part):
        code = "from tests.measure.test_resume import run\nimport sys\nrun(sys.argv[1])"
        other = subprocess.run([sys.executable, "-c", code, str(path)], **here(), check=False)
        return {"refused": float("another sweep is being saved to" in other.stderr)}

    measure.__qualname__ = "measure"
    assert run(path, grid=[0.0], data=pairs()[:1], measure=measure).rows[0]["refused"] == 1.0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "sweep.db"
    whole = run(path)
    return path, path.read_bytes(), whole


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused_or_equal(path, whole) -> None:
    """Either the file is refused, and left alone, or the table is that of a whole sweep."""
    before = path.read_bytes()
    try:
        found = run(path)
    except SelectionError:
        assert path.read_bytes() == before
        return
    for a, b in zip(found.rows, whole.rows, strict=True):
        assert a.keys() == b.keys()
        assert a["coefficient.vector"] == b["coefficient.vector"]
        assert a["accuracy"] == b["accuracy"]
        assert a["margin"] == near(b["margin"], b["likelihood"])


@FUZZ
@given(st.data())
def test_a_byte_that_changed_is_seen_or_does_not_matter(saved, data) -> None:
    path, content, whole = saved
    at = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda b: b != content[at]))
    path.write_bytes(content[:at] + bytes([new]) + content[at + 1 :])
    refused_or_equal(path, whole)


@FUZZ
@given(st.integers(0, 69), st.integers(-1, 69), st.sampled_from(["content", "digest", "setting"]))
def test_a_row_that_changed_or_moved_is_seen(saved, to, of, column) -> None:
    path, content, whole = saved
    path.write_bytes(content)
    other = f"(SELECT {column} FROM steer_sweep_3 WHERE setting = {of})"
    edited(path, f"UPDATE OR REPLACE steer_sweep_3 SET {column} = {other} WHERE setting = {to}")
    refused_or_equal(path, whole)


@FUZZ
@given(st.binary(min_size=1, max_size=80))
def test_what_is_no_sweep_is_refused_and_left_alone(saved, content) -> None:
    path, *_ = saved
    path.write_bytes(content)
    with pytest.raises(SelectionError):
        run(path)
    assert path.read_bytes() == content


_SCRIPT = """
import sys
from tests.kernels import apply
apply()
import os, signal
from tests.measure.test_resume import run
from steer.measure._saved import Saved
add, left = Saved.add, [int(sys.argv[2])]
def dying(self, measured):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    add(self, measured)
Saved.add = dying
run(sys.argv[1], layers=[1, 2])
"""


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_sweep_resumes_to_the_same_table(tmp_path, after) -> None:
    path = tmp_path / "sweep.db"
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(path), str(after)], **here(), check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    ((count,),) = edited(path, "SELECT count(*) FROM steer_sweep_3")
    assert count == 1 + sum((64, 6, 64, 6)[:after])
    assert run(path, layers=[1, 2]).rows == run(None, layers=[1, 2]).rows


def test_prompts_as_mappings_count_as_much_as_messages(tmp_path) -> None:
    answers = {"low": ["Ask a doctor."], "high": ["Take two."]}

    def asked(prompt):
        return steer.Answers([prompt], answers)

    def swept(prompt):
        return run(tmp_path / "s", data=asked(prompt), grid=[0.0], measure="levels")

    aunt, zebra = ([{"role": "user", "content": text}] for text in ("My aunt", "zebra quartz"))
    first = swept(aunt)
    with pytest.raises(SelectionError, match="another sweep"):
        swept(zebra)
    again = swept((steer.Message("user", "My aunt"),))
    assert again.way == "resumed"
    assert again.fingerprint == first.fingerprint
    assert asked(aunt).prompts == [(steer.Message("user", "My aunt"),)]
    with pytest.raises(TextError):
        asked([{"role": "user"}])
