"""One ComfyUI server on a free loopback port, in a base directory of its own, this pack linked into it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

from .client import ComfyClient, HostError
from .home import ROOT, calm_environment, home
from .host import Host

PACK = "microcinema"


class ComfyServer(ComfyClient):
    """Start, ask and stop a ComfyUI. Nothing outside `base` (and `$MICROCINEMA_HOME`) is written.

    Args:
        python: the interpreter to run it with.
        host: which ComfyUI.
        base: its base directory (models, input, output, custom_nodes ...); a temporary one when None.
        pack: the node pack to link into its custom_nodes; None for a bare host.
        arguments: further command line arguments of ComfyUI.
        detached: let the server outlive this process (otherwise it ends with it, however that ends).
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
        runs = _tidied(home() / "runs")
        self.base = base or Path(tempfile.mkdtemp(prefix="host-", dir=runs))
        super().__init__()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def input_dir(self) -> Path:
        """Where LoadImage finds its pictures."""
        return self.base / "input"

    @property
    def output_dir(self) -> Path:
        """Where SaveImage and SaveVideo write."""
        return self.base / "output"

    @property
    def models_dir(self) -> Path:
        """The host's models folder: checkpoints, microcinema, upscale_models ... below it."""
        return self.base / "models"

    @property
    def log(self) -> str:
        """All that the host has said so far."""
        file = self.base / "host.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self, timeout: float = 900) -> ComfyServer:
        """Start the server and wait until it answers; HostError when it dies or the pack does not load."""
        self._lay_out()
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        environ = {
            **calm_environment(),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": "",
            "PYTHONIOENCODING": "utf-8",
        }
        with (self.base / "host.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(port),
                cwd=self.host.path, env=environ, stdout=log, stderr=log, start_new_session=True,
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
            )  # fmt: skip
        try:
            self._wait_until_up(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server, gently and then by force, and remove a temporary base directory."""
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
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    def explain(self, error: Exception) -> str:
        """Return why the server does not answer: its last words, when it has ended."""
        if self.process and self.process.poll() is not None:
            return f"ComfyUI ended while running: {_last_words(self.log)}"
        return super().explain(error)

    def _lay_out(self) -> None:
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        if self.pack:
            link_folder(self.pack, self.base / "custom_nodes" / PACK)
        (self.base / "model_paths.yaml").write_text(json.dumps(self._model_paths()))

    def _model_paths(self) -> dict[str, dict[str, str]]:
        """Further model folders for --extra-model-paths-config (JSON is YAML): the host's own, and ours."""
        paths = {}
        for name, root in (("host", self.host.path / "models"), ("home", home() / "models")):
            folders = sorted(f.name for f in root.iterdir() if f.is_dir()) if root.is_dir() else []
            if folders:
                paths[name] = {"base_path": str(root), **{folder: folder for folder in folders}}
        return paths

    def _command(self, port: int) -> list[str]:
        launcher = [] if self.detached else [str(Path(__file__).with_name("launch.py"))]
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
                raise HostError(f"ComfyUI did not start: {_last_words(self.log)}")
            try:
                with urlopen(self.url + "/system_stats", timeout=5) as answer:
                    answer.read()
            except (URLError, OSError):
                time.sleep(0.25)
                continue
            return self._check_pack()
        raise HostError(f"ComfyUI did not answer within {timeout:.0f} s: {_last_words(self.log)}")

    def _check_pack(self) -> None:
        module = re.escape(str(self.base / "custom_nodes" / PACK))
        patterns = (f"Cannot import {module} module for custom nodes: (.*)",
                    f"Error while calling comfy_entrypoint in {module}: (.*)",
                    f"Skip {module} module for custom nodes due to (.*)")  # fmt: skip
        for pattern in patterns:
            found = re.search(pattern, self.log) if self.pack else None
            if found:
                raise HostError(f"ComfyUI could not load this pack: {found.group(1)}")


def has_gpu(python: Path | str) -> bool:
    """Whether torch sees a GPU; torch is only asked where the system shows a device at all."""
    if sys.platform == "linux" and not any(
        Path(device).exists()
        for device in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/dri")
    ):
        return False
    code = (
        "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available()"
        " or (hasattr(torch, 'xpu') and torch.xpu.is_available()))"
    )
    result = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return result.stdout.strip() == "True"


def _tidied(runs: Path) -> Path:
    """Make the folder of temporary base directories; those that a killed process left days ago go."""
    runs.mkdir(exist_ok=True)
    for folder in runs.glob("host-*"):
        if time.time() - folder.stat().st_mtime > 3 * 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)
    return runs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link_folder(target: Path, link: Path) -> None:
    """Make `link` lead to the folder `target`."""
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


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
