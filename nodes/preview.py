"""What a node shows of a video: an animated picture, which plays by itself in every front end.

The Vue nodes of front end 1.32.9 take an output for a video only in nodes that have a VIDEO input, and no front end
starts a video by itself. An animated WebP plays and loops wherever a picture is shown.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import comfy, folder_paths, io, ui
from ..microcinema_core.files.atomic import atomic_write
from ..microcinema_core.frames.preview import shrink, thin_out
from ..microcinema_core.messages import reason

QUALITY = 80
FASTEST = 0
"""The encoder's method: 33 frames of 512 pixels take a third of a second, and three times as long with its default."""

HIDDEN = [io.Hidden.prompt, io.Hidden.extra_pnginfo]
"""Inputs of a node whose files restore its graph."""


class InterruptibleFrames(Tensor):
    """Frames whose reader stops between two of them when the user cancels the run."""

    def __iter__(self) -> Iterator[Tensor]:
        plain = self.as_subclass(Tensor)
        for number in range(len(plain)):
            adapter.stop_if_cancelled()
            yield plain[number]


def animated_picture(
    node: type[io.ComfyNode], frames: Tensor, fps: float, *, ping_pong: bool = False
) -> dict[str, Any]:
    """Write frames `f 3 h w` as a small animated WebP with the graph in it, and return what shows it in the node.

    The file is in the host's temp folder, which the host empties itself. Of a long or fast video it has every 2nd, 3rd
    ... frame (`frames.preview`).
    """
    thinned = thin_out(frames, fps)
    shown = [shrink(frame) for frame in thinned.frames.as_subclass(InterruptibleFrames)]
    if ping_pong:
        shown += shown[-2:0:-1]
    with written_to("temp"):
        saved = ui.ImageSaveHelper.save_animated_webp(
            shown,
            filename_prefix=f"MicroCinema_{uuid.uuid4().hex}",
            folder_type=io.FolderType.temp,
            cls=node,
            fps=thinned.fps,
            lossless=False,
            quality=QUALITY,
            method=FASTEST,
        )
    return dict(ui.SavedImages([saved], is_animated=len(shown) > 1).as_dict())


def video_file(node: type[io.ComfyNode], video: Any) -> dict[str, Any]:
    """Write a VIDEO to the host's temp folder with the graph in it, and return what lists it among the run's files.

    The node itself shows no video beside an animated picture, so this is the place where its sound is heard.
    """
    path = Path(folder_paths.get_temp_directory()) / f"MicroCinema_{uuid.uuid4().hex}.mp4"
    with written_to("temp"), atomic_write(path, suffix=path.suffix) as part:
        video.save_to(str(part), metadata=graph_metadata(node))
    return {"video": [ui.SavedResult(path.name, "", io.FolderType.temp)]}


@contextmanager
def written_to(folder: str) -> Iterator[None]:
    """Turn errors of the file system into a sentence about one of the host's folders, such as output.

    Raises:
        ValueError: a full disk, a folder without permission and so on.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"ComfyUI's {folder} folder cannot be written to: {reason(error)}; free some space on its disk or change "
            "its permissions."
        ) from error


def graph_metadata(node: type[io.ComfyNode]) -> dict[str, Any] | None:
    """Return the metadata that the host's Save Video writes, by which the front end restores the graph."""
    if comfy.cli_args.args.disable_metadata or node.hidden is None:
        return None
    found = {**(node.hidden.extra_pnginfo or {}), "prompt": node.hidden.prompt}
    return {key: value for key, value in found.items() if value is not None}
