"""What the pack uses of its host: listed in one file, present in this host, and an error at loading otherwise."""

from __future__ import annotations

import ast
import asyncio
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devtools.run.home import ROOT
from tests.host.pack import imported

FILES = sorted([*(ROOT / "microcinema_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
ROOTS = ("comfy", "folder_paths", "latent_preview")
HOST = ROOT / "microcinema_core" / "adapter" / "host.py"


def names_used(file: Path) -> Iterator[str]:
    """Yield the dotted names below the host's root modules that a file uses, such as comfy.sd.VAE."""
    for node in ast.walk(ast.parse(file.read_text())):
        parts: list[str] = []
        value: ast.AST = node
        while isinstance(value, ast.Attribute):
            parts.insert(0, value.attr)
            value = value.value
        if isinstance(value, ast.Name) and value.id in ROOTS and parts:
            yield ".".join([value.id, *parts])


def test_one_file_imports_the_host() -> None:
    for file in FILES:
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
        }
        assert file == HOST or not imported & {*ROOTS, "comfy_api", "nodes", "server", "execution"}, file


def test_the_list_is_what_is_used(comfy_in_process: Path) -> None:
    from microcinema_core.adapter import host

    used = {name for file in FILES if file != HOST for name in names_used(file)}
    listed = {*host.TOUCHED, *host.OPTIONAL}
    unlisted = {
        n for n in used if not any(n == t or n.startswith(t + ".") or t.startswith(n + ".") for t in listed)
    }
    assert not unlisted
    text = "".join(file.read_text() for file in FILES if file != HOST)
    assert not [name for name in host.TOUCHED if not any(u == name or u.startswith(name + ".") for u in used)]
    assert not [name for name in host.OPTIONAL if name.rsplit(".", 1)[1] not in text]
    assert host.lacking() == []
    assert host.lacking(("comfy.sd.VAE", "comfy.sd.no_such_thing")) == ["comfy.sd.no_such_thing"]


@pytest.fixture
def pack(comfy_in_process: Path) -> Iterator[ModuleType]:
    """The pack, freshly imported under another name, as the host imports it from custom_nodes."""
    with imported("some pack") as module:
        yield module


def set_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    import comfyui_version

    monkeypatch.setattr(comfyui_version, "__version__", version)


def test_a_tested_host_is_not_spoken_of(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_version(monkeypatch, pack.TESTED[0])
    extension = asyncio.run(pack.comfy_entrypoint())
    assert len(asyncio.run(extension.get_node_list())) >= 9
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nodes_come_in_the_order_of_their_use(pack: ModuleType) -> None:
    nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    schemas = [node.GET_SCHEMA() for node in nodes]
    assert [schema.node_id.removeprefix("MicroCinema") for schema in schemas] == [
        "CheckpointLoader", "UNetLoader", "AppearNetLoader", "Inflate", "MotionLoader", "CrafterLoader",
        "PromptSchedule",
        "ApplyAppearNet", "NoisePrior",
        "Sampler",
        "TSR", "InterpolateVideo",
        "CentreFrame", "FrameCombine",
    ]  # fmt: skip
    assert {schema.category for schema in schemas} == {"MicroCinema"}


def test_an_untested_host_gets_one_line(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_version(monkeypatch, "9.9.9")
    assert asyncio.run(pack.comfy_entrypoint())
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "9.9.9" in record.getMessage() and pack.TESTED[0] in record.getMessage()


def test_an_incompatible_host_is_refused_whole(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.sd

    monkeypatch.delattr(comfy.sd, "VAE")
    with pytest.raises(RuntimeError, match=r"none of its nodes are loaded: it lacks comfy\.sd\.VAE"):
        asyncio.run(pack.comfy_entrypoint())


def test_a_newer_host_gets_words_to_search_by(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    io = sys.modules["some pack.nodes.schema"].io

    @dataclass
    class Newer(io.Schema):  # type: ignore[misc, name-defined]
        search_aliases: list[str] = field(default_factory=list)

    monkeypatch.setattr(io, "Schema", Newer)
    for node in nodes:
        assert node.define_schema().search_aliases, node


def test_a_newer_host_folds_the_rare_inputs(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Frame Combine; they stay required where they were, so that old prompts mean the same."""
    asyncio.run(pack.comfy_entrypoint())
    video = sys.modules["some pack.nodes.video"]
    for kind in (video.io.Int, video.io.Float, video.io.Boolean):

        class Newer(kind.Input):  # type: ignore[misc, name-defined]
            def __init__(self, id: str, optional: bool = False, advanced: bool = False, **more: Any) -> None:
                super().__init__(id, optional=optional, **more)
                self.advanced = advanced

        monkeypatch.setattr(kind, "Input", Newer)
    inputs = video.MicroCinemaFrameCombine.define_schema().inputs
    folded = {given.id: given.optional for given in inputs if getattr(given, "advanced", False)}
    required = dict.fromkeys(("repeat", "ping_pong", "cross_fade", "colour_strength"), False)
    assert folded == {**required, "skip_shared": True, "loop": True, "target_fps": True}


def test_a_broken_schema_leaves_no_node_behind(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host registers classes one by one, so all schemas are made before it sees the first."""
    extension = asyncio.run(pack.comfy_entrypoint())
    last = sys.modules["some pack.nodes.video"].NODES[-1]

    def broken() -> None:
        raise TypeError("no such field")

    monkeypatch.setattr(last, "GET_SCHEMA", broken)
    with pytest.raises(TypeError, match="no such field"):
        asyncio.run(extension.get_node_list())
