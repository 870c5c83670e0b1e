"""ComfyUI's reserve for a step is enough: each in a process of its own, as a host is started for one device."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from devtools.run.home import ROOT
from microcinema_core.files.paths import HOST_VARIABLE, home_folder

hosts = os.environ.get(HOST_VARIABLE) or list(home_folder().glob("hosts/*"))


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.skipif(not hosts, reason="there is no ComfyUI: COMFYUI_PATH names one")
def test_sampling_takes_no_more_than_comfyui_reserves(device: torch.device) -> None:
    size = "full" if device.type == "cuda" else "tiny"
    command = [sys.executable, "-m", "devtools.check.estimate", "--device", device.type, "--size", size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"reserves ([\d.]+) MiB, and sampling took ([\d.]+) MiB", done.stdout + done.stderr)
    assert found, done.stderr[-2000:]
    estimate, peak = map(float, found.groups())
    assert done.returncode == (peak > estimate) == 0
    assert peak > 0.05 * estimate if device.type == "cuda" else peak > 0
