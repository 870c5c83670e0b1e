"""The node that interpolates a video file of any length."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import InputImpl, folder_paths, io, ui
from ..microcinema_core.files.atomic import atomic_write
from ..microcinema_core.frames.video_file import VideoWriter, open_video
from ..microcinema_core.values import shown
from .appearance import APPEARNET_TIP, prior_inputs
from .inputs import checked_inputs
from .preview import HIDDEN, graph_metadata
from .sampling import prompt_inputs, sampler_inputs
from .schema import AppearNetSocket, advanced_input, node_schema


class MicroCinemaInterpolateVideo(io.ComfyNode):
    """Temporal super-resolution of a video file, part by part, into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaInterpolateVideo",
            "MicroCinema Interpolate Long Video",
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
                io.Video.Input("video", tooltip="The video, from Load Video."),
                io.Model.Input(
                    "model",
                    tooltip="A MicroCinema MODEL with the role tsr, or one from MicroCinema Motion Loader.",
                ),
                AppearNetSocket.Input("appearnet", tooltip=APPEARNET_TIP),
                io.Vae.Input("vae", tooltip="The VAE of the model that makes the video."),
                *prompt_inputs(),
                io.Int.Input(
                    "rounds",
                    default=1,
                    min=1,
                    max=2,
                    tooltip="1 multiplies the frame rate by 4, 2 multiplies it by 16; with SparseCtrl by 5 and 25.",
                ),
                io.Int.Input(
                    "longer_side",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Longer side of the new video in pixels: choose a size that the model was trained for. 0 "
                    "keeps the size. Both sides become multiples of 8.",
                ),
                *sampler_inputs(),
                *prior_inputs(),
                io.String.Input(
                    "filename_prefix",
                    default="video/MicroCinema",
                    tooltip="Folder and beginning of the file's name in ComfyUI's output folder, as in Save Video.",
                ),
                advanced_input(
                    io.Float.Input,
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="The point of the sampling run at which AppearNet stops acting. If colours flash at the "
                    "key frames with SparseCtrl, try 0.6.",
                ),
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
        lambda_ = settings.pop("lambda")
        run = adapter.Interpolator(
            model,
            appearnet,
            adapter.SamplerSettings(positive=positive, negative=negative, **settings),
            rounds=rounds,
            lambda_=lambda_,
            gamma=gamma,
            end_percent=None if end_percent == 1 else end_percent,
        )
        path, subfolder = _next_file(filename_prefix)
        start, duration = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
        with (
            open_video(_file_of(video), start=start, duration=duration) as source,
            atomic_write(path, suffix=path.suffix) as part,
            VideoWriter(part, source, run.stride, graph_metadata(cls)) as target,
        ):
            adapter.interpolate_file(run, vae, source, target, longer_side=longer_side)
        preview = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), float(target.rate), ui=preview)


def _next_file(prefix: str) -> tuple[Path, str]:
    """Return the path of a new file in the host's output folder, and its folder there, as Save Video names them.

    Raises:
        ValueError: a prefix that is no name, or leads out of the folder.
    """
    try:
        output = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output)
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        with contextlib.suppress(FileNotFoundError):
            path.lstat()
    except Exception as error:
        raise ValueError(
            f"filename_prefix is {shown(prefix)}, which names no file in ComfyUI's output folder: use a folder and a "
            "beginning of names, such as video/MicroCinema."
        ) from error
    return path, subfolder


def _file_of(video: Any) -> Any:
    """Return the path or open file of a VIDEO; one that was made of frames is written to the host's temp folder."""
    if isinstance(video, InputImpl.VideoFromFile):
        return video.get_stream_source()
    path = Path(folder_paths.get_temp_directory()) / f"MicroCinema_{uuid.uuid4().hex}.mp4"
    with atomic_write(path, suffix=path.suffix) as part:
        video.save_to(str(part))
    return str(path)


NODES = [MicroCinemaInterpolateVideo]
