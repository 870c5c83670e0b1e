"""ComfyUI's HTTP API: submit a prompt, follow it, interrupt it; every failure is one sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .events import listen
from .home import Problem

Prompt = Mapping[str, Any]


class HostError(Problem):
    """The host refused or broke off a run; the message is what it said."""


class Interrupted(HostError):
    """The run was interrupted."""


class ComfyClient:
    """Ask the ComfyUI at `url`."""

    def __init__(self, url: str = "") -> None:
        self.url = url

    def explain(self, error: Exception) -> str:
        """Return why the server does not answer."""
        return f"ComfyUI does not answer at {self.url}: {error}"

    def get(self, path: str) -> Any:
        """GET `path`, as JSON."""
        return self._ask(Request(self.url + path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST `body` as JSON to `path`; the JSON answer, or None when it is empty."""
        data = json.dumps(body).encode()
        return self._ask(Request(self.url + path, data, {"Content-Type": "application/json"}))

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """Return the schemas of all nodes by node id, or that of one node."""
        return self.get(f"/object_info/{node}")[node] if node else self.get("/object_info")

    def submit(self, prompt: Prompt, *, client_id: str = "") -> str:
        """Queue an API-format prompt and return its id; HostError names what the host's validation found."""
        body = {"prompt": prompt, **({"client_id": client_id} if client_id else {})}
        try:
            answer = self.post("/prompt", body)
        except HTTPError as error:
            raise HostError(_refusal(json.loads(error.read() or b"{}"))) from None
        if answer["node_errors"]:
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            self.interrupt()
            raise HostError(_refusal(answer))
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 1800) -> dict[str, Any]:
        """Wait for a queued prompt; its outputs by node id, as /history gives them."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                _raise_if_failed(entry["status"])
                return dict(entry["outputs"])
            time.sleep(0.2)
        self.interrupt()
        raise HostError(f"The run was broken off: it took more than {timeout:.0f} s.")

    def run(
        self,
        prompt: Prompt,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
        timeout: float = 1800,
    ) -> dict[str, Any]:
        """Submit a prompt and wait; `on_event(type, data)` gets a good run's text messages, in a thread."""
        if on_event is None:
            return self.wait(self.submit(prompt), timeout)
        with listen(self.url, on_event) as (client_id, over):
            outputs = self.wait(self.submit(prompt, client_id=client_id), timeout)
            over.wait(30)
        return outputs

    def run_expect_error(self, prompt: Prompt, timeout: float = 600) -> str:
        """Run a prompt that has to fail; what the host said. AssertionError when it succeeds."""
        try:
            self.run(prompt, timeout=timeout)
        except HostError as error:
            return str(error)
        raise AssertionError("the run was expected to fail, but it succeeded")

    def interrupt(self) -> None:
        """Interrupt the run that is going on, if any."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Drop loaded models and cached results."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def _ask(self, request: Request) -> Any:
        try:
            with urlopen(request, timeout=120) as answer:
                data = answer.read()
        except HTTPError:
            raise
        except (URLError, OSError) as error:
            raise HostError(self.explain(error)) from None
        return json.loads(data) if data else None


def _refusal(answer: Mapping[str, Any]) -> str:
    """One line from the answer of a refused POST /prompt."""
    parts = [
        f"{node['class_type']}: {error['message']}"
        + (f" ({error['details']})" if error.get("details") else "")
        for node in (answer.get("node_errors") or {}).values()
        for error in node["errors"]
    ]
    overall = answer.get("error") or {}
    return "; ".join(parts) or f"{overall.get('message', 'refused')} {overall.get('details', '')}".strip()


def _raise_if_failed(status: Mapping[str, Any]) -> None:
    if status["status_str"] == "success":
        return
    for kind, data in status["messages"]:
        if kind == "execution_interrupted":
            raise Interrupted("The run was interrupted.")
        if kind == "execution_error":
            raise HostError(f"{data['node_type']}: {data['exception_message'].strip()}")
    raise HostError("The run failed, and the host did not say why.")
