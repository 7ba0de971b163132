"""What the command line says and returns when it is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from steer import DomainGate, Vector
from steer.algebra import Direction, Provenance, Residual
from steer.cli import app
from steer.cli._advice import with_options
from tests.cli.run import steer

ROOT = Path(__file__).parents[2]


def refused(*arguments: str, stdin: str = "") -> str:
    """Return the message, in one line, of a command that must end with status 1."""
    status, out, err = steer(*arguments, stdin=stdin)
    assert status == 1
    assert out == ""
    for word in ("found:", "expected:", "to do:"):
        assert word in err
    return " ".join(err.split())


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """A vector file that fits no small model."""
    path = tmp_path / "foreign.safetensors"
    Vector.of({99: torch.ones(8)}).save(path)
    return str(path)


def test_a_missing_or_damaged_file(tmp_path: Path) -> None:
    missing = refused("inspect", str(tmp_path / "missing.safetensors"))
    assert "VectorFileError: " in missing
    pickle = tmp_path / "vector.safetensors"
    pickle.write_bytes(b"\x80\x04" + bytes(40))
    assert "pickles are never read" in refused("inspect", str(pickle))


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    said = refused("inspect", str(tmp_path / "\x1b]0;title\x07\x1b[31mred.safetensors"))
    assert "[31mred.safetensors" in said
    assert not {"\x1b", "\x07"} & set(said)


def test_a_coefficient_that_is_not_a_number_is_named(foreign: str) -> None:
    assert "the coefficient of" in refused("generate", "demo", "-v", f"{foreign}:abc", "Hello")


def test_bad_pairs_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Is it?", "chosen": "No.", "rejected": "No."}\n')
    message = refused("extract", "demo", str(path), "-o", str(tmp_path / "v.safetensors"))
    assert "PairsError: " in message
    assert "line 1: chosen and rejected are equal" in message
    assert not (tmp_path / "v.safetensors").exists()


def test_several_domains_need_several_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    row = '{"prompt": "Is it %s?", "chosen": "Yes.", "rejected": "No.", "domain": "%s"}\n'
    path.write_text(row % ("safe", "medical") + row % ("legal", "legal"))
    message = refused("extract", "demo", str(path), "-o", str(tmp_path / "v.safetensors"))
    assert "CompositionError: " in message
    assert "{domain}" in message


def test_a_domain_that_would_leave_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = '{"prompt": "a", "chosen": "b", "rejected": "c", "domain": "../out"}'
    file.write_text(row, encoding="utf-8")
    out = str(tmp_path / "in" / "{domain}.safetensors")
    message = refused("extract", "demo", str(file), "-o", out)
    assert "cannot be a part of a file name" in message
    assert not (tmp_path / "out.safetensors").exists()


def test_no_prompt(foreign: str) -> None:
    assert "TextError: " in refused("generate", "demo", "-v", foreign, stdin="\n \n")


def test_a_gate_that_no_file_holds(foreign: str) -> None:
    message = refused("generate", "demo", "-v", foreign, "--gate", "Can you help?")
    assert "no gate is stored in these files" in message


def test_gates_that_differ(tmp_path: Path) -> None:
    files = []
    for layer in (0, 1):
        gate = DomainGate(("medical", "legal"), torch.eye(2, 128), layer)
        made = Provenance(domain=("medical", "legal")[layer])
        vector = Vector({Residual(2): Direction(torch.ones(128))}, made, gate=gate)
        files += ["-v", f"{tmp_path / str(layer)}.safetensors:1"]
        vector.save(tmp_path / f"{layer}.safetensors")
    message = refused("generate", "demo", *files, "--gate", "Can you help?")
    assert "CompositionError: " in message
    assert "different gates" in message


def test_pairs_that_are_too_few_to_choose_with(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    row = '{"prompt": "Is it?", "chosen": "Yes %d.", "rejected": "No."}\n'
    path.write_text("".join(row % k for k in range(20)))
    message = refused("extract", "demo", str(path), "-o", str(tmp_path / "v.safetensors"))
    assert "PairsError: these pairs are too few to choose with" in message
    assert "20 pairs with 1 different prompts" in message
    assert "--held-out FILE" in message


def test_vectors_with_different_numbers_of_coefficients(foreign: str) -> None:
    both = ("-v", f"{foreign}:-1,0,1", "-v", f"{foreign}:1,2")
    message = refused("generate", "demo", *both, "Hello")
    assert "different numbers of coefficients" in message


def test_a_command_of_one_setting_refuses_several(foreign: str) -> None:
    message = refused("console", "demo", "-v", f"{foreign}:0,1")
    assert "takes one coefficient of each vector" in message


def test_a_position_that_was_not_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}\n')
    out = str(tmp_path / "v.safetensors")
    message = refused(
        "extract", "demo", str(path), "-o", out, "--method", "palrs", "--at", "template[-9]"
    )
    assert "no such token" in message
    assert "template[-1]" in message


def test_a_vector_of_another_model(foreign: str) -> None:
    message = refused("generate", "demo", "-v", f"{foreign}:0.5", "Can you help?")
    assert "FitError: " in message
    assert "width 8, layers up to 99" in message


def test_an_unknown_operator(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    Vector.of({2: torch.ones(128)}).save(path)
    message = refused("generate", "demo", "-v", str(path), "--operator", "clump", "Can you help?")
    assert "unknown operator" in message


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    status, out, err = steer("generate", str(tmp_path / "no-such"), "Can you help?")
    assert status == 1
    assert out == ""
    assert "Error: " in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "demo", "x.jsonl", "-o", "v", "--on-bad", "skip"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--layers", "two"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--layers", "4-2"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--method", "palrs", "--kl", "1"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--method", "palrs", "--seed", "0"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--method", "palrs", "--budget", "9"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--kl-budget", "1"),
        ("extract", "demo", "x.jsonl", "-o", "v", "--columns", "question"),
        ("demo", "--pairs", "0"),
        ("generate", "demo", "--dtype", "float31", "Can you help?"),
        ("generate", "demo", "--temperature", "0", "--top-k", "5", "Can you help?"),
        ("generate", "demo", "--temperature", "-1", "Can you help?"),
        ("align", "demo", "demo", "-o", "v", "--dtype", "int8"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    if "x.jsonl" in arguments:
        row = '{"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}\n'
        (tmp_path / "x.jsonl").write_text(row)
        arguments = tuple(str(tmp_path / a) if a in ("x.jsonl", "v") else a for a in arguments)
    status, _, err = steer(*arguments)
    assert status == 2
    assert "Usage:" in err


def test_the_installed_command_ends_the_process_with_the_status(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "steer", "inspect", "missing"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("VectorFileError: missing")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("value", ["--5", "9" * 5000, "1.5", "-", "five", "٣"])
def test_an_option_of_a_format_that_is_no_number(value: str, foreign: str, tmp_path: Path) -> None:
    out = str(tmp_path / "w.safetensors")
    said = refused("import", foreign, out, "--from", "tensor", "--with", f"layer={value}")
    assert "layer is not what the format 'tensor' takes" in said


def test_an_option_of_a_format_that_is_a_text(foreign: str, tmp_path: Path) -> None:
    out = tmp_path / "w.svec"
    assert steer("export", foreign, str(out), "--with", "model_type=7")[0] == 0
    assert '"model_type": "7"' in out.read_text()
    twice = ("--with", "model_type=a", "--with", "model_type=b")
    assert "an option is given twice" in refused("export", foreign, str(out), *twice)


def test_a_file_that_is_read_is_not_written(foreign: str, tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to(foreign)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Is it?", "chosen": "No.", "rejected": "Yes."}\n' * 2)
    before = Path(foreign).read_bytes(), pairs.read_bytes()
    for arguments in (
        ("export", foreign, foreign, "--to", "svec"),
        ("export", f"{foreign}:2", str(tmp_path / "link.gguf")),
        ("import", foreign, foreign, "--from", "svec"),
        ("extract", "demo", str(pairs), "-o", str(pairs), "--method", "mean_difference"),
    ):
        assert "the file to write is one that is read" in refused(*arguments)
    assert (Path(foreign).read_bytes(), pairs.read_bytes()) == before


@pytest.mark.parametrize("seed", ["-1", "4294967296", "9" * 30])
@pytest.mark.parametrize("command", ["generate", "extract", "align", "report", "demo"])
def test_a_seed_that_nothing_takes(command: str, seed: str) -> None:
    status, _, said = steer(command, "--seed", seed)
    assert status == 2
    assert "--seed" in said


@pytest.mark.parametrize(
    "options",
    [("--layers", "0-99999999999"), ("--layers", "9" * 5000), ("--columns", "prompt=a,prompt=b")],
)
def test_lists_that_cannot_be_meant(options: tuple[str, str], tmp_path: Path) -> None:
    status, _, said = steer("extract", "demo", "no.jsonl", "-o", str(tmp_path / "v"), *options)
    assert status == 2
    assert options[0] in said


@pytest.mark.parametrize(
    ("command", "advice", "expected"),
    [
        ("extract", "limits=Limits(kl=0.5)", "--kl 0.5"),
        ("align", "limits=Limits(kl=0.5)", "limits=Limits(kl=0.5)"),
        ("extract", "calibrate(model, vector, kl=0.1)", "calibrate(model, vector, kl=0.1)"),
        ("align", "use torch.as_tensor(x, dtype=torch.float32)", None),
        ("align", "pass rank=16, or steer.low_rank(v, rank=16)", None),
        ("extract", 'at=["template", "response_mean"]', "--at template,response_mean"),
        ("extract", 'columns={"prompt": "your name"}', "--columns 'prompt=your name'"),
        ("generate", "pass strict=False, or f(…)", "pass --no-strict, or f(…)"),
    ],
)
def test_advice_names_options_and_leaves_calls(
    command: str, advice: str, expected: str | None
) -> None:
    params = get_command(app).commands[command].params  # type: ignore[attr-defined]
    wanted = advice.replace("pass rank=16", "pass --rank 16") if expected is None else expected
    assert with_options(advice, params) == wanted


def test_a_temperature_that_overflows_is_refused() -> None:
    status, _, said = steer("generate", "demo", "Hello", "--temperature", "1e-320")
    assert status == 2
    assert "--temperature" in said


@pytest.mark.parametrize("out", [".", "..", "/", "", "v.pt"])
def test_an_import_into_what_is_no_vector_file(out: str, foreign: str) -> None:
    said = refused("import", foreign, out, "--from", "svec")
    assert "an import writes a vector file" in said
    assert ".safetensors" in said
