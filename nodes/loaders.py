"""Nodes that turn files into MODEL, CLIP, VAE and APPEARNET."""

from __future__ import annotations

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.config import INJECTIONS
from .schema import AppearNetSocket, advanced, node_schema

FILES = ("microcinema", "diffusion_models")
STABLE_DIFFUSION = ("checkpoints", "diffusion_models")
ANY = "any"
ROLE_TIP = (
    "What the file must be: image makes the centre frame, base makes key frames, tsr puts frames between "
    "them. "
    "A file of another role is then refused at once; any takes all."
)


def _roles(role: str) -> tuple[str, ...] | None:
    return None if role == ANY else (role,)


class _FileNode(io.ComfyNode):
    """A loader that runs again when its file was written anew, as training does."""

    folders: tuple[str, ...] = FILES

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: str) -> float:
        return adapter.find_file(file, *cls.folders).stat().st_mtime


class MicroCinemaCheckpointLoader(_FileNode):
    """One file, all its networks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaCheckpointLoader",
            "MicroCinema Checkpoint Loader",
            "Loads a MicroCinema file of several networks. A network that the file does not hold is an "
            "error only "
            "at the node that needs it.",
            search_aliases=["load microcinema", "image to video model", "tsr"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FILES),
                    tooltip="A MicroCinema file from models/microcinema, the pack's own weights or "
                    "models/diffusion_models. For Stable Diffusion files take MicroCinema Inflate.",
                ),
                advanced(
                    io.Combo.Input,
                    "role",
                    options=[ANY, "image", "base", "tsr"],
                    default=ANY,
                    tooltip=ROLE_TIP,
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The U-Net, for KSampler and the MicroCinema samplers."),
                io.Clip.Output(tooltip="The text encoder, for CLIP Text Encode; in files of role image."),
                io.Vae.Output(tooltip="The VAE, for VAE Encode and VAE Decode; in files of role image."),
                AppearNetSocket.Output(
                    display_name="APPEARNET", tooltip="Reads the centre frame; in base and tsr files."
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str, role: str = ANY) -> io.NodeOutput:
        loaded = adapter.load_checkpoint(adapter.find_file(file, *cls.folders), expect_roles=_roles(role))
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.appearnet)


class MicroCinemaUNetLoader(_FileNode):
    """The U-Net alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaUNetLoader",
            "MicroCinema UNet Loader",
            "Loads the 3D U-Net of a MicroCinema file. Alone it is a text-to-video model.",
            search_aliases=["load microcinema unet"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FILES),
                    tooltip="A MicroCinema file that holds a U-Net: of role base, tsr, image or unet.",
                ),
                advanced(
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
        return io.NodeOutput(
            adapter.load_unet(adapter.find_file(file, *cls.folders), expect_roles=_roles(role))
        )


class MicroCinemaAppearNetLoader(_FileNode):
    """AppearNet alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaAppearNetLoader",
            "MicroCinema AppearNet Loader",
            "Loads the AppearNet of a MicroCinema file: the network that reads the centre frame.",
            search_aliases=["load appearnet"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=adapter.list_files(*FILES),
                    tooltip="A MicroCinema file that holds an AppearNet: of role base, tsr or appearnet.",
                )
            ],
            outputs=[
                AppearNetSocket.Output(display_name="APPEARNET", tooltip="For MicroCinema Apply AppearNet.")
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(adapter.load_appearnet(adapter.find_file(file, *cls.folders)))


class MicroCinemaInflate(_FileNode):
    """A Stable Diffusion file becomes an untrained MicroCinema model."""

    folders = (*STABLE_DIFFUSION, "diffusers")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaInflate",
            "MicroCinema Inflate",
            "Turns any Stable Diffusion 1.x or 2.x file into a MicroCinema U-Net and AppearNet. Until it "
            "is trained, "
            "every frame is what the image model makes of it. Its VAE and CLIP come from the stock loader.",
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
                    tooltip="How AppearNet reaches the U-Net, the rows of the paper's Table 2: spade "
                    "modulates norms "
                    "and adds to encoder and decoder, add_encdec adds to both, add_dec to the decoder as "
                    "ControlNet "
                    "does, concat widens the first convolution.",
                ),
                io.Combo.Input(
                    "temporal_layout",
                    options=list(adapter.TEMPORAL_LAYOUTS),
                    default="paper",
                    tooltip="paper: a layer over time after each convolution and each attention. donor: "
                    "the layout of "
                    "published motion weights, after each ResBlock and transformer.",
                ),
                advanced(
                    io.Combo.Input,
                    "prediction",
                    options=["auto", "eps", "v"],
                    default="auto",
                    tooltip="What the file's network predicts: noise or v. auto judges by the weights, as "
                    "the stock "
                    "loader does; set it if pictures come out as noise.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The inflated U-Net; equal to the image model on every frame."),
                AppearNetSocket.Output(
                    display_name="APPEARNET", tooltip="A new AppearNet; it adds nothing until trained."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, file: str, injection: str, temporal_layout: str, prediction: str = "auto"
    ) -> io.NodeOutput:
        path = adapter.find_file(file, *cls.folders)
        loaded = adapter.inflate_checkpoint(
            path, injection=injection, temporal_layout=temporal_layout, prediction=prediction
        )
        return io.NodeOutput(loaded.model, loaded.appearnet)


NODES = [MicroCinemaCheckpointLoader, MicroCinemaUNetLoader, MicroCinemaAppearNetLoader, MicroCinemaInflate]
