"""The node that makes key frames from a centre frame and a text."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from .appearance import prior_inputs
from .schema import AppearNetSocket, node_schema


def sampler_inputs() -> list[io.Input]:
    """Return the stock sampler's own inputs, the same in every node that samples."""
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The random seed: the same seed, the same video.",
        ),
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip="How many steps the denoising takes."),
        io.Float.Input(
            "cfg",
            default=6.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="How strongly the text guides; 1 is none, and twice as fast.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=adapter.samplers(),
            default="euler",
            tooltip="The algorithm that is used when sampling. All are right with the noise prior.",
        ),
        io.Combo.Input(
            "scheduler",
            options=adapter.schedulers(),
            default="normal",
            tooltip="How fast the noise is removed over the steps.",
        ),
    ]


class MicroCinemaSampler(io.ComfyNode):
    """Centre frame and text become key frames, in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaSampler",
            "MicroCinema Sampler (Appearance Noise Prior)",
            "Makes key frames from a centre frame and a text. The same as MicroCinema Apply AppearNet, an "
            "empty latent "
            "and KSampler, with the same seed.",
            search_aliases=["image to video", "text to video", "ksampler"],
            inputs=[
                io.Model.Input("model", tooltip="A MicroCinema MODEL of role base, or inflated."),
                AppearNetSocket.Input(
                    "appearnet", tooltip="The AppearNet that belongs to this MODEL: from the same file."
                ),
                io.Conditioning.Input("positive", tooltip="What moves and how, from CLIP Text Encode."),
                io.Conditioning.Input("negative", tooltip="What must not be seen, from CLIP Text Encode."),
                io.Latent.Input(
                    "centre_frame",
                    tooltip="The centre frame's latent, from MicroCinema Centre Frame or VAE Encode; it "
                    "also sets the size.",
                ),
                io.Int.Input(
                    "frames",
                    default=9,
                    min=2,
                    max=1024,
                    tooltip="How many key frames to make; the mini family and the paper were trained on 9.",
                ),
                *sampler_inputs(),
                *prior_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The key frames."),
                io.Float.Output(
                    display_name="fps", tooltip="Their frames a second, as the weights were trained."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        appearnet: Any,
        positive: Any,
        negative: Any,
        centre_frame: dict[str, Tensor],
        frames: int,
        gamma: float,
        **settings: Any,
    ) -> io.NodeOutput:
        lambda_ = settings.pop("lambda")
        run = adapter.SamplerSettings(positive=positive, negative=negative, **settings)
        latent, fps = adapter.sample_video(
            model, appearnet, centre_frame, run, frames=frames, lambda_=lambda_, gamma=gamma
        )
        return io.NodeOutput(latent, fps)


NODES = [MicroCinemaSampler]
