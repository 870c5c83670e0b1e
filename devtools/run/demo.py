"""`dev.py demo`: make one video with the shipped models in ComfyUI."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microcinema_core.files.scratch import remove_leftovers

from . import edit
from .base import kept_base
from .example_pictures import add_example_pictures
from .home import ROOT, Problem, dev_command, home, say
from .host import Host, find_host
from .place import place
from .progress import Progress
from .prompt_words import notice, read_caption_words, read_subjects
from .server import LIVE_PREVIEWS, ComfyServer, HostError
from .upscaler import FILE_NAME, fetch_upscaler
from .workflow import Prompt, read_prompt, read_workflow
from .write_back import to_workflow

TEXT_WORKFLOW = ROOT / "workflows" / "11 Text to video (mini).json"
IMAGE_WORKFLOW = ROOT / "workflows" / "10 Start here - picture to video (mini).json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dev.py demo`."""
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what the video shows (default: the workflow's own prompt)"
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="your own centre frame, of any size; its middle square is used",
    )
    parser.add_argument("--seed", type=int, help="the same seed gives the same video")
    parser.add_argument("--steps", type=int, help="sampling steps of every stage")
    parser.add_argument(
        "--rounds", type=int, choices=(0, 1, 2), help="interpolation rounds: 9, 33 or 129 frames"
    )
    parser.add_argument("--upscale", action="store_true", help="upscale the video 4x with Real-ESRGAN")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output"),
        metavar="DIR",
        help="the folder for the video (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep ComfyUI running and print its address; `dev.py stop` ends it",
    )


def check_arguments(arguments: argparse.Namespace) -> None:
    """Check what can be checked before anything is installed.

    Raises:
        Problem: an option is out of range, or its file or folder cannot be used.
    """
    if arguments.prompt is not None and not arguments.prompt.strip():
        raise Problem("--prompt is empty: say what the video should show.")
    if arguments.image and not arguments.image.is_file():
        raise Problem(f"--image names {arguments.image}, but there is no such file.")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**64:
        raise Problem(f"--seed is {arguments.seed}: it has to be between 0 and 2**64 - 1.")
    if arguments.steps is not None and not 1 <= arguments.steps <= 1000:
        raise Problem(f"--steps is {arguments.steps}: it has to be between 1 and 1000.")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--out: cannot create the folder {arguments.out} ({error.strerror}).") from error
    if not os.access(arguments.out, os.W_OK):
        raise Problem(f"--out: the folder {arguments.out} is not writable.")


