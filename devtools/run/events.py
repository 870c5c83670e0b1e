"""The messages of ComfyUI's websocket, read in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

OnEvent = Callable[[str, dict[str, Any]], None]


@contextlib.contextmanager
def listen(url: str, on_event: OnEvent) -> Iterator[tuple[str, threading.Event]]:
    """Call `on_event(type, data)`, in a thread, for each text message of the server at `url`.

    Yields the client id to submit a prompt with, and what is set when the prompt's last message was passed on, or when
    no more come: /history knows of the end before that message comes. What `on_event` raises is raised at the end, and
    it is not called again. A server that is not there, or leaves, is no error here: who waits for the run is told.
    """
    client_id = uuid.uuid4().hex
    connected, over = threading.Event(), threading.Event()
    failed: list[Exception] = []

    def hear(kind: str, data: dict[str, Any]) -> None:
        try:
            if not failed:
                on_event(kind, data)
        except Exception as error:  # noqa: BLE001
            failed.append(error)
        if kind == "executing" and data.get("node") is None:  # the host's word for: this client's run is over
            over.set()

    loop = asyncio.new_event_loop()
    reading = loop.create_task(_read(f"{url}/ws?clientId={client_id}", connected, hear))
    thread = threading.Thread(target=_run, args=(loop, reading, over, connected), daemon=True)
    thread.start()
    try:
        connected.wait(30)
        yield client_id, over
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server ended the connection
            loop.call_soon_threadsafe(reading.cancel)
        thread.join(5)
    if failed:
        raise failed[0]


def _run(loop: asyncio.AbstractEventLoop, reading: asyncio.Task[None], *at_the_end: threading.Event) -> None:
    try:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(reading)
        loop.close()
    finally:
        for event in at_the_end:
            event.set()


async def _read(url: str, connected: threading.Event, on_event: OnEvent) -> None:
    import aiohttp  # in the environment only: it comes with ComfyUI

    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    content = json.loads(message.data)
                    on_event(content["type"], content.get("data") or {})
