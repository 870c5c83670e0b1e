"""The child process in which cases run: a crash, a hang or a hunger for memory is seen and belongs to one case."""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .outcome import Outcome

START_LIMIT = 300.0
"""Seconds for a child to start and to make its files."""
MEMORY_LIMIT = 3 * 2**29
"""Most bytes that a case may take beyond what the child holds before it."""
ADDRESS_LIMIT = 12 * 2**30
"""Bytes of address space beyond those at the start, after which an allocation fails: it protects the machine."""
_RESET = Path("/proc/self/clear_refs")
processes = multiprocessing.get_context("spawn")


class Worker:
    """A child process that runs the cases of a suite, started again after each crash or hang.

    Args:
        suite: name of a module with `describe() -> dict` and `attempt(case) -> Outcome`.
        limit: most seconds of computing that a case may take; ten times that without an answer is too long as well.
        memory: most bytes that it may take.
    """

    def __init__(self, suite: str, limit: float, memory: int = MEMORY_LIMIT) -> None:
        self.suite, self.limit, self.memory = suite, limit, memory
        self._process: Any = None
        self._answers: Any = None
        self._folder: Any = None

    def describe(self) -> dict[str, Any]:
        """Return what the suite says of itself."""
        answer = self._ask(None, START_LIMIT)
        if not isinstance(answer, dict):
            raise RuntimeError(f"{self.suite} did not start: {answer}")
        return answer

    def attempt(self, case: dict[str, Any]) -> Outcome:
        """Run a case."""
        if self._process is None:
            self.describe()  # its time to start is not the case's
        answer = self._ask(case, self.limit)
        assert isinstance(answer, Outcome)
        return answer

    def memory_held(self) -> int:
        """Return the bytes that the child holds; 0 where the system does not tell."""
        return _status("VmRSS", self._process.pid)

    def stop(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._answers.close()
            self._folder.cleanup()
        self._process = None

    def _ask(self, case: dict[str, Any] | None, limit: float) -> dict[str, Any] | Outcome:
        if self._process is None:
            self._start()
        try:
            self._answers.send(case)
            if not self._answers_within(limit):
                self.stop()
                return Outcome("hang", f"no answer within {limit:.0f} s")
            return self._answers.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self.stop()
            ended = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            return Outcome("crash", f"the process ended with {ended}")

    def _answers_within(self, limit: float) -> bool:
        """Wait for the answer. On a busy machine only the child's own seconds count."""
        started, used = time.monotonic(), _cpu_seconds(self._process.pid)
        while not self._answers.poll(1.0):
            waited, computed = time.monotonic() - started, _cpu_seconds(self._process.pid) - used
            if waited > 10 * limit or computed > limit or (waited > limit and not _RESET.exists()):
                return False
        return True

    def _start(self) -> None:
        self._answers, theirs = processes.Pipe()
        self._folder = tempfile.TemporaryDirectory(prefix="microcinema-fuzz-", ignore_cleanup_errors=True)
        arguments = (theirs, self.suite, self.memory, self._folder.name)
        self._process = processes.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()


def _cpu_seconds(pid: int) -> float:
    """Return the seconds that a process has computed; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _serve(questions: Connection, suite: str, memory: int, folder: str | None = None) -> None:
    """Answer questions until the parent closes the connection; temporary files go to the folder, which it removes."""
    tempfile.tempdir = folder
    module = importlib.import_module(suite)
    description = module.describe()
    logging.disable(logging.CRITICAL)  # after the host, which sets a level of its own
    if _RESET.exists():
        import resource  # only POSIX systems have it

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ADDRESS_LIMIT, hard))
    while True:
        try:
            case = questions.recv()
        except (EOFError, OSError):
            return
        questions.send(description if case is None else _measured(module, case, memory))


def _measured(module: Any, case: dict[str, Any], memory: int) -> Outcome:
    with contextlib.suppress(OSError):
        _RESET.write_text("5")  # Linux: the peak starts again at what is held now
    before = _status("VmRSS")
    try:
        outcome = module.attempt(case)
    except BaseException as error:  # noqa: BLE001  (an error of the suite itself: it must not pass as the case's crash)
        text = "".join(traceback.format_exception(error))
        print(text, file=sys.stderr)
        return Outcome("raw", f"the campaign itself failed: {text[-400:]}")
    taken = _status("VmHWM") - before
    if taken > memory:
        return Outcome("crash", f"took {taken / 2**20:.0f} MB; it ended as {outcome.verdict}: {outcome.said}")
    return outcome


def _status(name: str, process: int | str = "self") -> int:
    """Return an entry of a process's status in bytes; 0 where the system has none."""
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return 1024 * int(lines[name].split()[0])
    return 0
