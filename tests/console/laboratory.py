"""A JupyterLab of its own, on this machine alone, with one notebook."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
_PLACES = (
    "HOME",
    "IPYTHONDIR",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
)

_ASKING = {"@jupyterlab/apputils-extension:announcements": True}  # asks the network for news


@contextmanager
def laboratory(folder: Path, code: str) -> Iterator[str]:
    """Start JupyterLab with a notebook of one cell; yield the notebook's address."""
    work = folder / "work"
    work.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = new_notebook(cells=[new_code_cell(code)], metadata=kernel)
    nbformat.write(notebook, work / "console.ipynb")
    token, port = secrets.token_hex(16), _free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in _PLACES:
        (folder / name).mkdir()
        environment[name] = str(folder / name)
    config = folder / "JUPYTER_CONFIG_DIR" / "labconfig"
    config.mkdir()
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": _ASKING}))
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": work,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": token,
    }
    command = [sys.executable, "-m", "jupyterlab"]
    command += [f"--{name}={value}" for name, value in options.items()]
    log = folder / "log"
    with log.open("w") as said:
        server = subprocess.Popen(
            command, cwd=work, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _answers(f"{address}/api/status?token={token}", server, log)
        yield f"{address}/lab/tree/console.ipynb?token={token}"
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels
        try:
            server.wait(60)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def _answers(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server answers."""
    for _ in range(120):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except OSError:
            try:
                server.wait(1)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError(log.read_text())
