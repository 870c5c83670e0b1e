"""The node that puts frames between key frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from .appearance import prior_inputs
from .sampling import sampler_inputs
from .schema import AppearNetSocket, advanced, node_schema


class MicroCinemaTSR(io.ComfyNode):
    """Temporal super-resolution: every two adjacent key frames become five."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "MicroCinemaTSR",
            "MicroCinema TSR (Temporal Super-Resolution)",
            "Puts three new frames between every two frames, once or twice: 9 become 33, then 129. The "
            "given frames "
            "are kept bit for bit.",
            search_aliases=["interpolate frames", "temporal super-resolution", "inbetween"],
            inputs=[
                io.Latent.Input(
                    "key_frames",
                    tooltip="At least two frames, in order: from MicroCinema Sampler, or any pictures "
                    "through VAE Encode.",
                ),
                io.Float.Input(
                    "fps",
                    default=2.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="The key frames' frames a second. Connect the fps of the node that made them.",
                ),
                io.Model.Input("model", tooltip="A MicroCinema MODEL of role tsr."),
                AppearNetSocket.Input(
                    "appearnet", tooltip="The AppearNet that belongs to this MODEL: from the same file."
                ),
                io.Conditioning.Input("positive", tooltip="What moves and how, from CLIP Text Encode."),
                io.Conditioning.Input("negative", tooltip="What must not be seen, from CLIP Text Encode."),
                io.Int.Input(
                    "rounds",
                    default=1,
                    min=1,
                    max=2,
                    tooltip="1 makes four times as many frames a second, 2 sixteen times.",
                ),
                *sampler_inputs(),
                *prior_inputs(),
                advanced(
                    io.Int.Input,
                    "chunk",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="How many pairs of key frames are sampled at once; 0 lets the free memory "
                    "decide. Changes "
                    "speed and memory, not the result (but for rounding, and samplers that adapt their "
                    "steps).",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="All frames, the given ones among them."),
                io.Float.Output(display_name="fps", tooltip="Their frames a second."),
            ],
        )

    @classmethod
    def execute(
        cls,
        key_frames: dict[str, Tensor],
        fps: float,
        model: Any,
        appearnet: Any,
        positive: Any,
        negative: Any,
        rounds: int,
        gamma: float,
        chunk: int = 0,
        **settings: Any,
    ) -> io.NodeOutput:
        lambda_ = settings.pop("lambda")
        run = adapter.SamplerSettings(positive=positive, negative=negative, **settings)
        latent = adapter.interpolate_video(
            model, appearnet, key_frames, run, rounds=rounds, lambda_=lambda_, gamma=gamma, chunk=chunk
        )
        return io.NodeOutput(latent, fps * 4**rounds)


NODES = [MicroCinemaTSR]
