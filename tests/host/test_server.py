"""The pack loads in the real ComfyUI, and the server harness does what its docstrings say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.run.client import HostError, Interrupted
from devtools.run.events import listen
from devtools.run.server import ComfyServer


def picture_prompt(name: str) -> dict:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
    }


def blurring_prompt(side: int, pictures: int, name: str) -> dict:
    """Return a prompt whose run takes long."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": side, "height": side, "batch_size": pictures, "color": 0},
        },
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 9, "sigma": 3.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": name}},
    }


def test_the_pack_is_loaded(host: ComfyServer) -> None:
    assert "IMPORT FAILED" not in "".join(line for line in host.log.splitlines() if "microcinema" in line)
    assert "microcinema" in host.log
    assert {"KSampler", "MicroCinemaSampler"} <= set(host.object_info())


def test_a_prompt_runs_and_its_files_are_found(host: ComfyServer) -> None:
    Image.new("RGB", (32, 16), "red").save(host.input_dir / "red.png")
    outputs = host.run(picture_prompt("red.png"))
    (image,) = outputs["2"]["images"]
    assert Image.open(host.output_dir / image["filename"]).size == (32, 16)


def test_all_of_a_runs_events_are_heard(host: ComfyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "wait", lambda *ignored: {})  # as if /history were far ahead of the messages
    nodes: list[str | None] = []
    host.run(
        blurring_prompt(1024, 1, "blurred"),
        on_event=lambda kind, data: nodes.append(data["node"]) if kind == "executing" else None,
    )
    assert nodes == ["1", "2", "3", None]


def test_what_a_listener_raises_is_told_after_the_run(host: ComfyServer) -> None:
    def fail(kind: str, data: dict[str, Any]) -> None:
        raise RuntimeError(f"no wish to hear of {kind}")

    with pytest.raises(RuntimeError, match="no wish to hear of"):
        host.run(blurring_prompt(64, 1, "unheard"), on_event=fail)
    assert list(host.output_dir.glob("unheard*"))


def test_a_server_that_is_not_there_is_not_waited_for() -> None:
    started = time.monotonic()
    with listen("http://127.0.0.1:9", lambda kind, data: None) as (_, over):
        assert over.is_set()
    assert time.monotonic() - started < 20  # the timeout of a connection attempt is 30 s


def test_errors_are_sentences(host: ComfyServer) -> None:
    assert "LoadImage" in host.run_expect_error(picture_prompt("absent.png"))
    (host.input_dir / "broken.png").write_bytes(b"no picture")
    assert "cannot identify image file" in host.run_expect_error(picture_prompt("broken.png"))


def test_a_run_can_be_interrupted(host: ComfyServer) -> None:
    run = host.submit(blurring_prompt(2048, 16, "never"))
    time.sleep(0.5)
    host.interrupt()
    with pytest.raises(Interrupted):
        host.wait(run, timeout=120)
    assert not list(host.output_dir.glob("never*"))


def test_one_run_is_cancelled_and_the_others_go_on(host: ComfyServer) -> None:
    runs, waits = (host.submit(blurring_prompt(1024, 16, name)) for name in ("runs", "waits"))
    time.sleep(0.5)
    host.cancel(waits)
    host.cancel(waits)  # is not there any more, so that nothing is interrupted
    assert not host.is_queued(waits)
    assert host.is_queued(runs)
    host.cancel(runs)
    with pytest.raises(Interrupted):
        host.wait(runs, timeout=120)
    with pytest.raises(HostError, match="no longer knows this run"):
        host.wait(waits, timeout=60)


def test_a_broken_pack_is_named(comfyui: object, tmp_path: Path) -> None:
    import sys

    (tmp_path / "__init__.py").write_text("raise ImportError('this pack is broken')\n")
    server = ComfyServer(sys.executable, comfyui, pack=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(HostError, match="this pack is broken"):
        server.start()
    assert server.process is None
    assert not server.base.exists()
