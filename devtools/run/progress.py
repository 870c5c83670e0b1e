"""Progress of a run at the terminal: a bar for each stage; without a terminal, one line per stage."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any


class Progress:
    """A listener for a run's websocket messages that shows them and measures each stage.

    Attributes:
        titles: the node titles by node id.
        seconds: the duration of each stage so far, by node title.
    """

    def __init__(self, prompt: Mapping[str, Mapping[str, Any]]) -> None:
        self.titles = {identity: node["_meta"]["title"] for identity, node in prompt.items()}
        self.seconds: dict[str, float] = {}
        self._node: str | None = None
        self._since = self._start = time.monotonic()
        self._done = 0
        self._first: tuple[float, float] | None = None

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        """Process one message."""
        if kind == "execution_start":
            self._since = self._start = time.monotonic()
        elif kind == "execution_cached":
            self._done += len(data["nodes"])
        elif kind == "executing":
            self._enter(data.get("node"))
        elif kind == "progress_state" and self._node in data["nodes"]:
            self._show(data["nodes"][self._node])

    def close(self) -> None:
        """End the current stage."""
        self._enter(None)

    def _enter(self, node: str | None) -> None:
        now = time.monotonic()
        if self._node is not None:
            title = self.titles.get(self._node, self._node)
            self.seconds[title] = round(self.seconds.get(title, 0.0) + now - self._since, 2)
            self._done += 1
            if now - self._since >= 0.5:
                self._clear()
                self._write(f"  {now - self._since:6.1f} s  {title}\n")
        self._node, self._since, self._first = node, now, None
        if node is not None:
            self._show({"value": 0, "max": 1})

    def _show(self, state: Mapping[str, Any]) -> None:
        if not sys.stderr.isatty() or self._node is None:
            return
        filled = int(24 * state["value"] / (state["max"] or 1))
        count = f" {state['value']:.0f}/{state['max']:.0f}" if state["max"] > 1 else ""
        text = (
            f"[{'#' * filled}{'.' * (24 - filled)}] {self._done + 1}/{len(self.titles)} "
            f"{self.titles.get(self._node, self._node)}{count}{self._left(state)}  "
            f"{time.monotonic() - self._start:.0f} s"
        )
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r{text[:width]:<{width}}")

    def _left(self, state: Mapping[str, Any]) -> str:
        """Return how long the stage will still take, at the pace since its first count, which may be slower."""
        value, now = state["value"], time.monotonic()
        if value and self._first is None:
            self._first = (value, now)
        if self._first is None or value <= self._first[0]:
            return ""
        pace = (now - self._first[1]) / (value - self._first[0])
        return f", about {pace * (state['max'] - value):.0f} s left"

    def _clear(self) -> None:
        if sys.stderr.isatty():
            self._write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not cost the video
            sys.stderr.write(text)
            sys.stderr.flush()
