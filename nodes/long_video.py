"""The node that interpolates a video file of any length."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import InputImpl, folder_paths, io, ui
from ..microcinema_core.files.atomic import atomic_write
from ..microcinema_core.frames.video_file import VideoSource, open_video
from ..microcinema_core.frames.video_of_frames import VideoOfFrames
from ..microcinema_core.frames.video_writer import VideoWriter
from ..microcinema_core.values import shown
from .appearance import prior_inputs
from .inputs import checked_inputs, fitting
from .interpolation import end_percent_input, rounds_input, tsr_model_inputs
from .preview import HIDDEN, InterruptibleFrames, graph_metadata, written_to
from .sampling import prompt_inputs, sampler_inputs
from .schema import node_schema

NODE = "MicroCinema Interpolate Long Video"
MODEL_TIP = "A MicroCinema MODEL with the role tsr, or one from MicroCinema Motion Loader with SparseCtrl."
"""Interpolation files of MicroCinema Crafter Loader need CLIP vision's features, for which the node has no input."""
ROUNDS_TIP = "1 multiplies the frame rate by 4, 2 multiplies it by 16; with SparseCtrl by 5 and 25."


class MicroCinemaInterpolateVideo(io.ComfyNode):
    """Temporal super-resolution of a video file, part by part, into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaInterpolateVideo",
            NODE,
            "Adds new frames to a video of any length, as MicroCinema Interpolate Frames does, and saves it with its "
            "sound. It reads, interpolates and writes a second or so at a time, so that memory does not grow with the "
            "length.",
            search_aliases=[
                "frame interpolation",
                "video interpolation",
                "tsr",
                "slow motion",
                "smooth video",
            ],
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Video.Input("video", tooltip="The video, from Load Video or Create Video."),
                *tsr_model_inputs(MODEL_TIP),
                io.Vae.Input("vae", tooltip="The VAE of the model that makes the video."),
                *prompt_inputs(),
                rounds_input(ROUNDS_TIP),
                io.Int.Input(
                    "longer_side",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Longer side of the new video in pixels, at least 16: choose a size that the model was "
                    "trained for, 128 for the shipped mini models. 0 keeps the size. Both sides are rounded to "
                    "multiples of 8.",
                ),
                *sampler_inputs(),
                *prior_inputs(),
                io.String.Input(
                    "filename_prefix",
                    default="video/MicroCinema",
                    tooltip="Folder and beginning of the file's name in ComfyUI's output folder, as in Save Video.",
                ),
                end_percent_input(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The new video, which is saved already."),
                io.Float.Output(display_name="fps", tooltip="Frame rate of the new video."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls,
        video: Any,
        model: Any,
        appearnet: Any,
        vae: Any,
        positive: Any,
        negative: Any,
        rounds: int,
        longer_side: int,
        gamma: float,
        filename_prefix: str,
        end_percent: float = 1.0,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the VIDEO of the file that is written, and its frame rate; play it in the node."""
        _require_side(longer_side)
        lambda_ = settings.pop("lambda")
        run = adapter.Interpolator(
            model,
            appearnet,
            adapter.SamplerSettings(positive=positive, negative=negative, **settings),
            rounds=rounds,
            lambda_=lambda_,
            gamma=gamma,
            end_percent=None if end_percent == 1 else end_percent,
            node=NODE,
        )
        height, width = 0, 0
        if "%" in filename_prefix:
            with _opened(video) as source:
                height, width = adapter.new_size(source, longer_side)
        path, subfolder = _next_file(filename_prefix, height, width)
        with (
            _opened(video) as source,
            written_to("output"),
            atomic_write(path, suffix=path.suffix) as part,
            VideoWriter(part, source, run.stride, graph_metadata(cls)) as target,
        ):
            adapter.interpolate_file(run, vae, source, target, longer_side=longer_side)
        preview = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), float(target.rate), ui=preview)


def _require_side(longer_side: int) -> None:
    """Refuse a side of a few pixels.

    Raises:
        ValueError: neither 0 nor at least `adapter.SMALLEST_SIDE`.
    """
    if 0 < longer_side < adapter.SMALLEST_SIDE:
        raise ValueError(
            f"longer_side is {longer_side} pixels, which is too small for a VAE: use {adapter.SMALLEST_SIDE} or more, "
            "or 0 to keep the size."
        )


_BAD_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
"""Errors of the file system that a name can cause in a folder that is there."""


def _next_file(prefix: str, height: int, width: int) -> tuple[Path, str]:
    """Return the path of a new file in the host's output folder, and its folder there, as Save Video names them.

    Raises:
        ValueError: a prefix that is no name, or leads out of the folder, or a folder that cannot be written to.
    """
    output = folder_paths.get_output_directory()
    with written_to("output"):
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                prefix, output, width, height
            )
            path = Path(folder) / f"{name}_{counter:05}_.mp4"
            with contextlib.suppress(FileNotFoundError):
                path.lstat()
        except Exception as error:  # the host raises a plain one for a prefix that leads out of the folder
            if isinstance(error, OSError) and not (error.errno in _BAD_NAMES and Path(output).is_dir()):
                raise
            raise ValueError(
                f"filename_prefix is {shown(prefix)}, which names no file in ComfyUI's output folder: use a folder "
                "and a beginning of names, such as video/MicroCinema."
            ) from error
    return path, subfolder


@contextmanager
def _opened(video: Any) -> Iterator[VideoSource]:
    """Open a VIDEO: its file is read frame by frame, and one that was made of frames is taken as it is."""
    if isinstance(video, InputImpl.VideoFromFile):
        start, duration = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
        with open_video(video.get_stream_source(), start=start, duration=duration) as source:
            yield source
        return
    parts = video.get_components()
    audio = None if parts.audio is None else fitting(io.Audio.Input("audio"), parts.audio)
    images = parts.images
    if hasattr(images, "as_subclass"):
        images = images.as_subclass(InterruptibleFrames)
    yield VideoOfFrames(images, parts.frame_rate, audio)


NODES = [MicroCinemaInterpolateVideo]
