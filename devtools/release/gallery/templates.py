"""The shipped workflows. The front end's template browser shows the files' names, which is why they are titles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import (
    crafter,
    crafter_notes,
    evaluation,
    evaluation_notes,
    mini,
    notes,
    published,
    scheduled,
    training,
)
from .graph import Graph, Schemas


@dataclass(frozen=True)
class Template:
    """A shipped workflow.

    Attributes:
        fill: adds its nodes to a graph.
        note: Markdown of the note beside it.
        makes: what comes out, in a few words.
        given: where the user's pictures are in its video, from 0 for the first frame to 1 for the last.
    """

    fill: Callable[[Graph], None]
    note: str
    makes: str
    given: tuple[float, ...] = ()

    def graph(self, schemas: Schemas, title: str) -> Graph:
        """Return the workflow as a graph of the host's nodes."""
        graph = Graph(schemas, title, self.note)
        self.fill(graph)
        return graph


MIDDLE, BOTH_ENDS = (0.5,), (0.0, 1.0)
MADE_BY_MINI = "129 frames of 128 x 128 at 32 fps"
NINE = "9 frames of 320 x 320 at 2 fps"
SIXTEEN = "16 frames of 512 x 512 at 8 fps"
TEMPLATES = {
    "10 Start here - picture to video (mini)": Template(
        mini.picture_to_video, notes.PICTURE_TO_VIDEO_MINI, MADE_BY_MINI, MIDDLE
    ),
    "11 Text to video (mini)": Template(mini.text_to_video, notes.TEXT_TO_VIDEO_MINI, MADE_BY_MINI),
    "12 Repainted picture to video (mini)": Template(
        mini.repainted_picture, notes.REPAINTED_PICTURE_MINI, MADE_BY_MINI, MIDDLE
    ),
    "13 Longer video (mini)": Template(
        mini.longer_video, notes.LONGER_VIDEO_MINI, "49 frames of 128 x 128 at 8 fps", (0.25,)
    ),
    "14 Between two pictures (mini)": Template(
        mini.interpolated_pictures,
        notes.INTERPOLATED_PICTURES_MINI,
        "17 frames of 128 x 128 at 32 fps",
        BOTH_ENDS,
    ),
    "15 Upscaled video (mini)": Template(
        mini.upscaled_video, notes.UPSCALED_VIDEO_MINI, "33 frames of 512 x 512 at 8 fps", MIDDLE
    ),
    "16 Loop with a prompt for each part (mini)": Template(
        scheduled.loop_of_parts, scheduled.NOTE, "144 frames of 128 x 128 at 32 fps", (0.0,)
    ),
    "20 Picture to video (PIA)": Template(
        published.picture_to_video, notes.PICTURE_TO_VIDEO, SIXTEEN, MIDDLE
    ),
    "21 SDXL picture to video (PIA, SparseCtrl)": Template(
        published.sdxl_to_video, notes.SDXL_TO_VIDEO, "76 frames of 512 x 512 at 40 fps"
    ),
    "22 First and last frame (SparseCtrl)": Template(
        published.first_and_last_frame, notes.FIRST_AND_LAST_FRAME, SIXTEEN, BOTH_ENDS
    ),
    "23 Text to video (AnimateDiff)": Template(
        published.text_to_video, notes.TEXT_TO_VIDEO_ANIMATEDIFF, SIXTEEN
    ),
    "24 LoRA and ControlNet (AnimateDiff)": Template(
        published.lora_and_controlnet,
        notes.LORA_AND_CONTROLNET,
        "16 frames of 512 x 512 at the motion video's rate",
    ),
    "25 SDXL picture to video (DynamiCrafter)": Template(
        crafter.sdxl_to_video, crafter_notes.SDXL_TO_VIDEO_CRAFTER, "16 frames of 512 x 320 at 8 fps"
    ),
    "26 Interpolate drawings (ToonCrafter)": Template(
        crafter.interpolated_drawings,
        crafter_notes.INTERPOLATED_DRAWINGS,
        "16 frames of 512 x 320 at 7.5 fps",
        BOTH_ENDS,
    ),
    "27 Text to video (VideoCrafter2, ZeroScope)": Template(
        crafter.text_to_video, crafter_notes.TEXT_TO_VIDEO_CRAFTER, "16 frames of 512 x 320 at 8 fps"
    ),
    "30 Your trained model (SD 2)": Template(
        training.trained, notes.TRAINED, "129 frames of 320 x 320 at 32 fps", MIDDLE
    ),
    "31 Before training (SD 1)": Template(training.inflated_sd15, notes.INFLATED_SD15, NINE, MIDDLE),
    "32 Before training (SD 2)": Template(training.inflated_sd21, notes.INFLATED_SD21, NINE, MIDDLE),
    "33 LoRA before training (SD 1)": Template(training.lora, notes.LORA, NINE, MIDDLE),
    "34 ControlNet before training (SD 1)": Template(
        training.controlnet, notes.CONTROLNET, "9 frames of 512 x 512 at the motion video's rate", MIDDLE
    ),
    "40 Noise prior on SVD": Template(
        training.svd_noise_prior, notes.SVD_NOISE_PRIOR, "14 frames of 1024 x 576 at 6 fps", (0.0,)
    ),
    "41 Wan text to video with a centre frame": Template(
        training.wan_noise_prior, crafter_notes.WAN_NOISE_PRIOR, "33 frames of 832 x 480 at 16 fps", MIDDLE
    ),
    "50 Evaluation with SDXL first (SD 2)": Template(
        evaluation.sdxl_first, evaluation_notes.SDXL_FIRST, evaluation.MAKES
    ),
    "51 Evaluation with SD 2.1 first (SD 2)": Template(
        evaluation.sd21_first, evaluation_notes.SD21_FIRST, evaluation.MAKES
    ),
}
"""By title: 1x with the mini models, 2x with published weights, 3x around your own training, 4x experiments, 5x the
paper's evaluation."""
