"""Cancelling stops both samplers within one step, and the server keeps working."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from devtools.check import tiny
from devtools.run.client import Interrupted
from devtools.run.server import ComfyServer

Prompt = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def clip(steps: int, kind: str) -> Prompt:
    """Return a prompt that runs grey pictures through one of the samplers."""
    common = {
        "positive": ["text", 0],
        "negative": ["text", 0],
        "seed": 1,
        "steps": steps,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "lambda": -1.0,
        "gamma": 0.02,
    }
    role = {"MicroCinemaSampler": "base", "MicroCinemaTSR": "tsr"}[kind]
    own = {"centre_frame": ["latent", 0], "frames": 9}
    if role == "tsr":
        own = {"key_frames": ["latent", 0], "fps": 2.0, "rounds": 2, "chunk": 2}
    return {
        "image": node("MicroCinemaCheckpointLoader", file="tiny_image.safetensors"),
        "model": node("MicroCinemaCheckpointLoader", file=f"tiny_{role}.safetensors"),
        "text": node("CLIPTextEncode", clip=["image", 1], text="a horse"),
        "picture": node("EmptyImage", width=64, height=64, batch_size=9 if role == "tsr" else 1, color=255),
        "latent": node("VAEEncode", pixels=["picture", 0], vae=["image", 2]),
        "made": node(kind, model=["model", 0], appearnet=["model", 3], **common, **own),
        "save": node("SaveLatent", samples=["made", 0], filename_prefix="cancelled"),
    }


@pytest.mark.parametrize("kind", ["MicroCinemaSampler", "MicroCinemaTSR"])
def test_cancel(host: ComfyServer, kind: str) -> None:
    folder = host.models_dir / "microcinema"
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_family(folder)
    host.run(clip(1, kind))

    sampling = threading.Event()
    cancelled: list[float] = []

    def watch(event: str, data: dict[str, Any]) -> None:
        if event == "progress" and data.get("node") == "made":
            sampling.set()

    def cancel() -> None:
        sampling.wait(120)
        cancelled.append(time.monotonic())
        host.interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        host.run(clip(5000, kind), on_event=watch)
    ended = time.monotonic()
    thread.join()
    assert cancelled, "the sampler never reported progress"
    assert ended - cancelled[0] < 10, "a step of the tiny model is far below this, 5000 steps far above"
    host.run(clip(1, kind))
