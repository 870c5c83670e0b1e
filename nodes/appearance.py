"""Nodes that give a MODEL its centre frame, for use with the stock samplers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.config import MOTIONS
from ..microcinema_core.diffusion.noise import GAMMA
from ..microcinema_core.networks.appearance_input import ANCHORS
from .inputs import checked_inputs
from .schema import AppearNetSocket, advanced_input, node_schema

APPEARNET_TIP = "The AppearNet that fits this MODEL, from the same file or loader."
LAMBDA_TIP = (
    "Share of the centre frame in the noise that the weights were trained with. Keep -1, which uses the value "
    "stored with the weights. Models trained without the noise prior (SVD, AnimateDiff, plain Stable Diffusion) "
    "accept only 0 or -1."
)
GAMMA_TIP = (
    "Share of the centre frame in the starting noise; the paper's best value is 0.02, and -1 uses the value "
    "recommended by the weights. Higher values keep the appearance more stable and reduce motion. Only acts if "
    "sampling starts from full noise on an empty latent. Experimental with models other than MicroCinema."
)
ANCHOR_TIP = (
    "The frame that your picture becomes. MicroCinema's own weights take centre only; PIA and SparseCtrl "
    "take any."
)  # fmt: skip
LAST_FRAME_TIP = (
    "Latent of a second picture, which becomes the last frame. Needs weights that take two pictures, such as "
    "SparseCtrl; set anchor to first."
)
MOTION_TIP = (
    "Amount of motion, for weights that have such a setting, such as PIA. auto is medium. All other weights accept "
    "only auto."
)
CLIP_VISION_OUTPUT_TIP = (
    "The same picture from the stock CLIP Vision Encode with crop none, for weights that look at it through CLIP "
    "vision too: DynamiCrafter and ToonCrafter."
)


def prior_inputs(gamma: float = adapter.OWN) -> list[io.Input]:
    """Return the inputs of the Appearance Noise Prior, shared by several nodes; `gamma` is its default."""
    return [
        io.Float.Input(
            "lambda", default=adapter.OWN, min=-1.0, max=1.0, step=0.005, round=0.0001, tooltip=LAMBDA_TIP
        ),
        io.Float.Input(
            "gamma", default=gamma, min=-1.0, max=1.0, step=0.005, round=0.0001, tooltip=GAMMA_TIP
        ),
    ]


def place_inputs() -> list[io.Input]:
    """Return the optional inputs that say where pictures stand and how much moves, shared by several nodes."""
    return [
        io.Combo.Input("anchor", options=list(ANCHORS), default="centre", optional=True, tooltip=ANCHOR_TIP),
        io.Combo.Input(
            "motion",
            options=[adapter.AUTO, *MOTIONS],
            default=adapter.AUTO,
            optional=True,
            tooltip=MOTION_TIP,
        ),
        io.Latent.Input("last_frame", optional=True, tooltip=LAST_FRAME_TIP),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True, tooltip=CLIP_VISION_OUTPUT_TIP),
    ]


class MicroCinemaApplyAppearNet(io.ComfyNode):
    """Applies a centre frame and AppearNet to a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaApplyAppearNet",
            "MicroCinema Apply AppearNet",
            "Makes a MicroCinema MODEL follow a centre frame. It adds AppearNet and the Appearance Noise Prior with "
            "the weights' own lambda. The result works with KSampler and every other stock sampler.",
            search_aliases=["appearnet", "image to video", "centre frame", "center frame"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A MODEL from MicroCinema Motion Loader, MicroCinema Inflate or MicroCinema Crafter "
                    "Loader, or a MicroCinema MODEL with the role base.",
                ),
                AppearNetSocket.Input("appearnet", tooltip=APPEARNET_TIP),
                io.Latent.Input(
                    "centre_frame",
                    tooltip="Latent of the centre frame, from MicroCinema Centre Frame or VAE Encode. Use the size "
                    "of the latent image that you sample.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Strength of AppearNet. 1 is as trained; 0 leaves only the noise prior.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="The point of the sampling run at which the centre frame starts to act. "
                    "Before it, the text acts alone.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="The point of the sampling run at which the centre frame stops acting. "
                    "After it, the text acts alone.",
                ),
                *place_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="A copy of the MODEL that follows the centre frame.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls,
        model: Any,
        appearnet: Any,
        centre_frame: dict[str, Tensor],
        strength: float,
        start_percent: float,
        end_percent: float,
        clip_vision_output: Any = None,
        **place: Any,
    ) -> io.NodeOutput:
        """Return the patched copy of the MODEL."""
        return io.NodeOutput(
            adapter.apply_appearance(
                model,
                appearnet,
                centre_frame,
                strength=strength,
                start_percent=start_percent,
                end_percent=end_percent,
                features=adapter.features_of(clip_vision_output),
                **place,
            )
        )


class MicroCinemaNoisePrior(io.ComfyNode):
    """Overrides lambda and gamma of a MODEL's noise prior."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaNoisePrior",
            "MicroCinema Noise Prior",
            "Overrides lambda and gamma of the Appearance Noise Prior. MicroCinema Apply AppearNet already sets "
            "both; use this node to try other values, or gamma alone on another video model, such as Wan or LTX, "
            "which is experimental.",
            search_aliases=["appearance noise prior", "lambda", "gamma"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A MODEL from MicroCinema Apply AppearNet, or any MODEL if you connect centre_frame.",
                ),
                *prior_inputs(gamma=GAMMA),
                advanced_input(
                    io.Latent.Input,
                    "centre_frame",
                    tooltip="Latent of the centre frame. Only needed for a MODEL that did not go through MicroCinema "
                    "Apply AppearNet. For a video model, encode the picture with that model's own VAE.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="A copy of the MODEL with this noise prior.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, gamma: float, centre_frame: dict[str, Tensor] | None = None, **named: float
    ) -> io.NodeOutput:
        """Return the patched copy of the MODEL. `lambda`, a Python keyword, comes in `named`."""
        prior = adapter.override_prior(model, lambda_=named["lambda"], gamma=gamma, centre_frame=centre_frame)
        return io.NodeOutput(prior)


NODES = [MicroCinemaApplyAppearNet, MicroCinemaNoisePrior]
