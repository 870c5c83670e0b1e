"""Nodes that load files as MODEL, CLIP, VAE and APPEARNET."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.config import INJECTIONS
from ..microcinema_core.files.published import refuse_pickle
from .schema import AppearNetSocket, advanced_input, node_schema

FILES = ("microcinema", "diffusion_models")
STABLE_DIFFUSION = ("checkpoints", "diffusion_models")
MOTION_FILES, MOTION_LORAS, APPEARANCE_FILES = (
    (adapter.MOTION_KEY,),
    (adapter.MOTION_LORA_KEY,),
    ("controlnet",),
)
OF_MOTION_FILE, NO_LORA = "of the motion file", "none"
NO_MOTION_FILE = "no file in models/animatediff_models"
"""Shown where there is no motion file, in place of an empty list."""
ANY = "any"
ROLE_TIP = (
    "The role that the file must have: image makes the centre frame, base makes key frames, tsr adds frames between "
    "them. A file with another role is rejected right away; any accepts every role."
)


def _roles(role: str) -> tuple[str, ...] | None:
    return None if role == ANY else (role,)


class _FileNode(io.ComfyNode):
    """Base of the loaders: runs again if a file that it reads was written again, as training does."""

    folders: tuple[str, ...] = FILES

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> list[str]:
        """Return what changes when the file does; the host reruns the node then."""
        return adapter.fingerprints(adapter.find_file(file, *cls.folders))


class MicroCinemaCheckpointLoader(_FileNode):
    """Loads all networks of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaCheckpointLoader",
            "MicroCinema Checkpoint Loader",
            "Loads a MicroCinema file with several networks. A network that is not in the file only causes an error "
            "at the node that needs it.",
            search_aliases=["load microcinema", "image to video model", "tsr"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FILES),
                    tooltip="A MicroCinema file from models/microcinema, from models/diffusion_models or from the "
                    "weights that ship with the pack. For Stable Diffusion files, use MicroCinema Inflate.",
                ),
                advanced_input(
                    io.Combo.Input,
                    "role",
                    options=[ANY, "image", "base", "tsr"],
                    default=ANY,
                    tooltip=ROLE_TIP,
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The U-Net, for KSampler and the MicroCinema samplers."),
                io.Clip.Output(
                    tooltip="The text encoder, for CLIP Text Encode. Included in files with the role image."
                ),
                io.Vae.Output(
                    tooltip="The VAE, for VAE Encode and VAE Decode. Included in files with the role image."
                ),
                AppearNetSocket.Output(
                    display_name="APPEARNET",
                    tooltip="The network that reads the centre frame. Included in base and tsr files.",
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str, role: str = ANY) -> io.NodeOutput:
        """Return MODEL, CLIP, VAE and APPEARNET; using one that the file lacks is an error."""
        loaded = adapter.load_checkpoint(adapter.find_file(file, *cls.folders), expect_roles=_roles(role))
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.appearnet)


