"""The node that loads whole video models of others: DynamiCrafter and its relatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.files.crafter import refuse_crafter_pickle
from ..microcinema_core.files.crafter_specs import RESOLUTIONS, USES
from .inputs import checked_inputs
from .schema import AppearNetSocket, advanced_input, node_schema

FOLDERS = ("checkpoints", "diffusion_models")
CLIP_VISION_TIP = (
    "From the stock Load CLIP Vision with CLIP-ViT-H. Needed for DynamiCrafter and ToonCrafter, which look at the "
    "picture through it too."
)


class MicroCinemaCrafterLoader(io.ComfyNode):
    """Loads a published video model with a U-Net of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaCrafterLoader",
            "MicroCinema Crafter Loader",
            "Loads DynamiCrafter (moves a picture), DynamiCrafter interpolation and ToonCrafter (the frames between "
            "two pictures), VideoCrafter2, ModelScope or ZeroScope (video from text). Take CLIP from a Stable "
            "Diffusion 2.1 checkpoint.",
            search_aliases=["dynamicrafter", "tooncrafter", "videocrafter", "modelscope", "zeroscope"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FOLDERS),
                    tooltip="A safetensors file from models/checkpoints or models/diffusion_models.",
                ),
                io.Combo.Input(
                    "use",
                    options=list(USES),
                    default=USES[0],
                    tooltip="What a DynamiCrafter file is for: base moves one picture, interpolation makes the frames "
                    "between two. auto decides by the file and its published name, and reports an error if "
                    "neither tells.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip=CLIP_VISION_TIP),
                advanced_input(
                    io.Combo.Input,
                    "resolution",
                    options=list(RESOLUTIONS),
                    default=RESOLUTIONS[0],
                    tooltip="The width that a DynamiCrafter base file was trained at, which sets its noise schedule. "
                    "auto decides by the file and its published name.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The video MODEL, for KSampler and the MicroCinema samplers. It was trained on 16 frames."
                ),
                io.Vae.Output(
                    tooltip="The file's VAE. For ToonCrafter, and for files without one, use the VAE of any Stable "
                    "Diffusion 1.5 or 2.1 checkpoint."
                ),
                AppearNetSocket.Output(
                    display_name="APPEARNET",
                    tooltip="What shows the picture to the MODEL, for MicroCinema Sampler (base) or MicroCinema "
                    "Interpolate Frames (interpolation). Text-to-video models have none.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        """Check that the file is there before the graph runs; a pickle is refused by its name.

        A name that comes from another node is None here and checked as the node runs; the host refuses a missing one.
        """
        try:
            if file is not None:
                _path(file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> list[str]:
        """Return what changes when the file does; the host reruns the node then."""
        return adapter.fingerprints(_path(file))

    @classmethod
    @checked_inputs
    def execute(
        cls, file: str, use: str = USES[0], clip_vision: Any = None, resolution: str = RESOLUTIONS[0]
    ) -> io.NodeOutput:
        """Return MODEL, VAE and APPEARNET; using one that the file lacks is an error."""
        loaded = adapter.load_crafter(_path(file), use=use, resolution=resolution, clip_vision=clip_vision)
        return io.NodeOutput(loaded.model, loaded.vae, loaded.appearnet)


def _path(file: str) -> Path:
    refuse_crafter_pickle(str(file))
    return adapter.find_file(file, *FOLDERS)


NODES = [MicroCinemaCrafterLoader]
