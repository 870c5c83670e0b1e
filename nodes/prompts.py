"""The node that gives each part of a video a text of its own."""

from __future__ import annotations

from typing import Any

from ..microcinema_core import adapter
from ..microcinema_core.adapter.host import io
from ..microcinema_core.frames.schedule import mix_parts, read_parts, whole_texts
from ..microcinema_core.values import chosen
from .inputs import checked_inputs
from .schema import node_schema

BLEND, HOLD = "blend", "hold"


class MicroCinemaPromptSchedule(io.ComfyNode):
    """Encodes a text for each part of a video: a conditioning with one row per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's inputs, outputs and help."""
        return node_schema(
            "MicroCinemaPromptSchedule",
            "MicroCinema Prompt Schedule",
            "Encodes a text for each part of a video, in place of CLIP Text Encode: one line per part. MicroCinema "
            "Sampler and MicroCinema Interpolate Frames give each frame its own text.",
            search_aliases=[
                "prompt travel",
                "prompt per frame",
                "batch prompt schedule",
                "prompt scheduling",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the model that makes the video."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="0: moving left\n8: moving right",
                    tooltip="One line for each part: the frame at which its text begins, or a span of frames such as "
                    "4-6, a colon, and the text. The first frame is 0. In a schedule for MicroCinema Sampler, frames "
                    "are key frames.",
                ),
                io.Int.Input(
                    "frames",
                    default=9,
                    min=1,
                    max=1024,
                    tooltip="Number of frames of the video that is sampled, as in MicroCinema Sampler: 9 with the "
                    "shipped mini models, 16 with PIA and AnimateDiff.",
                ),
                io.Combo.Input(
                    "between",
                    options=[BLEND, HOLD],
                    default=BLEND,
                    tooltip="What happens between two lines: blend goes from one text to the next in even steps, hold "
                    "keeps each text until the next one begins.",
                ),
                io.String.Input(
                    "prefix",
                    default="",
                    optional=True,
                    tooltip="Text in front of every line, such as the subject: a happy face.",
                ),
                io.String.Input(
                    "suffix",
                    default="",
                    optional=True,
                    tooltip="Text after every line, such as the background: on a white background.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip="One text for each frame, for positive or negative. MicroCinema Interpolate Frames takes "
                    "the same one: between key frames it blends their texts.",
                )
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, clip: Any, text: str, frames: int, between: str, prefix: str = "", suffix: str = ""
    ) -> io.NodeOutput:
        """Return a CONDITIONING with one row for each frame."""
        parts = read_parts(text, frames)
        mixed = mix_parts(parts, frames, blend=chosen(between, (BLEND, HOLD), "between") == BLEND)
        return io.NodeOutput(adapter.scheduled(clip, whole_texts(parts, prefix, suffix), mixed))


NODES = [MicroCinemaPromptSchedule]
