"""The real ComfyUI in this process, with the pack and small models: runs a prompt as its server does."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
import threading
import time
import types
import uuid
from pathlib import Path
from typing import Any

from devtools.check.conformance.boot import open_host
from devtools.check.conformance.models import register_families
from devtools.run.home import ROOT
from devtools.run.host import find_host

from ..files import good
from ..outcome import Outcome, fault_of, judged
from . import models, sources

Prompt = dict[str, dict[str, Any]]
PATIENCE = 8.0
"""Seconds of computing after which a run is cancelled, as by a user: a large valid input may take long."""
_FOLDERS = {
    "microcinema": ("tiny_base", "tiny_tsr", "tiny_image", "tiny_unet", "tiny_appearnet"),
    "checkpoints": ("sd_checkpoint", "sd_diffusers", "videocrafter", "dynamicrafter"),
    "diffusion_models": ("sd_unet",),
    "diffusers": ("sd_folder",),
    "animatediff_models": ("v3", "v3_original", "v2", "v2_original", "pia"),
    "animatediff_motion_lora": ("motion_lora", "motion_lora_webui"),
    "controlnet": ("sparsectrl", "sparsectrl_webui"),
}
"""The good files by the host's folders."""


@functools.cache
def pack_nodes() -> dict[str, Any]:
    """Start the host with the pack, and return the pack's node classes by id."""
    open_host(find_host(os.environ.get("COMFYUI_PATH")).path)
    nodes = models.host_nodes()
    base = Path(tempfile.mkdtemp(prefix="microcinema-fuzz-"))
    _use_folders(base)
    register_families()
    import comfy.utils

    comfy.utils.set_progress_bar_enabled(False)
    before = set(nodes.NODE_CLASS_MAPPINGS)
    if not asyncio.run(nodes.load_custom_node(str(ROOT))):
        raise RuntimeError("ComfyUI could not load the pack.")
    found = {name: nodes.NODE_CLASS_MAPPINGS[name] for name in set(nodes.NODE_CLASS_MAPPINGS) - before}
    nodes.NODE_CLASS_MAPPINGS |= {"FuzzGive": sources.FuzzGive, "FuzzUse": sources.FuzzUse}
    return dict(sorted(found.items()))


def _use_folders(base: Path) -> None:
    """Make the folder `base` the host's only one, with the good files in it."""
    import folder_paths

    folder_paths.models_dir = str(base / "models")
    for key, (_, extensions) in list(folder_paths.folder_names_and_paths.items()):
        folder_paths.folder_names_and_paths[key] = ([str(base / "models" / key)], extensions)
    folder_paths.filename_list_cache.clear()
    for name in ("output", "temp", "input"):
        (base / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(base / name))
    good.write_all(base / "good")
    for folder, names in _FOLDERS.items():
        (base / "models" / folder).mkdir(parents=True)
        for name in names:
            path = base / "good" / name
            path = path if path.is_dir() else path.with_suffix(".safetensors")
            (shutil.copytree if path.is_dir() else shutil.copyfile)(
                path, base / "models" / folder / path.name
            )


def names() -> list[str]:
    """Return the names of all good files."""
    return [name for names in _FOLDERS.values() for name in names]


def path_of(name: str) -> Path:
    """Return a good file or folder in the host's models folder."""
    import folder_paths

    folder = next(folder for folder, names in _FOLDERS.items() if name in names)
    path = Path(folder_paths.models_dir) / folder / name
    return path if path.is_dir() else path.with_suffix(".safetensors")


@functools.cache
def _executor() -> Any:
    """Return the host's executor, which keeps the error of a run."""
    import execution

    class Executor(execution.PromptExecutor):  # type: ignore[misc]
        failed_with: BaseException | None = None

        def handle_execution_error(
            self, prompt_id: str, prompt: Any, outputs: Any, executed: Any, error: Any, ex: Any
        ) -> None:
            self.failed_with = ex
            super().handle_execution_error(prompt_id, prompt, outputs, executed, error, ex)

    server = types.SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    return Executor(
        server,
        cache_type=execution.CacheType.CLASSIC,
        cache_args={"lru": 0, "ram": 16.0, "ram_inactive": 16.0},
    )


def run(prompt: Prompt) -> Outcome:
    """Validate and execute a prompt, as the host's server does."""
    import comfy.model_management
    import execution

    number = str(uuid.uuid4())
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt(number, prompt, None))
    if not valid:
        return _judged_validation(error, node_errors)
    executor = _executor()
    executor.reset()
    executor.failed_with = None
    done = threading.Event()
    clock = threading.Thread(target=_cancel_after_a_while, args=(done,), daemon=True)
    clock.start()
    try:
        executor.execute(prompt, number, {}, outputs)
    finally:
        done.set()
        clock.join()
        comfy.model_management.interrupt_current_processing(False)
    error = executor.failed_with
    if isinstance(error, comfy.model_management.InterruptProcessingException):
        return Outcome("accepted", f"cancelled after {PATIENCE:.0f} s")
    return Outcome("accepted") if error is None else judged(error)


def _cancel_after_a_while(done: threading.Event) -> None:
    """Cancel the run after `PATIENCE` seconds of computing, if it is not done by then."""
    import comfy.model_management

    started = time.process_time()
    while not done.wait(0.1):
        if time.process_time() - started > PATIENCE:
            comfy.model_management.interrupt_current_processing()
            return


def _judged_validation(error: dict[str, Any], node_errors: dict[str, Any]) -> Outcome:
    """Return the verdict on a refusal by the host: its own sentences are right, its tracebacks are not."""
    found = [one for node in node_errors.values() for one in node["errors"]] or [error]
    for one in found:
        text = f"{one['message']}: {one['details']}"
        if "exception" in one["type"] and "failed" not in one["type"]:
            return Outcome("raw", text)
        if one["type"] == "custom_validation_failed" and (fault := fault_of(one["details"])):
            return Outcome("raw", f"{fault}: {text[:300]}")
    return Outcome("refused", f"{found[0]['message']}: {found[0]['details']}")