def check_picture(path: Path) -> None:
    """Check that a file is a picture (this needs the environment).

    Raises:
        Problem: it is not.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise Problem(f"--image names {path}, which cannot be read as a picture ({error}).") from error


def main(arguments: argparse.Namespace) -> None:
    """Start the host, run the shipped workflow, stop the host; print the result as one JSON object."""
    start = time.monotonic()
    if arguments.image:
        check_picture(arguments.image)
    host = find_host(arguments.comfyui)
    if arguments.upscale:
        fetch_upscaler()
    remove_leftovers(arguments.out)
    server = _server(host, keep=arguments.keep)
    say(f"Starting ComfyUI {host.version} ({host.source}) ...")
    try:
        server.start()
        started = time.monotonic() - start
        result = _make_video(server, arguments)
    except BaseException:
        server.stop()
        raise
    if arguments.keep:
        add_example_pictures(server.input_dir)
        say(f"ComfyUI stays up at {server.url}. To stop it: {dev_command('stop')}")
    else:
        server.stop()
    stages = {"Start ComfyUI": round(started, 2), **result.pop("stages")}
    seconds = round(time.monotonic() - start, 1)
    _print_result({**result, "seconds": seconds, "host": host.version, "stages": stages})


def _server(host: Host, *, keep: bool) -> ComfyServer:
    """Return a temporary server, or one that stays up, for people to look at."""
    if keep:
        return ComfyServer(sys.executable, host, base=kept_base(), arguments=LIVE_PREVIEWS, detached=True)
    return ComfyServer(sys.executable, host)


def _print_result(result: dict[str, Any]) -> None:
    """Print the result as the last line of stdout.

    Raises:
        Problem: stdout goes to a file that cannot be written.
    """
    try:
        print(json.dumps(result), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest at its end
        raise Problem(
            f"The video is {result['video']}, but this result cannot be printed to stdout ({error.strerror})."
        ) from error


def _make_video(server: ComfyServer, arguments: argparse.Namespace) -> dict[str, Any]:
    prompt = build_prompt(server, arguments)
    workflow = to_workflow(read_workflow(_workflow_file(arguments)), prompt, server.object_info())
    text = edit.get_text(prompt)
    said = notice(text, read_caption_words(), read_subjects(), drawn=not arguments.image)
    say(f'Prompt: "{text}". {said}')
    progress = Progress(prompt)
    outputs = _run(server, prompt, workflow, progress)
    progress.close()
    saved = server.output_dir / saved_video(outputs)
    seed = next(iter(edit.values_of(prompt, edit.SEEDS)), 0)
    video = _deliver(server, saved, arguments.out, f"{_slug(text)}-{seed}{saved.suffix}")
    return {"video": str(video), **measure(video), "stages": progress.seconds}


def _run(
    server: ComfyServer, prompt: Prompt, workflow: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    try:
        return server.run(prompt, on_event=progress, timeout=24 * 3600, workflow=workflow)
    except HostError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise HostError(
            f"{error}: the disk of {home()} is full; make room there, or set MICROCINEMA_HOME to a folder on another "
            "disk."
        ) from error


def _deliver(server: ComfyServer, saved: Path, folder: Path, name: str) -> Path:
    """Copy the video from the host's folder to the user's, and return its path there.

    Raises:
        Problem: it cannot be written there; the host's file is kept, and named.
    """
    try:
        return place(saved, folder, name)
    except OSError as error:
        inside = saved.relative_to(server.base)
        kept = server.keep_files() / inside
        raise Problem(
            f"--out: the video cannot be written to {folder} ({error.strerror or error}): it is kept as {kept}; "
            "copy it from there to a folder that has room."
        ) from error


def _workflow_file(arguments: argparse.Namespace) -> Path:
    return IMAGE_WORKFLOW if arguments.image else TEXT_WORKFLOW


def build_prompt(server: ComfyServer, arguments: argparse.Namespace) -> Prompt:
    """Return the shipped workflow in the API format, changed according to the command line."""
    info = server.object_info()
    prompt = read_prompt(_workflow_file(arguments), info)
    if arguments.image:
        name = "centre_frame" + arguments.image.suffix.lower()
        try:
            shutil.copyfile(arguments.image, server.input_dir / name)
        except OSError as error:
            raise Problem(
                f"--image: {arguments.image} cannot be copied to {server.input_dir} ({error.strerror})."
            ) from error
        edit.nodes_of(prompt, "LoadImage")[0]["inputs"]["image"] = name
    if arguments.prompt is not None:
        edit.set_text(prompt, arguments.prompt)
    if arguments.seed is not None:
        edit.set_seeds(prompt, arguments.seed)
    if arguments.steps is not None:
        edit.set_everywhere(prompt, ("steps",), arguments.steps)
    if arguments.rounds is not None:
        edit.set_rounds(prompt, arguments.rounds)
    if arguments.upscale:
        edit.add_upscaler(prompt, FILE_NAME)
    edit.prune(prompt, info)
    return prompt


def measure(video: Path) -> dict[str, Any]:
    """Return frames, fps, width and height of a video file; the frames are counted by decoding it."""
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        rate = float(stream.average_rate or 0)
        return {"frames": frames, "fps": round(rate, 3), "width": stream.width, "height": stream.height}


def saved_video(outputs: dict[str, Any]) -> Path:
    """Return the path of the first file that a run saved, relative to the output folder.

    Raises:
        HostError: there is none.
    """
    for result in outputs.values():
        for files in result.values():
            for file in files if isinstance(files, list) else []:
                if isinstance(file, dict) and file.get("type") == "output":
                    return Path(file["subfolder"]) / file["filename"]
    raise HostError("The run succeeded, but the host saved no video.")


def _slug(text: str) -> str:
    words = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    return words.encode()[:120].decode(errors="ignore") or "video"  # file systems count bytes
