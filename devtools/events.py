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
def listen(url: str, on_event: OnEvent) -> Iterator[str]:
    """Call `on_event(type, data)` for each message of the server at `url`; yields the client id to use."""
    client_id = uuid.uuid4().hex
    connected = threading.Event()
    loop = asyncio.new_event_loop()
    reading = loop.create_task(_read(f"{url}/ws?clientId={client_id}", connected, on_event))
    thread = threading.Thread(target=_run, args=(loop, reading), daemon=True)
    thread.start()
    try:
        connected.wait(30)
        yield client_id
    finally:
        loop.call_soon_threadsafe(reading.cancel)
        thread.join(5)


def _run(loop: asyncio.AbstractEventLoop, reading: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(reading)
    loop.close()


async def _read(url: str, connected: threading.Event, on_event: OnEvent) -> None:
    import aiohttp  # in the environment only: it comes with ComfyUI

    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        connected.set()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                content = json.loads(message.data)
                on_event(content["type"], content.get("data") or {})
