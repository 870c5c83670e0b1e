"""The two ends of a graph: a picture becomes the centre frame, frames become a clip."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

from einops import rearrange
from torch import Tensor

from ..microcinema_core.adapter.host import InputImpl, Types, folder_paths, io, ui
from ..microcinema_core.files.atomic import atomic_write
from ..microcinema_core.frames import centre_frame
from ..microcinema_core.frames import combine as video
from .schema import node_schema

MAX_SIZE = 8192
log = logging.getLogger(__name__)


class MicroCinemaCentreFrame(io.ComfyNode):
    """Any picture -> the latent of the centre frame, and the picture as the model sees it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaCentreFrame",
            "MicroCinema Centre Frame",
            "Makes any picture the centre frame of a video: resized, antialiased, encoded. The centre frame "
            "decides what everything in the video looks like.",
            search_aliases=["start image", "image to video", "reference image"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The picture: any size and aspect, grey, RGB or with an alpha channel (laid over "
                    "white). Of a batch, the first picture is taken.",
                ),
                io.Vae.Input("vae", tooltip="The VAE of the model that will make the video."),
                _side("width"),
                _side("height"),
                io.Combo.Input(
                    "fit",
                    options=list(centre_frame.FITS),
                    default="crop",
                    tooltip="If the picture's aspect is another one: crop keeps the middle, pad the whole "
                    "on a white ground, stretch distorts.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="centre_frame",
                    tooltip="The centre frame's latent, for every MicroCinema input of that name.",
                ),
                io.Image.Output(display_name="image", tooltip="The picture as it was encoded."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, vae: Any, width: int, height: int, fit: str) -> io.NodeOutput:
        default = centre_frame.trained_size(vae)
        picture = centre_frame.prepare_centre_frame(
            _to_core(image, "image"),
            width=centre_frame.whole_size(width, default),
            height=centre_frame.whole_size(height, default),
            fit=fit,
        )
        pixels = _to_host(picture)
        return io.NodeOutput({"samples": vae.encode(pixels)}, pixels)


class MicroCinemaFrameCombine(io.ComfyNode):
    """Frames, in one or several segments -> a VIDEO, shown in the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaFrameCombine",
            "MicroCinema Frame Combine",
            "Joins frames into a clip and shows it. Save it with the stock Save Video node.",
            search_aliases=["video combine", "create video", "preview video"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The frames, in order."),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames a second. Connect the fps of the node that made the frames.",
                ),
                io.Int.Input(
                    "repeat",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="How often the clip is played in the file; 1 is once.",
                ),
                io.Boolean.Input(
                    "ping_pong",
                    default=False,
                    tooltip="Play forwards, then back. The two turning frames are not doubled, so n frames "
                    "become 2n - 2.",
                ),
                io.Int.Input(
                    "cross_fade",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Frames that overlap and blend at each join of images, images_2 and so on; 0 cuts "
                    "from one to the next. See skip_shared for clips that share a frame.",
                ),
                io.Float.Input(
                    "colour_strength",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far every frame's colours (mean and contrast) are pulled to those of the colour "
                    "anchor: 0 not at all, 1 fully. Against colours that drift; the report says how far they do.",
                ),
                *(
                    io.Image.Input(
                        f"images_{number}", optional=True, tooltip="Frames that follow, of the same size."
                    )
                    for number in (2, 3, 4)
                ),
                io.Image.Input(
                    "colour_anchor",
                    optional=True,
                    tooltip="The picture whose colours are kept, usually the centre frame. Without it, the "
                    "middle frame of images.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound from the start of the clip; cut where the clip ends.",
                ),
                io.Boolean.Input(
                    "skip_shared",
                    default=False,
                    optional=True,
                    tooltip="Leave out the first frame of images_2 and so on: for clips that begin with the last "
                    "frame of the one before, so that it is not shown twice.",
                ),
                io.Boolean.Input(
                    "loop",
                    default=False,
                    optional=True,
                    tooltip="Join the end to the beginning as clips are joined, by skip_shared and cross_fade, so "
                    "that the clip repeats smoothly. ping_pong does so by itself.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The clip, for Save Video."),
                io.Image.Output(display_name="images", tooltip="All frames of the video."),
                io.Int.Output(display_name="frame_count", tooltip="How many frames the video has."),
                io.String.Output(
                    display_name="report",
                    tooltip="Frames, duration, and how far the colours drift from the anchor (in CIE L*a*b*, where "
                    "about 2.3 is just visible). For Preview as Text.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        fps: float,
        repeat: int,
        ping_pong: bool,
        cross_fade: int,
        colour_strength: float,
        images_2: Tensor | None = None,
        images_3: Tensor | None = None,
        images_4: Tensor | None = None,
        colour_anchor: Tensor | None = None,
        audio: dict[str, Any] | None = None,
        skip_shared: bool = False,
        loop: bool = False,
    ) -> io.NodeOutput:
        given = {"images": images, "images_2": images_2, "images_3": images_3, "images_4": images_4}
        segments = {name: _to_core(frames, name) for name, frames in given.items() if frames is not None}
        anchor = None if colour_anchor is None else _to_core(colour_anchor, "colour_anchor")
        clip = video.combine(
            segments,
            skip_shared=skip_shared,
            cross_fade=cross_fade,
            loop=loop,
            colour_strength=colour_strength,
            colour_anchor=anchor,
            ping_pong=ping_pong,
            repeat=repeat,
        )
        log.info("MicroCinema Frame Combine: %s", report := video.describe(clip, fps))
        written, shown = _write(clip.frames, fps, audio), _to_host(clip.frames)
        return io.NodeOutput(
            written, shown, len(shown), report, ui={**_show(written).as_dict(), "text": [report]}
        )


def _write(frames: Tensor, fps: float, audio: dict[str, Any] | None) -> Any:
    """The host's VIDEO of frames `f c h w`."""
    components = Types.VideoComponents(
        images=_to_host(video.pad_to_even(frames)),
        audio=None if audio is None else video.check_audio(audio),
        frame_rate=video.frame_rate(fps),
    )
    return InputImpl.VideoFromComponents(components)


def _side(name: str) -> io.Int.Input:
    tip = (
        f"{name.capitalize()} of the video in pixels; 0 is what the model was trained for. "
        "Rounded to a multiple of 8."
    )
    return io.Int.Input(name, default=0, min=0, max=MAX_SIZE, step=centre_frame.SIZE_STEP, tooltip=tip)


def _to_core(image: Tensor, name: str) -> Tensor:
    """The host's IMAGE `b h w c`, or `b h w` without colours, as `b c h w`; `name` is for the error."""
    if image.ndim == 3:
        image = rearrange(image, "b h w -> b h w 1")
    if image.ndim != 4:
        raise ValueError(
            f"{name} must be a batch of pictures (b, h, w, c), but has shape {tuple(image.shape)}."
        )
    return rearrange(image, "b h w c -> b c h w")


def _to_host(pictures: Tensor) -> Tensor:
    return rearrange(pictures, "b c h w -> b h w c").contiguous()


def _show(clip: Any) -> ui.PreviewVideo:
    """Write the clip to the host's temp folder, which it empties by itself, and show it in the node."""
    path = Path(folder_paths.get_temp_directory()) / f"MicroCinema_{uuid.uuid4().hex}.mp4"
    with atomic_write(path, suffix=path.suffix) as part:
        clip.save_to(str(part))
    return ui.PreviewVideo([ui.SavedResult(path.name, "", io.FolderType.temp)])


NODES = [MicroCinemaCentreFrame, MicroCinemaFrameCombine]
