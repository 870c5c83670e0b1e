"""A ComfyUI server on a free loopback port, with its own base directory and this pack linked into it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from microcinema_core.files.scratch import remove_leftovers

from .base import Running, name_server, running_in, take_base, temporary_base
from .client import ComfyClient, HostError
from .env import has_gpu
from .home import ROOT, cannot_write, child_environment, dev_command, home
from .host import Host

PACK = "microcinema"
"""The pack's folder in custom_nodes."""
LIVE_PREVIEWS = ("--preview-method", "auto")
"""Arguments of ComfyUI by which samplers show what they are making; by default they show nothing."""
_UNTIL_STDIN_CLOSES = """
import os, runpy, sys, threading

def watch():
    sys.stdin.buffer.read()
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script that ends with the process that started it: that process holds the other end of its stdin."""


class ComfyServer(ComfyClient):
    """A ComfyUI process and its client, as a context manager.

    It writes only to `base` and `$MICROCINEMA_HOME`. It is alone in `base`: a server empties its temp folder when it
    starts and when it ends, so that another one would lose its files.

    Args:
        python: the interpreter to run it with.
        host: the ComfyUI to run.
        base: its base directory (models, input, output, custom_nodes ...); None for a temporary one.
        pack: the node pack to link into its custom_nodes; None for none.
        arguments: further command line arguments of ComfyUI.
        detached: whether the server outlives this process; otherwise it ends with it in every case.
    """

    def __init__(
        self,
        python: Path | str,
        host: Host,
        *,
        base: Path | None = None,
        pack: Path | None = ROOT,
        arguments: tuple[str, ...] = (),
        detached: bool = False,
    ) -> None:
        self.detached = detached
        self.python, self.host, self.pack, self.arguments = Path(python), host, pack, arguments
        self._temporary = base is None
        self.base = base or temporary_base()
        super().__init__()
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def input_dir(self) -> Path:
        """The folder that LoadImage reads from."""
        return self.base / "input"

    @property
    def output_dir(self) -> Path:
        """The folder that SaveImage and SaveVideo write to."""
        return self.base / "output"

    @property
    def models_dir(self) -> Path:
        """The host's models folder, with checkpoints, microcinema, upscale_models ... in it."""
        return self.base / "models"

    @property
    def log(self) -> str:
        """The host's log so far."""
        file = self.base / "host.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self, timeout: float = 900) -> ComfyServer:
        """Start the server and wait until it responds.

        Raises:
            HostError: it ended, did not respond within `timeout` seconds, could not load the pack, or another server
                runs in `base`.
            Problem: `base` cannot be written to.
        """
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        try:
            self._take_base()
            self._create_folders()
            self._start_process(port)
        except OSError as error:
            self.stop()
            raise cannot_write(self.base, error) from error
        except BaseException:
            self.stop()
            raise
        try:
            self._wait_until_up(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def _start_process(self, port: int) -> None:
        environ = {
            **child_environment(),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": "",
            "PYTHONIOENCODING": "utf-8",
        }
        with (self.base / "host.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(port),
                cwd=self.host.path, env=environ, stdout=log, stderr=log, start_new_session=True,
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE, **self._inherited(),
            )  # fmt: skip
        if self._lock is not None:
            name_server(self._lock, Running(self.url, self.process.pid))

    def _inherited(self) -> dict[str, Any]:
        """Return the option by which the server holds the lock too, so that it lasts as long as either process."""
        return {"pass_fds": (self._lock,)} if os.name == "posix" and self._lock is not None else {}

    def _take_base(self) -> None:
        """Lock the base directory.

        Raises:
            HostError: another server runs in it.
        """
        self._lock = take_base(self.base)
        if self._lock is None:
            other = running_in(self.base)
            raise HostError(
                f"Another ComfyUI runs in {self.base}{f', at {other.url}' if other else ''}: use that one, or stop it "
                f"first ({dev_command('stop')})."
            )

    def keep_files(self) -> Path:
        """Stop the server without removing its base directory, and return where that is now."""
        temporary, self._temporary = self._temporary, False
        self.stop()
        if temporary:  # under its old name it would be taken for a leftover
            kept = self.base.with_name(self.base.name.replace("host-", "kept-", 1))
            os.replace(self.base, kept)
            self.base = kept
        return self.base

    def stop(self) -> None:
        """Terminate the server, kill it if it does not end, and remove a temporary base directory."""
        process, self.process = self.process, None
        if process and process.stdin:
            process.stdin.close()
        if process and process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                _kill_group(process)
                process.wait(10)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    def explain(self, error: Exception) -> str:
        """Return why the server does not respond: the last line of its log if it has ended."""
        if self.process and self.process.poll() is not None:
            return f"ComfyUI ended while running: {_last_line(self.log)}"
        return super().explain(error)

    def _create_folders(self) -> None:
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.output_dir, *self.output_dir.rglob("*")):
            if folder.is_dir():
                remove_leftovers(folder)
        if self.pack:
            link_folder(self.pack, self.base / "custom_nodes" / PACK)
        paths = json.dumps(
            self._model_paths(), ensure_ascii=False
        )  # YAML knows no escaped pairs of surrogates
        (self.base / "model_paths.yaml").write_text(paths, encoding="utf-8")

    def _model_paths(self) -> dict[str, dict[str, str]]:
        """Return model folders for --extra-model-paths-config (JSON is YAML): the host's own and ours."""
        paths = {}
        for name, root in (("host", self.host.path / "models"), ("home", home() / "models")):
            folders = sorted(f.name for f in root.iterdir() if f.is_dir()) if root.is_dir() else []
            if folders:
                paths[name] = {"base_path": str(root), **{folder: folder for folder in folders}}
        return paths

    def _command(self, port: int) -> list[str]:
        launcher = [] if self.detached else ["-c", _UNTIL_STDIN_CLOSES]
        device = [] if has_gpu(self.python) else ["--cpu"]
        return [
            str(self.python), "-s", *launcher, str(self.host.path / "main.py"),
            "--listen", "127.0.0.1", "--port", str(port), *device,
            "--base-directory", str(self.base),
            "--extra-model-paths-config", str(self.base / "model_paths.yaml"),
            "--use-pytorch-cross-attention", "--disable-auto-launch", "--disable-api-nodes",
            "--database-url", "sqlite:///:memory:", *self.arguments,
        ]  # fmt: skip

    def _wait_until_up(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            assert self.process is not None
            if self.process.poll() is not None:
                raise HostError(f"ComfyUI did not start: {_last_line(self.log)}")
            try:
                with urlopen(self.url + "/system_stats", timeout=5) as response:
                    response.read()
            except (URLError, OSError):
                time.sleep(0.25)
                continue
            return self._check_pack()
        raise HostError(f"ComfyUI did not respond within {timeout:.0f} s: {_last_line(self.log)}")

    def _check_pack(self) -> None:
        module = re.escape(str(self.base / "custom_nodes" / PACK))
        patterns = (f"Cannot import {module} module for custom nodes: (.*)",
                    f"Error while calling comfy_entrypoint in {module}: (.*)",
                    f"Skip {module} module for custom nodes due to (.*)")  # fmt: skip
        for pattern in patterns:
            found = re.search(pattern, self.log) if self.pack else None
            if found:
                raise HostError(f"ComfyUI could not load this pack: {found.group(1)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link_folder(target: Path, link: Path) -> None:
    """Link the folder `target` as `link`; a folder that is there already stays."""
    if link.is_symlink():
        link.unlink()
    if link.exists():
        return
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:
        if sys.platform != "win32":
            raise
        import _winapi  # a junction needs no privilege

        _winapi.CreateJunction(str(target), str(link))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "its log is empty"
