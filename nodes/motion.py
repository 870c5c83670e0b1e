"""The node that makes a stock MODEL a video MODEL with published motion weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.files.published import refuse_pickle
from .inputs import checked_inputs
from .schema import AppearNetSocket, node_schema

FOLDERS = {
    "motion_file": (adapter.MOTION_KEY,),
    "appearance_file": ("controlnet",),
    "motion_lora": (adapter.MOTION_LORA_KEY,),
}
"""Folder keys of each file input."""
OF_MOTION_FILE, NO_LORA = "of the motion file", "none"
NO_MOTION_FILE = "no file in models/animatediff_models"
"""Shown where there is no motion file, in place of an empty list."""
NONE_OF = {"motion_file": NO_MOTION_FILE, "appearance_file": OF_MOTION_FILE, "motion_lora": NO_LORA}
"""The entry of each file input that stands for no file."""


class MicroCinemaMotionLoader(io.ComfyNode):
    """Adds published motion weights to a stock MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaMotionLoader",
            "MicroCinema Motion Loader",
            "Turns a Stable Diffusion 1.5 MODEL into a video MODEL with published motion weights: AnimateDiff, PIA or "
            "AnimateDiff with SparseCtrl. The MODEL keeps its LoRAs and patches.",
            search_aliases=["animatediff", "pia", "sparsectrl", "motion module", "motion lora"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A Stable Diffusion 1.x MODEL from the stock loader, with or without LoRAs.",
                ),
                io.Combo.Input(
                    "motion_file",
                    options=adapter.list_files(*FOLDERS["motion_file"]) or [NO_MOTION_FILE],
                    tooltip="A safetensors file from models/animatediff_models: AnimateDiff version 2 or 3, or PIA.",
                ),
                io.Combo.Input(
                    "appearance_file",
                    options=[OF_MOTION_FILE, *adapter.list_files(*FOLDERS["appearance_file"])],
                    default=OF_MOTION_FILE,
                    tooltip="Where APPEARNET comes from: the motion file, if it is PIA, or SparseCtrl's RGB file from "
                    "models/controlnet.",
                ),
                io.Combo.Input(
                    "motion_lora",
                    options=[NO_LORA, *adapter.list_files(*FOLDERS["motion_lora"])],
                    default=NO_LORA,
                    optional=True,
                    tooltip="A motion LoRA for AnimateDiff version 2 from models/animatediff_motion_lora, such as a "
                    "camera movement.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    tooltip="Strength of the motion LoRA.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The video MODEL, for KSampler and the MicroCinema samplers. Without APPEARNET, it makes "
                    "videos from text."
                ),
                AppearNetSocket.Output(
                    display_name="APPEARNET",
                    tooltip="PIA's, for MicroCinema Sampler, or SparseCtrl's, for MicroCinema Interpolate "
                    "Frames and MicroCinema Sampler.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        motion_file: str | None = None,
        appearance_file: str | None = OF_MOTION_FILE,
        motion_lora: str | None = NO_LORA,
    ) -> bool | str:
        """Check that the files are there before the graph runs; a pickle is refused by its name.

        A name that comes from another node is None here and checked as the node runs; the host refuses a missing one.
        """
        names = {"motion_file": motion_file, "appearance_file": appearance_file, "motion_lora": motion_lora}
        try:
            for name, file in names.items():
                if file is not None:
                    _path(name, file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls,
        motion_file: str | None,
        appearance_file: str | None = OF_MOTION_FILE,
        motion_lora: str | None = NO_LORA,
        **_: Any,
    ) -> list[list[str]]:
        """Return what changes when one of the files does; the host reruns the node then."""
        names = {"motion_file": motion_file, "appearance_file": appearance_file, "motion_lora": motion_lora}
        paths = [_path(name, file) for name, file in names.items() if file is not None]
        return [adapter.fingerprints(path) for path in paths if path is not None]

    @classmethod
    @checked_inputs
    def execute(
        cls,
        model: Any,
        motion_file: str,
        appearance_file: str = OF_MOTION_FILE,
        motion_lora: str = NO_LORA,
        lora_strength: float = 1.0,
    ) -> io.NodeOutput:
        """Return the MODEL and its APPEARNET; using an APPEARNET that the file lacks is an error."""
        motion = _path("motion_file", motion_file)
        appearance, lora = _path("appearance_file", appearance_file), _path("motion_lora", motion_lora)
        if motion is None:
            raise ValueError(
                "there is no motion file: put one, such as mm_sd15_v3.safetensors, in models/animatediff_models, and "
                "press R to list it."
            )
        video, appearnet = adapter.add_motion(model, motion, lora_file=lora, lora_strength=lora_strength)
        return io.NodeOutput(video, appearnet if appearance is None else adapter.load_sparsectrl(appearance))


def _path(input_name: str, file: str) -> Path | None:
    """Return the path of an input's file; None for the entry that stands for no file.

    Raises:
        ValueError: no such file, or a pickle; the message names the input.
    """
    if file == NONE_OF[input_name]:
        return None
    try:
        refuse_pickle(str(file))
        return adapter.find_file(file, *FOLDERS[input_name])
    except ValueError as error:
        raise ValueError(f"{input_name}: {error} docs/models.md of the pack has the files.") from error


NODES = [MicroCinemaMotionLoader]
