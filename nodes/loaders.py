"""Nodes that load MicroCinema's and Stable Diffusion's files as MODEL, CLIP, VAE and APPEARNET."""

from __future__ import annotations

from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.values import chosen
from .inputs import checked_inputs
from .schema import AppearNetSocket, advanced_input, node_schema

FILES = ("microcinema", "diffusion_models")
STABLE_DIFFUSION = ("checkpoints", "diffusion_models")
ANY = "any"
CHECKPOINT_ROLES = (ANY, "image", "base", "tsr")
UNET_ROLES = (*CHECKPOINT_ROLES, "unet")
ROLE_TIP = (
    "The role that the file must have: image makes the centre frame, base makes key frames, tsr adds frames between "
    "them. A file with another role is rejected right away; any accepts every role."
)


def _roles(role: str, choices: tuple[str, ...]) -> tuple[str, ...] | None:
    return None if chosen(role, choices, "role") == ANY else (role,)


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
                    options=list(CHECKPOINT_ROLES),
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
    @checked_inputs
    def execute(cls, file: str, role: str = ANY) -> io.NodeOutput:
        """Return MODEL, CLIP, VAE and APPEARNET; using one that the file lacks is an error."""
        roles = _roles(role, CHECKPOINT_ROLES)
        loaded = adapter.load_checkpoint(adapter.find_file(file, *cls.folders), expect_roles=roles)
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
                    options=list(UNET_ROLES),
                    default=ANY,
                    tooltip=ROLE_TIP,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The U-Net, for KSampler and the MicroCinema samplers.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls, file: str, role: str = ANY) -> io.NodeOutput:
        """Return the MODEL."""
        roles = _roles(role, UNET_ROLES)
        return io.NodeOutput(adapter.load_unet(adapter.find_file(file, *cls.folders), expect_roles=roles))


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
    @checked_inputs
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
            "are trained, there is no motion: every frame is what the image model would make (with injected_norm "
            "frame). Load CLIP and VAE with the stock loader.",
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
                    options=list(adapter.INFLATE_CHOICES["injection"]),
                    default="spade",
                    tooltip="How AppearNet's features enter the U-Net (Table 2 of the paper). spade modulates the "
                    "norms and adds to encoder and decoder: the paper's choice. add_encdec adds to encoder and "
                    "decoder. add_dec adds to the decoder, as ControlNet does. concat widens the first convolution.",
                ),
                io.Combo.Input(
                    "temporal_layout",
                    options=list(adapter.INFLATE_CHOICES["temporal_layout"]),
                    default="paper",
                    tooltip="Where the temporal layers go. paper: after each convolution and each attention. donor: "
                    "after each ResBlock and transformer, as in ModelScope.",
                ),
                advanced_input(
                    io.Combo.Input,
                    "prediction",
                    options=list(adapter.INFLATE_CHOICES["prediction"]),
                    default=adapter.AUTO,
                    tooltip="What the file's network predicts: noise (eps) or v. auto detects it from the weights, "
                    "as the stock loader does. Set it by hand if the pictures come out as noise.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="A Stable Diffusion 1.x or 2.x MODEL to inflate instead of the file, with its LoRAs.",
                ),
                advanced_input(
                    io.Combo.Input,
                    "injected_norm",
                    options=list(adapter.INFLATE_CHOICES["injected_norm"]),
                    default="frame",
                    tooltip="What the norms in the ResBlocks take their statistics over. frame is each frame by "
                    "itself: until it is trained, the MODEL equals the image model. clip is the whole video, as in "
                    "the paper (Eq. 1): untrained frames then differ from the image model's, on average by 1.1 % of "
                    "the brightness range in a test with the shipped mini image model.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The inflated U-Net. Until it is trained, it equals the image model on every frame (with "
                    "injected_norm frame)."
                ),
                AppearNetSocket.Output(
                    display_name="APPEARNET", tooltip="A new AppearNet. It has no effect until it is trained."
                ),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(cls, file: str, model: Any = None, **choices: str) -> io.NodeOutput:
        """Return the MODEL and its APPEARNET."""
        if model is None:
            loaded = adapter.inflate_checkpoint(adapter.find_file(file, *cls.folders), **choices)
        else:
            loaded = adapter.inflate_model(model, **choices)
        return io.NodeOutput(loaded.model, loaded.appearnet)


NODES = [
    MicroCinemaCheckpointLoader,
    MicroCinemaUNetLoader,
    MicroCinemaAppearNetLoader,
    MicroCinemaInflate,
]
