"""The messages that ComfyUI sends while it runs a prompt, over its websocket."""

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

    An exception in `on_event` ends the calls and is raised on exit. A server that is absent or disconnects raises
    nothing here: whoever waits for the run gets that error.

    Yields:
        The client id to submit a prompt with, and an event. It is set after the prompt's last message, or when no
        more can come; /history reports the end of a run before that message arrives.
    """
    client_id = uuid.uuid4().hex
    connected, over = threading.Event(), threading.Event()
    failed: list[Exception] = []

    def receive(kind: str, data: dict[str, Any]) -> None:
        try:
            if not failed:
                on_event(kind, data)
        except Exception as error:  # noqa: BLE001
            failed.append(error)
        if kind == "executing" and data.get("node") is None:  # the host's sign that this client's run is over
            over.set()

    loop = asyncio.new_event_loop()
    reading = loop.create_task(_read_messages(f"{url}/ws?clientId={client_id}", connected, receive))
    thread = threading.Thread(target=_run_loop, args=(loop, reading, over, connected), daemon=True)
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


def _run_loop(
    loop: asyncio.AbstractEventLoop, reading: asyncio.Task[None], *set_at_the_end: threading.Event
) -> None:
    try:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(reading)
        loop.close()
    finally:
        for event in set_at_the_end:
            event.set()


async def _read_messages(url: str, connected: threading.Event, on_event: OnEvent) -> None:
    import aiohttp  # in the environment only: it comes with ComfyUI

    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    content = json.loads(message.data)
                    on_event(content["type"], content.get("data") or {})
