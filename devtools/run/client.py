"""ComfyUI's API: submit a prompt, wait for it, interrupt it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from microcinema_core import json_text

from .events import OnEvent, listen
from .home import Problem


class HostError(Problem):
    """The host refused or aborted a run; the message is the host's."""


class Interrupted(HostError):
    """The run was interrupted."""


POLL, LOOK = 0.2, 1.0
"""Seconds between questions for the end of a run, and whether it is still queued."""


class ComfyClient:
    """A client of the ComfyUI at `url`; every failure is a HostError of one sentence."""

    def __init__(self, url: str = "") -> None:
        self.url = url

    def explain(self, error: Exception) -> str:
        """Return why the server does not respond."""
        return f"ComfyUI does not respond at {self.url}: {error}"

    def get(self, path: str) -> Any:
        """GET `path` and return its JSON."""
        return self._request(Request(self.url + path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST `body` as JSON to `path` and return the JSON response, or None if it is empty."""
        data = json.dumps(body).encode()
        return self._request(Request(self.url + path, data, {"Content-Type": "application/json"}))

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """Return the schemas of all nodes by node id, or the schema of one node."""
        return self.get(f"/object_info/{node}")[node] if node else self.get("/object_info")

    def submit(
        self,
        prompt: Mapping[str, Any],
        *,
        client_id: str = "",
        workflow: Mapping[str, Any] | None = None,
    ) -> str:
        """Queue a prompt in the API format and return its id.

        Args:
            prompt: the prompt.
            client_id: who is sent the messages of the run.
            workflow: the same in the front end's format, for the files that the run writes.

        Raises:
            HostError: the host's validation refused it.
        """
        prompt_id = str(uuid.uuid4())  # chosen here, so that it is known if Ctrl-C comes before the response
        body: dict[str, Any] = {"prompt": prompt, "prompt_id": prompt_id}
        if client_id:
            body["client_id"] = client_id
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            response = self.post("/prompt", body)
        except KeyboardInterrupt:
            self._cancel_quietly(prompt_id)
            raise
        if response["node_errors"]:
            self.cancel(response["prompt_id"])
            raise HostError(_refusal(response))
        return str(response["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 1800) -> dict[str, Any]:
        """Wait for a queued prompt and return its outputs by node id, as /history has them.

        Raises:
            HostError: the run failed, took longer than `timeout` seconds (it is then cancelled), or is no longer known
                to the host, which was restarted or whose queue was cleared.
            KeyboardInterrupt: by Ctrl-C; the run is then cancelled.
        """
        try:
            return self._wait(prompt_id, timeout)
        except KeyboardInterrupt:
            self._cancel_quietly(prompt_id)
            raise

    def _wait(self, prompt_id: str, timeout: float) -> dict[str, Any]:
        until, look, absent = time.monotonic() + timeout, time.monotonic() + LOOK, 0
        while time.monotonic() < until:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                _raise_if_failed(entry["status"])
                return dict(entry["outputs"])
            if not entry and time.monotonic() >= look:
                look = time.monotonic() + LOOK
                absent = (
                    0 if self.is_queued(prompt_id) else absent + 1
                )  # once may be between queue and history
                if absent > 1:
                    raise HostError(
                        "ComfyUI no longer knows this run: it was restarted, or its queue was cleared; run it again."
                    )
            time.sleep(POLL)
        self.cancel(prompt_id)
        raise HostError(f"The run was stopped: it took more than {timeout:.0f} s.")

    def is_queued(self, prompt_id: str) -> bool:
        """Return whether a prompt runs or waits in the host's queue."""
        queue = self.get("/queue")
        return any(entry[1] == prompt_id for entries in queue.values() for entry in entries)

    def cancel(self, prompt_id: str) -> None:
        """Take one prompt out of the queue, and interrupt it if it runs; other runs go on."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def _cancel_quietly(self, prompt_id: str) -> None:
        """Cancel a run on the way out of Ctrl-C, where a host that is gone is no further error."""
        with contextlib.suppress(HostError):
            self.cancel(prompt_id)

    def run(
        self,
        prompt: Mapping[str, Any],
        on_event: OnEvent | None = None,
        timeout: float = 1800,
        workflow: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Submit a prompt, wait for it, and return its outputs.

        Args:
            prompt: a prompt in the API format.
            on_event: called as `on_event(type, data)`, in a thread, with each text message of the run.
            timeout: time limit in seconds.
            workflow: the same in the front end's format, for the files that the run writes.
        """
        if on_event is None:
            return self.wait(self.submit(prompt, workflow=workflow), timeout)
        with listen(self.url, on_event) as (client_id, over):
            outputs = self.wait(self.submit(prompt, client_id=client_id, workflow=workflow), timeout)
            over.wait(30)
        return outputs

    def run_expect_error(self, prompt: Mapping[str, Any], timeout: float = 600) -> str:
        """Run a prompt that has to fail and return the host's message.

        Raises:
            AssertionError: the run succeeded.
        """
        try:
            self.run(prompt, timeout=timeout)
        except HostError as error:
            return str(error)
        raise AssertionError("the run was expected to fail, but it succeeded")

    def view(self, file: Mapping[str, Any]) -> bytes:
        """Fetch a file that a run saved, as its outputs name it."""
        query = urlencode({key: file.get(key, "") for key in ("filename", "subfolder", "type")})
        return self._read(Request(f"{self.url}/view?{query}"))

    def upload(self, picture: Path, folder: str, name: str = "") -> str:
        """Put a picture into a folder of the host's input, and return what LoadImage calls it there.

        A picture of the same name there is replaced. `name` is the picture's own by default.
        """
        boundary = uuid.uuid4().hex
        fields = {"subfolder": folder, "type": "input", "overwrite": "true"}
        parts = [
            f'Content-Disposition: form-data; name="{field}"\r\n\r\n{value}'.encode()
            for field, value in fields.items()
        ]
        head = f'Content-Disposition: form-data; name="image"; filename="{name or picture.name}"\r\n\r\n'
        parts.append(head.encode() + picture.read_bytes())
        line = f"--{boundary}".encode()
        body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"
        kind = f"multipart/form-data; boundary={boundary}"
        put = self._request(Request(f"{self.url}/upload/image", body, {"Content-Type": kind}))
        return "/".join(part for part in (put["subfolder"], put["name"]) if part)

    def interrupt(self) -> None:
        """Interrupt the current run, if any."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload the models and drop the cached results."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def _request(self, request: Request) -> Any:
        data = self._read(request)
        try:
            return json_text.loads(data) if data else None
        except ValueError as error:
            raise HostError(self.explain(error)) from None

    def _read(self, request: Request) -> bytes:
        try:
            with urlopen(request, timeout=120) as response:
                return bytes(response.read())
        except HTTPError as error:
            raise HostError(_answered(error)) from None
        except (URLError, OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address
            raise HostError(self.explain(error)) from None


def _answered(error: HTTPError) -> str:
    """Return one line from the host's answer to a request that failed: its reasons, or the page of a fault."""
    content = error.read()
    try:
        return _refusal(json_text.loads(content or b"{}"))
    except (ValueError, AttributeError, LookupError, TypeError):
        page = " ".join(content.decode("utf-8", errors="replace").split())
        return f"ComfyUI answered {error.code} {error.reason}: {page[:200] or 'without a reason'}"


def _refusal(response: Mapping[str, Any]) -> str:
    """Return one line from the response to a refused POST /prompt."""
    parts = [
        f"{node['class_type']}: {error['message']}"
        + (f" ({error['details']})" if error.get("details") else "")
        for node in (response.get("node_errors") or {}).values()
        for error in node["errors"]
    ]
    overall = response.get("error") or {}
    return "; ".join(parts) or f"{overall.get('message', 'refused')} {overall.get('details', '')}".strip()


def _raise_if_failed(status: Mapping[str, Any]) -> None:
    if status["status_str"] == "success":
        return
    for kind, data in status["messages"]:
        if kind == "execution_interrupted":
            raise Interrupted("The run was interrupted.")
        if kind == "execution_error":
            raise HostError(f"{data['node_type']}: {data['exception_message'].strip()}")
    raise HostError("The run failed, and the host gave no reason.")
