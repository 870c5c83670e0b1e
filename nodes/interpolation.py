"""The node that interpolates between key frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.diffusion.tsr import fps_after
from .appearance import APPEARNET_TIP, prior_inputs
from .inputs import checked_inputs
from .sampling import prompt_inputs, sampler_inputs
from .schema import AppearNetSocket, advanced_input, node_schema

MODEL_TIP = (
    "A MicroCinema MODEL with the role tsr, or one from MicroCinema Motion Loader with SparseCtrl or from MicroCinema "
    "Crafter Loader with an interpolation file (DynamiCrafter or ToonCrafter)."
)
ROUNDS_TIP = (
    "1 multiplies the frame rate by 4, 2 multiplies it by 16; with SparseCtrl by 5 and 25, with DynamiCrafter "
    "interpolation and ToonCrafter by 15 and 225."
)


def tsr_model_inputs(model_tip: str) -> list[io.Input]:
    """Return the inputs of a TSR model; each node that interpolates says where its MODEL may come from."""
    return [
        io.Model.Input("model", tooltip=model_tip),
        AppearNetSocket.Input("appearnet", tooltip=APPEARNET_TIP),
    ]


def rounds_input(tip: str) -> io.Input:
    """Return the number of rounds; each node that interpolates names the factors of its models."""
    return io.Int.Input("rounds", default=1, min=1, max=2, tooltip=tip)


def end_percent_input() -> io.Input:
    """Return the end of AppearNet's part, shared by the nodes that interpolate."""
    return advanced_input(
        io.Float.Input,
        "end_percent",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.001,
        tooltip="The point of the sampling run at which AppearNet stops acting. If colours flash at the key frames "
        "with SparseCtrl, try 0.6.",
    )


class MicroCinemaTSR(io.ComfyNode):
    """Temporal super-resolution: adds frames between every two adjacent key frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaTSR",
            "MicroCinema Interpolate Frames (TSR)",
            "Adds new frames between every two frames, once or twice: three with MicroCinema's weights (9 become 33, "
            "then 129), four with SparseCtrl (16 become 76), 14 with DynamiCrafter interpolation and ToonCrafter (9 "
            "become 121). The given frames are kept bit for bit.",
            search_aliases=["frame interpolation", "temporal super-resolution", "tsr", "inbetween"],
            inputs=[
                io.Latent.Input(
                    "key_frames",
                    tooltip="At least two frames in order, from MicroCinema Sampler "
                    "or from any pictures through VAE Encode.",
                ),
                io.Float.Input(
                    "fps",
                    default=2.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frame rate of the key frames. Connect the fps output of the node that made them.",
                ),
                *tsr_model_inputs(MODEL_TIP),
                *prompt_inputs(),
                rounds_input(ROUNDS_TIP),
                *sampler_inputs(),
                *prior_inputs(),
                advanced_input(
                    io.Int.Input,
                    "chunk",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="Number of windows sampled at once: a window is one pair of key frames, or three with "
                    "SparseCtrl. 0 picks it from the free memory. Changes speed and memory use, but not the result, "
                    "apart from rounding and samplers with adaptive steps.",
                ),
                end_percent_input(),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="The key frames, or one picture for all, from the stock CLIP Vision Encode with crop none, "
                    "for weights that look at pictures through CLIP vision too: DynamiCrafter and ToonCrafter.",
                ),
                advanced_input(
                    io.Boolean.Input,
                    "loop",
                    default=False,
                    tooltip="Adds frames between the last frame and the first as well, so that the video loops: 9 "
                    "become 36. Looks best if the first and the last frame are much alike.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="All frames, including the given ones."),
                io.Float.Output(display_name="fps", tooltip="Frame rate of these frames."),
            ],
        )

    @classmethod
    @checked_inputs
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
        end_percent: float = 1.0,
        clip_vision_output: Any = None,
        loop: bool = False,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the LATENT of all frames and their frame rate."""
        lambda_, rate = settings.pop("lambda"), fps_after(fps, rounds, appearnet.spec.window.factor)
        run = adapter.SamplerSettings(positive=positive, negative=negative, **settings)
        latent = adapter.interpolate_video(
            model,
            appearnet,
            key_frames,
            run,
            rounds=rounds,
            lambda_=lambda_,
            gamma=gamma,
            end_percent=None if end_percent == 1 else end_percent,
            chunk=chunk,
            features=adapter.features_of(clip_vision_output),
            loop=loop,
        )
        return io.NodeOutput(latent, rate)


NODES = [MicroCinemaTSR]
