"""The first and the last node of a graph: picture to centre frame, and frames to video."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Any

from einops import rearrange
from torch import Tensor

from ..microcinema_core.adapter.host import InputImpl, Types, io, show_text, ui
from ..microcinema_core.frames import centre_frame, combine
from ..microcinema_core.frames.rates import frame_rate, frames_per_kept
from .inputs import checked_inputs
from .preview import HIDDEN, InterruptibleFrames, animated_picture, video_file, written_to
from .schema import advanced_input, node_schema

MAX_SIZE = 8192
log = logging.getLogger(__name__)


class MicroCinemaCentreFrame(io.ComfyNode):
    """Turns any picture into the latent of the centre frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaCentreFrame",
            "MicroCinema Centre Frame",
            "Turns any picture into the centre frame of a video: resized with antialiasing, cropped or padded, and "
            "encoded. The centre frame sets the appearance of the whole video.",
            search_aliases=["center frame", "start image", "image to video", "reference image"],
            hidden=HIDDEN,
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The picture, of any size and aspect ratio: grey, RGB, or with an alpha channel, which "
                    "is laid over white. From a batch, the first picture is used.",
                ),
                io.Vae.Input("vae", tooltip="The VAE of the model that makes the video."),
                _side_input("width"),
                _side_input("height"),
                io.Combo.Input(
                    "fit",
                    options=list(centre_frame.FITS),
                    default="crop",
                    tooltip="What to do if the aspect ratio differs: "
                    "crop keeps the middle, pad adds white borders, stretch distorts.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="centre_frame",
                    tooltip="Latent of the centre frame, for every MicroCinema input of that name.",
                ),
                io.Image.Output(display_name="image", tooltip="The picture as it was encoded."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(cls, image: Tensor, vae: Any, width: int, height: int, fit: str) -> io.NodeOutput:
        """Return the centre frame as LATENT and as IMAGE, and show it in the node."""
        default = centre_frame.trained_size(vae)
        picture = centre_frame.prepare_centre_frame(
            _to_core(image, "image"),
            width=centre_frame.resolve_side(width, default),
            height=centre_frame.resolve_side(height, default),
            fit=fit,
        )
        pixels = _to_host(picture)
        with written_to("temp"):
            preview = ui.PreviewImage(pixels, cls=cls)
        return io.NodeOutput({"samples": vae.encode(pixels)}, pixels, ui=preview)


class MicroCinemaFrameCombine(io.ComfyNode):
    """Joins frames, in one or several segments, into a VIDEO and previews it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaFrameCombine",
            "MicroCinema Video Combine",
            "Joins frames into a video and previews it. Connect the stock Save Video node to save it.",
            search_aliases=["frame combine", "create video", "preview video"],
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("images", tooltip="The frames, in order."),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frame rate of the video. Connect the fps output of the node that made the frames.",
                ),
                advanced_input(
                    io.Int.Input,
                    "repeat",
                    optional=False,
                    default=1,
                    min=1,
                    max=100,
                    tooltip="How many times the frames are played in the video. 1 plays them once.",
                ),
                advanced_input(
                    io.Boolean.Input,
                    "ping_pong",
                    optional=False,
                    default=False,
                    tooltip="Plays forwards, then backwards. The frames at the ends are not doubled, so n frames "
                    "become 2n - 2 frames.",
                ),
                advanced_input(
                    io.Int.Input,
                    "cross_fade",
                    optional=False,
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Number of frames that overlap and blend where images, images_2 and so on are joined; 0 "
                    "makes hard cuts. For segments that share a frame, use skip_shared.",
                ),
                advanced_input(
                    io.Float.Input,
                    "colour_strength",
                    optional=False,
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far the colours of every frame (mean and contrast) are pulled to those of "
                    "colour_anchor: 0 is off, 1 is full. Raise it if the colours drift; the report says how far.",
                ),
                *(
                    io.Image.Input(
                        f"images_{number}",
                        optional=True,
                        tooltip="More frames of the same size, played after the ones before.",
                    )
                    for number in (2, 3, 4)
                ),
                io.Image.Input(
                    "colour_anchor",
                    optional=True,
                    tooltip="Picture whose colours the video should keep, usually the centre frame. Without it, "
                    "the middle frame of images is used.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound, from the start of the video. It is cut where the video ends.",
                ),
                advanced_input(
                    io.Boolean.Input,
                    "skip_shared",
                    default=False,
                    tooltip="Leaves out the first frame of images_2 and so on. Turn it on if each segment begins "
                    "with the last frame of the one before, so that this frame is not shown twice.",
                ),
                advanced_input(
                    io.Boolean.Input,
                    "loop",
                    default=False,
                    tooltip="Joins the end to the beginning, so that the video loops smoothly; skip_shared and "
                    "cross_fade apply there too. Not needed with ping_pong.",
                ),
                advanced_input(
                    io.Float.Input,
                    "target_fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="A lower frame rate for the video, which keeps its duration: every 2nd, 3rd ... frame is "
                    "kept. fps has to be a multiple of it: 16 or 8 for frames at 32. If the video loops, the step (2, "
                    "3 ...) has to divide the number of frames as well, or the loop jumps. 0 keeps all frames.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The video, for Save Video."),
                io.Image.Output(display_name="images", tooltip="All frames of the video."),
                io.Int.Output(display_name="frame_count", tooltip="Number of frames in the video."),
                io.String.Output(
                    display_name="report",
                    tooltip="Number of frames, duration and colour drift from the anchor, for Preview as Text. "
                    "Drift is a distance in CIE L*a*b*, where about 2.3 is just visible.",
                ),
            ],
        )

    @classmethod
    @checked_inputs
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
        target_fps: float = 0.0,
    ) -> io.NodeOutput:
        """Return VIDEO, its frames as IMAGE, their number and the report; preview the video in the node."""
        given = {"images": images, "images_2": images_2, "images_3": images_3, "images_4": images_4}
        segments = {name: _to_core(frames, name) for name, frames in given.items() if frames is not None}
        anchor = None if colour_anchor is None else _to_core(colour_anchor, "colour_anchor")
        rate, every = frame_rate(fps), frames_per_kept(fps, target_fps)
        rate, fps = rate / every, fps / every
        sound = None if audio is None else combine.prepare_audio(audio)
        combined = combine.combine_frames(
            segments,
            skip_shared=skip_shared,
            cross_fade=cross_fade,
            loop=loop and not ping_pong,
            every=every,
            colour_strength=colour_strength,
            colour_anchor=anchor,
        )
        shown, even = _to_host(combined.frames), combine.pad_to_even(combined.frames)
        padded = shown if even is combined.frames else _to_host(even)
        images = combine.playback_frames(shown, ping_pong=ping_pong, repeat=repeat)
        log.info(
            "MicroCinema Video Combine: %s", report := combine.describe_video(combined, fps, len(images))
        )
        show_text(report)
        preview = animated_picture(cls, combined.frames, fps, ping_pong=ping_pong)
        del combined, even
        played = images
        if padded is not shown:
            played = combine.playback_frames(padded, ping_pong=ping_pong, repeat=repeat)
        if sound:
            film = _host_video(played.as_subclass(InterruptibleFrames), rate, sound)
            preview |= video_file(cls, film)
        return io.NodeOutput(
            _host_video(played, rate, sound), images, len(images), report, ui={**preview, "text": [report]}
        )


def _host_video(images: Tensor, rate: Fraction, audio: dict[str, Any] | None) -> Any:
    """Return the host's VIDEO of an IMAGE."""
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=rate))


def _side_input(name: str) -> io.Int.Input:
    tip = (
        f"{name.capitalize()} of the video in pixels, rounded to a multiple of 8. 0 is 128 for the mini models and "
        "320 for all others."
    )
    return io.Int.Input(name, default=0, min=0, max=MAX_SIZE, step=centre_frame.SIZE_STEP, tooltip=tip)


def _to_core(image: Tensor, name: str) -> Tensor:
    """Return the host's IMAGE `b h w c`, or `b h w` without colour, as `b c h w`; `name` is for the message."""
    if image.ndim == 3:
        image = rearrange(image, "b h w -> b h w 1")
    if image.ndim != 4:
        raise ValueError(
            f"{name} must be a batch of pictures (b, h, w, c), but has shape {tuple(image.shape)}."
        )
    return rearrange(image, "b h w c -> b c h w")


def _to_host(pictures: Tensor) -> Tensor:
    return rearrange(pictures, "b c h w -> b h w c").contiguous()


NODES = [MicroCinemaCentreFrame, MicroCinemaFrameCombine]
