"""The archive, unpacked into custom_nodes under another name, in folders with spaces and letters beyond ASCII.

Help pages are not tested here: the host's web server (aiohttp 3.14) finds no static folder whose name it has to escape.
tests/host/test_workflows.py tests them, where the pack's folder has a plain name.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from devtools.release import archive
from devtools.run.home import ROOT
from devtools.run.host import Host
from devtools.run.server import ComfyServer

NAME = "Mikro Kino – 映画 (1)"

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="the archive is made from a git checkout",
)


def test_it_works_where_it_is_unpacked(comfyui: Host, tmp_path: Path) -> None:
    base = tmp_path / "Eigene Dateien ü 日本"
    folder = base / "custom_nodes" / NAME
    archive.write(tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as file:
        file.extractall(tmp_path)
    folder.parent.mkdir(parents=True)
    (tmp_path / archive.FOLDER).rename(folder)
    with ComfyServer(
        sys.executable, comfyui, base=base, pack=None, arguments=("--disable-metadata",)
    ) as server:
        ours = [name for name in server.object_info() if name.startswith("MicroCinema")]
        assert set(ours) == {page.stem for page in (folder / "web" / "docs").glob("*.md")}
        assert "MicroCinemaTSR" in server.get("/i18n")["ja"]["nodeDefs"]
        assert "11 Text to video (mini)" in server.get("/workflow_templates")[NAME]
        assert {"MicroCinema to 32 fps"} <= {
            entry["name"] for entry in server.get("/global_subgraphs").values()
        }
        outputs = server.run(
            {
                "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 3, "color": 0}},
                "2": {
                    "class_type": "MicroCinemaFrameCombine",
                    "inputs": {"images": ["1", 0], "fps": 8.0, "repeat": 1, "ping_pong": False, "cross_fade": 0,
                               "colour_strength": 0.0},
                },
                "3": {"class_type": "MicroCinemaCheckpointLoader", "inputs": {"file": "mini_image.safetensors"}},
                "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["3", 1]}},
                "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
            }
        )  # fmt: skip
        assert outputs["2"]["text"][0].startswith("3 frames at 8 a second")
        assert "5" in outputs
