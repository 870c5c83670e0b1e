"""The node that makes key frames from a centre frame and a text."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from .appearance import APPEARNET_TIP, place_inputs, prior_inputs
from .inputs import checked_inputs
from .schema import AppearNetSocket, node_schema


def prompt_inputs() -> list[io.Input]:
    """Return the two text inputs, shared by every node that samples."""
    return [
        io.Conditioning.Input("positive", tooltip="What is seen and how it moves, from CLIP Text Encode."),
        io.Conditioning.Input("negative", tooltip="What should not appear, from CLIP Text Encode."),
    ]


def sampler_inputs() -> list[io.Input]:
    """Return the stock sampler's own inputs, shared by every node that samples."""
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The random seed. The same seed gives the same video.",
        ),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=10000,
            tooltip="The number of steps used in the denoising process; 0 uses the number recommended by the weights.",
        ),
        io.Float.Input(
            "cfg",
            default=adapter.OWN,
            min=-1.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="How strongly the text guides the result. 1 turns guidance off: it is twice as fast, and the "
            "negative prompt has no effect. -1 uses the value recommended by the weights.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=[adapter.AUTO, *adapter.samplers()],
            default=adapter.AUTO,
            tooltip="The algorithm used when sampling; auto uses the one recommended by the weights. Every sampler "
            "works with the noise prior.",
        ),
        io.Combo.Input(
            "scheduler",
            options=[adapter.AUTO, *adapter.schedulers()],
            default=adapter.AUTO,
            tooltip="How quickly the noise is removed over the steps; auto uses what the weights recommend.",
        ),
    ]


class MicroCinemaSampler(io.ComfyNode):
    """Samples key frames from a centre frame and a text, in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaSampler",
            "MicroCinema Sampler (Image to Video)",
            "Makes key frames from a centre frame and a text. Gives the same result as MicroCinema Apply AppearNet, "
            "an empty latent and KSampler with the same seed.",
            search_aliases=["i2v", "text to video", "ksampler", "appearance noise prior"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A MODEL from MicroCinema Motion Loader, MicroCinema Inflate or MicroCinema Crafter Loader "
                    "(with a DynamiCrafter base file), or a MicroCinema MODEL with the role base.",
                ),
                AppearNetSocket.Input("appearnet", tooltip=APPEARNET_TIP),
                *prompt_inputs(),
                io.Latent.Input(
                    "centre_frame",
                    tooltip="Latent of the centre frame, from MicroCinema Centre Frame or VAE Encode. It also sets "
                    "the size of the video.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="Number of key frames; 0 uses the number that the weights were trained on: 9 for the "
                    "shipped mini models, 16 for PIA and AnimateDiff.",
                ),
                *sampler_inputs(),
                *prior_inputs(),
                *place_inputs(),
                io.Boolean.Input(
                    "hold",
                    default=False,
                    optional=True,
                    tooltip="Keeps your picture itself as the frame that anchor says, and last_frame as the last. With "
                    "DynamiCrafter, anchor only acts if this is on.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The key frames."),
                io.Float.Output(
                    display_name="fps",
                    tooltip="Frame rate of the key frames: the one that the weights were trained at.",
                ),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls,
        model: Any,
        appearnet: Any,
        positive: Any,
        negative: Any,
        centre_frame: dict[str, Tensor],
        frames: int,
        gamma: float,
        anchor: str = "centre",
        motion: str = adapter.AUTO,
        last_frame: dict[str, Tensor] | None = None,
        clip_vision_output: Any = None,
        hold: bool = False,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the LATENT of the key frames and their frame rate."""
        lambda_ = settings.pop("lambda")
        run = adapter.SamplerSettings(positive=positive, negative=negative, **settings)
        latent, fps = adapter.sample_video(
            model,
            appearnet,
            centre_frame,
            run,
            frames=frames,
            lambda_=lambda_,
            gamma=gamma,
            anchor=anchor,
            motion=motion,
            last_frame=last_frame,
            features=adapter.features_of(clip_vision_output),
            hold=hold,
        )
        return io.NodeOutput(latent, fps)


NODES = [MicroCinemaSampler]
