"""Names in the user's language, on a front end that shows those of packs.

The one of ComfyUI 0.3.75 overwrites them (docs/compatibility.md). To run this, name the `static` folder of a later one
(package `comfyui-frontend-package`) in $MICROCINEMA_FRONT_END.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from devtools.run.home import ROOT
from devtools.run.host import find_host
from devtools.run.server import ComfyServer
from tests.browser.canvas import keep_picture
from tests.browser.conftest import TIMEOUT

FRONT_END = os.environ.get("MICROCINEMA_FRONT_END", "")
TITLES = """() => Object.fromEntries(Object.keys(LiteGraph.registered_node_types)
    .filter(name => name.startsWith("MicroCinema")).map(name => [name, LiteGraph.createNode(name).title]))"""

pytestmark = pytest.mark.skipif(not FRONT_END, reason="MICROCINEMA_FRONT_END names no later front end")


@pytest.mark.parametrize("language", ["fr", "ja"])
def test_every_node_has_its_name_in_the_users_language(
    browser: Any, comfy_in_process: Path, artifacts: Path, tmp_path: Path, language: str
) -> None:
    names = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    arguments = ("--front-end-root", FRONT_END)
    with ComfyServer(sys.executable, find_host(), base=tmp_path, arguments=arguments) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Locale": language})
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto(running.url, wait_until="commit")
        page.wait_for_function("() => window.app?.graph && LiteGraph.registered_node_types.MicroCinemaTSR")
        titles = page.evaluate(TITLES)
        keep_picture(page, artifacts / f"language_{language}.png")
        context.close()
    assert titles == {name: said["display_name"] for name, said in names.items()}