class MicroCinemaUNetLoader(_FileNode):
    """Loads only the U-Net of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaUNetLoader",
            "MicroCinema UNet Loader",
            "Loads only the 3D U-Net of a MicroCinema file. On its own it is a text-to-video model.",
            search_aliases=["load microcinema unet"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FILES),
                    tooltip="A MicroCinema file that contains a U-Net: role base, tsr, image or unet.",
                ),
                advanced_input(
                    io.Combo.Input,
                    "role",
                    options=[ANY, "image", "base", "tsr", "unet"],
                    default=ANY,
                    tooltip=ROLE_TIP,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The U-Net, for KSampler and the MicroCinema samplers.")],
        )

    @classmethod
    def execute(cls, file: str, role: str = ANY) -> io.NodeOutput:
        """Return the MODEL."""
        return io.NodeOutput(
            adapter.load_unet(adapter.find_file(file, *cls.folders), expect_roles=_roles(role))
        )


class MicroCinemaAppearNetLoader(_FileNode):
    """Loads only the AppearNet of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaAppearNetLoader",
            "MicroCinema AppearNet Loader",
            "Loads only the AppearNet of a MicroCinema file: the network that reads the centre frame.",
            search_aliases=["load appearnet"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FILES),
                    tooltip="A MicroCinema file that contains an AppearNet: role base, tsr or appearnet.",
                )
            ],
            outputs=[
                AppearNetSocket.Output(
                    display_name="APPEARNET",
                    tooltip="The AppearNet, for MicroCinema Apply AppearNet and the MicroCinema samplers.",
                )
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        """Return the APPEARNET."""
        return io.NodeOutput(adapter.load_appearnet(adapter.find_file(file, *cls.folders)))


class MicroCinemaInflate(_FileNode):
    """Inflates a Stable Diffusion file to an untrained MicroCinema model."""

    folders = (*STABLE_DIFFUSION, "diffusers")

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaInflate",
            "MicroCinema Inflate",
            "Turns a Stable Diffusion 1.x or 2.x file, or MODEL, into a MicroCinema U-Net and AppearNet. Until they "
            "are trained, there is no motion: every frame is what the image model would make. Load CLIP and VAE with "
            "the stock loader.",
            search_aliases=["inflate stable diffusion", "sd to video"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[*adapter.list_files(*STABLE_DIFFUSION), *adapter.list_diffusers_folders()],
                    tooltip="A Stable Diffusion 1.x or 2.x safetensors file from models/checkpoints or "
                    "models/diffusion_models, or a folder from models/diffusers.",
                ),
                io.Combo.Input(
                    "injection",
                    options=list(INJECTIONS),
                    default="spade",
                    tooltip="How AppearNet's features enter the U-Net (Table 2 of the paper). spade modulates the "
                    "norms and adds to encoder and decoder: the paper's choice. add_encdec adds to encoder and "
                    "decoder. add_dec adds to the decoder, as ControlNet does. concat widens the first convolution.",
                ),
                io.Combo.Input(
                    "temporal_layout",
                    options=list(adapter.INFLATE_LAYOUTS),
                    default="paper",
                    tooltip="Where the temporal layers go. paper: after each convolution and each attention. donor: "
                    "after each ResBlock and transformer, as in ModelScope.",
                ),
                advanced_input(
                    io.Combo.Input,
                    "prediction",
                    options=["auto", "eps", "v"],
                    default="auto",
                    tooltip="What the file's network predicts: noise (eps) or v. auto detects it from the weights, "
                    "as the stock loader does. Set it by hand if the pictures come out as noise.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="A Stable Diffusion 1.x or 2.x MODEL to inflate instead of the file, with its LoRAs.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The inflated U-Net. Until it is trained, it equals the image model on every frame."
                ),
                AppearNetSocket.Output(
                    display_name="APPEARNET", tooltip="A new AppearNet. It has no effect until it is trained."
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str, model: Any = None, **choices: str) -> io.NodeOutput:
        """Return the MODEL and its APPEARNET."""
        if model is None:
            loaded = adapter.inflate_checkpoint(adapter.find_file(file, *cls.folders), **choices)
        else:
            loaded = adapter.inflate_model(model, **choices)
        return io.NodeOutput(loaded.model, loaded.appearnet)


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
                    options=adapter.list_files(*MOTION_FILES) or [NO_MOTION_FILE],
                    tooltip="A safetensors file from models/animatediff_models: AnimateDiff version 2 or 3, or PIA.",
                ),
                io.Combo.Input(
                    "appearance_file",
                    options=[OF_MOTION_FILE, *adapter.list_files(*APPEARANCE_FILES)],
                    default=OF_MOTION_FILE,
                    tooltip="Where APPEARNET comes from: the motion file, if it is PIA, or SparseCtrl's RGB file from "
                    "models/controlnet.",
                ),
                io.Combo.Input(
                    "motion_lora",
                    options=[NO_LORA, *adapter.list_files(*MOTION_LORAS)],
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
                    tooltip="PIA's, for MicroCinema Sampler, or SparseCtrl's, for MicroCinema TSR and MicroCinema "
                    "Sampler.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        motion_file: str | None,
        appearance_file: str | None = OF_MOTION_FILE,
        motion_lora: str | None = NO_LORA,
    ) -> bool | str:
        """Check that the files are there before the graph runs; a pickle is refused by its name.

        A name that comes from another node is None here and checked as the node runs.
        """
        try:
            cls._paths(motion_file, appearance_file, motion_lora)
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
        paths = cls._paths(motion_file, appearance_file, motion_lora)
        return [adapter.fingerprints(path) for path in paths if path is not None]

    @classmethod
    def execute(
        cls,
        model: Any,
        motion_file: str,
        appearance_file: str = OF_MOTION_FILE,
        motion_lora: str = NO_LORA,
        lora_strength: float = 1.0,
    ) -> io.NodeOutput:
        """Return the MODEL and its APPEARNET; using an APPEARNET that the file lacks is an error."""
        motion, appearance, lora = cls._paths(motion_file, appearance_file, motion_lora)
        if motion is None:
            raise ValueError(
                "there is no motion file: put one, such as mm_sd15_v3.safetensors, in models/animatediff_models, and "
                "press R to list it."
            )
        video, appearnet = adapter.add_motion(model, motion, lora_file=lora, lora_strength=lora_strength)
        return io.NodeOutput(video, appearnet if appearance is None else adapter.load_sparsectrl(appearance))

    @staticmethod
    def _paths(*names: str | None) -> tuple[Path | None, ...]:
        """Return the paths of the motion file, the appearance file and the motion LoRA; None for one not chosen."""
        kinds = (
            ("motion_file", NO_MOTION_FILE, MOTION_FILES),
            ("appearance_file", OF_MOTION_FILE, APPEARANCE_FILES),
            ("motion_lora", NO_LORA, MOTION_LORAS),
        )
        found: list[Path | None] = []
        for name, (label, none, folders) in zip(names, kinds, strict=True):
            try:
                if name is not None:
                    refuse_pickle(str(name))
                found.append(None if name in (None, none) else adapter.find_file(str(name), *folders))
            except ValueError as error:
                raise ValueError(f"{label}: {error} docs/models.md of the pack has the files.") from error
        return tuple(found)


NODES = [
    MicroCinemaCheckpointLoader,
    MicroCinemaUNetLoader,
    MicroCinemaAppearNetLoader,
    MicroCinemaInflate,
    MicroCinemaMotionLoader,
]
