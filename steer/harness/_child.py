"""Runs one program under limits and says how it ended; started by `sandbox`, never imported.

Standard input is one line of JSON: the source, the limits, and a word that only this process and
its parent know. The verdict is written to standard output with that word, and only if the program
ran to its end or raised: a program that exits, is killed or never ends leaves none.
"""

import ctypes
import json
import os
import resource
import struct
import sys

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # of prctl
_FORKS = {"x86_64": (56, 57, 58, 435), "aarch64": (220, 435)}  # clone, fork, vfork, clone3
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # instructions of a socket filter
_REFUSE, _ALLOW = 0x00050001, 0x7FFF0000  # EPERM, or go on


def main() -> None:
    """Read the request, limit this process, run the program, report."""
    request = json.loads(sys.stdin.readline())
    out = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    limit(request["memory"], request["cpu"], request["file_size"])
    try:
        code = compile(request["source"], "<program>", "exec")
        exec(code, {"__name__": "__main__"})
        verdict = ["passed", ""]
    except BaseException as error:  # noqa: BLE001  # whatever the program raises is its verdict
        kind = "exited" if isinstance(error, SystemExit) else "failed"
        verdict = [kind, describe(error)]
    os.write(out, json.dumps([request["word"], *verdict]).encode())
    os._exit(0)  # threads and exit handlers of the program get no turn


def limit(memory: int, cpu: int, file_size: int) -> None:
    """Set the limits that the kernel keeps; each is also the hard limit."""
    for name, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),  # no further process or thread; root is exempt
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
    refuse_forks()


def refuse_forks() -> None:
    """Have the kernel refuse further processes and threads, to root as well, where it can."""
    calls = _FORKS.get(os.uname().machine, ())
    code = [(_LOAD, 0, 0, 0)]
    code += [(_EQUAL, len(calls) - k, 0, call) for k, call in enumerate(calls)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed))
    prctl = ctypes.CDLL(None).prctl
    prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    prctl(_SECCOMP, _FILTER, ctypes.c_char_p(program), 0, 0)


def describe(error: BaseException) -> str:
    """Return type and message of an error, also of one that cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # noqa: BLE001  # a message that raises
        return type(error).__name__[:300]


if __name__ == "__main__":
    main()
