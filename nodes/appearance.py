"""Nodes that give a MODEL its centre frame, for use with the stock samplers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.diffusion.noise import GAMMA
from .schema import AppearNetSocket, advanced, node_schema

LAMBDA_TIP = (
    "The centre frame's share of the noise that the weights were trained with; -1 takes the weights' own "
    "value, "
    "which is the right one. Other models (SVD, AnimateDiff, plain Stable Diffusion) know no such share: 0 "
    "or -1 there."
)
GAMMA_TIP = (
    "How much of the centre frame is put into the starting noise; the paper's best is 0.02. Has an effect "
    "only where "
    "sampling starts from full noise on an empty latent. On models other than MicroCinema it is experimental."
)


def prior_inputs() -> list[io.Input]:
    """Return the inputs of the Appearance Noise Prior, the same in every node that has them."""
    return [
        io.Float.Input(
            "lambda", default=-1.0, min=-1.0, max=1.0, step=0.005, round=0.0001, tooltip=LAMBDA_TIP
        ),
        io.Float.Input("gamma", default=GAMMA, min=0.0, max=1.0, step=0.005, round=0.0001, tooltip=GAMMA_TIP),
    ]


class MicroCinemaApplyAppearNet(io.ComfyNode):
    """Centre frame and AppearNet onto a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaApplyAppearNet",
            "MicroCinema Apply AppearNet",
            "Makes a MicroCinema MODEL follow a centre frame: AppearNet, and the Appearance Noise Prior "
            "with the "
            "weights' own lambda. The result works with KSampler and every other stock sampler.",
            search_aliases=["appearnet", "image to video", "centre frame"],
            inputs=[
                io.Model.Input("model", tooltip="A MicroCinema MODEL: of a base file, or inflated."),
                AppearNetSocket.Input(
                    "appearnet", tooltip="The AppearNet that belongs to this MODEL: from the same file."
                ),
                io.Latent.Input(
                    "centre_frame",
                    tooltip="The centre frame's latent, from MicroCinema Centre Frame or VAE Encode, of "
                    "the size of "
                    "the latent image that is sampled.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly AppearNet acts: 1 is as trained, 0 leaves only the noise prior.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="The centre frame acts from this part of the sampling run on; before it the "
                    "text is alone.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="The centre frame acts up to this part of the sampling run; after it the text "
                    "is alone.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="A copy of the MODEL that follows the centre frame.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        appearnet: Any,
        centre_frame: dict[str, Tensor],
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            adapter.apply_appearance(
                model,
                appearnet,
                centre_frame,
                strength=strength,
                start_percent=start_percent,
                end_percent=end_percent,
            )
        )


class MicroCinemaNoisePrior(io.ComfyNode):
    """Another lambda and gamma."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaNoisePrior",
            "MicroCinema Noise Prior",
            "Overrides the Appearance Noise Prior's lambda and gamma. MicroCinema Apply AppearNet already "
            "sets both; "
            "this node is for experiments.",
            search_aliases=["appearance noise prior", "lambda", "gamma"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A MODEL after MicroCinema Apply AppearNet, or any MODEL with a centre_frame.",
                ),
                *prior_inputs(),
                advanced(
                    io.Latent.Input,
                    "centre_frame",
                    tooltip="The centre frame's latent, for a MODEL that did not go through MicroCinema "
                    "Apply AppearNet.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="A copy of the MODEL with this prior.")],
        )

    @classmethod
    def execute(
        cls, model: Any, gamma: float, centre_frame: dict[str, Tensor] | None = None, **named: float
    ) -> io.NodeOutput:
        prior = adapter.override_prior(model, lambda_=named["lambda"], gamma=gamma, centre_frame=centre_frame)
        return io.NodeOutput(prior)


NODES = [MicroCinemaApplyAppearNet, MicroCinemaNoisePrior]
