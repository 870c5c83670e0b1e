"""Recipes of the workflows for the paper's evaluation: 17 frames from a drawn centre frame (Table 4), and a captioner.

`python -m devtools.run.batch` runs them for a list of prompts. One text serves the picture and the video.
"""

from __future__ import annotations

from .graph import NEGATIVE, Graph, Node, Out
from .parts import EXAMPLE, KARRAS, Words, decoded_video, key_frames, picture
from .training import CFG, SD21, SIDE, TRAINED

SDXL = "sd_xl_base_1.0.safetensors"
PROMPT = "a video of playing cello"
"""A class of UCF-101 in the template of Table 3's *Simple* prompts."""
FRAMES = 17
"""Of the ablations and of Tables 3 and 4, which use no TSR (sections 4.2 and 4.3)."""
QUESTION = "Describe this picture in one sentence."
VISION_LANGUAGE = "qwen3vl_4b.safetensors"
MAKES = "17 frames of 320 x 320 at 2 fps"


def sdxl_first(graph: Graph) -> None:
    """Draw the centre frame with SDXL, and make 17 frames around it."""
    graph.column("Prompt and SDXL")
    text = graph.add("PrimitiveStringMultiline", "prompt", value=PROMPT)
    sdxl = graph.add("CheckpointLoaderSimple", "SDXL", ckpt_name=SDXL)
    positive = graph.add("CLIPTextEncode", "Picture", text=text[0], clip=sdxl[1])
    negative = graph.add("CLIPTextEncode", f"{NEGATIVE} Picture", text="", clip=sdxl[1])
    drawn = _drawn(graph, sdxl, (positive[0], negative[0]), side=1024, cfg=6.0)
    loaded = graph.add("CheckpointLoaderSimple", "video", ckpt_name=SD21)
    _video(graph, loaded, _words(graph, loaded, text[0]), drawn)


def sd21_first(graph: Graph) -> None:
    """Draw the centre frame with Stable Diffusion 2.1, and make 17 frames around it."""
    graph.column("Prompt and SD 2.1")
    text = graph.add("PrimitiveStringMultiline", "prompt", value=PROMPT)
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=SD21)
    words = _words(graph, loaded, text[0])
    drawn = _drawn(graph, loaded, words, side=512, cfg=CFG)
    _video(graph, loaded, words, drawn)


def captioned(graph: Graph) -> None:
    """Let a vision-language model say what the picture shows, and make 17 frames with that caption."""
    graph.column("Picture")
    given = graph.add("LoadImage", image=EXAMPLE)
    reader = graph.add("CLIPLoader", "captioner", clip_name=VISION_LANGUAGE, type="qwen_image")
    graph.column("Caption")
    caption = graph.add(
        "TextGenerate", "caption", clip=reader[0], prompt=QUESTION, image=given[0], max_length=77,
        sampling_mode="off",
    )  # fmt: skip
    graph.add("PreviewAny", "caption", source=caption[0])
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=SD21)
    words = _words(graph, loaded, caption[0])
    graph.column("Models")
    _video(graph, loaded, words, given)


def _words(graph: Graph, loaded: Node, text: Out) -> Words:
    """Add both prompts of the video; the positive one comes from another node."""
    positive = graph.add("CLIPTextEncode", text=text, clip=loaded[1])
    unwanted = graph.add("CLIPTextEncode", f"{NEGATIVE} Prompt", text="", clip=loaded[1])
    return positive[0], unwanted[0]


def _drawn(graph: Graph, image: Node, words: Words, *, side: int, cfg: float) -> Node:
    """Add a column that draws and saves the centre frame; return the decoded picture."""
    graph.column("Centre frame")
    empty = graph.add("EmptyLatentImage", width=side, height=side, batch_size=1)
    drawn = graph.add("KSampler", "centre frame", model=image[0], positive=words[0], negative=words[1],
                      latent_image=empty[0], **KARRAS, cfg=cfg)  # fmt: skip
    pixels = graph.add("VAEDecode", "centre frame", samples=drawn[0], vae=image[2])
    graph.add("SaveImage", "centre frame", images=pixels[0], filename_prefix="MicroCinema_centre_frame")
    graph.column("Models")
    return pixels


def _video(graph: Graph, loaded: Node, words: Words, drawn: Node) -> None:
    """Add the trained base model, 17 frames around a picture, and the video."""
    base = graph.add("MicroCinemaCheckpointLoader", file="sd21_base.safetensors", role="base")
    centre = picture(graph, loaded[2], given=drawn, side=SIDE)
    graph.column("Frames")
    made = key_frames(graph, base, words, centre[0], **{**TRAINED, "frames": FRAMES})
    decoded_video(graph, made, loaded[2])
