"""Recipes of the workflows with published motion weights on Stable Diffusion 1.5 (docs/models.md)."""

from __future__ import annotations

from .graph import NEGATIVE, Graph, Node, Out
from .parts import (
    EXAMPLE,
    EXAMPLE_MOVING,
    KARRAS,
    MOTION,
    Words,
    between,
    decoded_video,
    key_frames,
    load_pia,
    load_sd15,
    load_sparsectrl,
    picture,
    prompts,
    video,
)

SIDE = 512
UNWANTED = "blurry, distorted, text"
MEADOW = "a fairy in a meadow, clouds moving, the light changing"
FOX = "a red fox in fresh snow, turning its head, wind in its fur"
EDGES = "control_v11p_sd15_canny_fp16.safetensors"
LORA = "MoXinV1.safetensors"


def picture_to_video(graph: Graph) -> None:
    """Animate the user's picture with PIA."""
    graph.column("Picture")
    loaded = load_sd15(graph)
    given = graph.add("LoadImage", image=EXAMPLE)
    graph.column("Prompt and models")
    words = prompts(graph, loaded[1], EXAMPLE_MOVING, UNWANTED)
    pia = load_pia(graph, loaded[0])
    centre = picture(graph, loaded[2], given=given, side=SIDE)
    graph.column("Frames")
    made = key_frames(graph, pia, words, centre[0])
    decoded_video(graph, made, loaded[2])


def sdxl_to_video(graph: Graph) -> None:
    """Make the centre frame with a stock SDXL graph, key frames with PIA, frames between them with SparseCtrl."""
    pixels = drawn_picture(graph, width=1024, height=1024)
    loaded = load_sd15(graph)
    centre = picture(graph, loaded[2], given=pixels, side=SIDE)
    graph.column("Prompt and key frames")
    words = prompts(graph, loaded[1], FOX, UNWANTED)
    keys = key_frames(graph, load_pia(graph, loaded[0]), words, centre[0])
    graph.column("Frames between")
    made = between(graph, load_sparsectrl(graph, loaded[0]), words, keys)
    decoded_video(graph, made, loaded[2], colour_anchor=centre[1], colour_strength=0.5)


def drawn_picture(graph: Graph, *, width: int, height: int) -> Node:
    """Add two columns, a stock SDXL graph; return the node with its picture. The second column stays open."""
    graph.column("SDXL")
    sdxl = graph.add("CheckpointLoaderSimple", "SDXL", ckpt_name="sd_xl_base_1.0.safetensors")
    empty = graph.add("EmptyLatentImage", width=width, height=height, batch_size=1)
    text = "a red fox standing in fresh snow, pine forest, soft morning light, photo"
    positive = graph.add("CLIPTextEncode", "Picture", text=text, clip=sdxl[1])
    negative = graph.add("CLIPTextEncode", f"{NEGATIVE} Picture", text="text, frame", clip=sdxl[1])
    graph.column("Picture")
    drawn = graph.add("KSampler", "picture", model=sdxl[0], positive=positive[0], negative=negative[0],
                      latent_image=empty[0], **KARRAS, cfg=6.0)  # fmt: skip
    return graph.add("VAEDecode", "picture", samples=drawn[0], vae=sdxl[2])


def first_and_last_frame(graph: Graph) -> None:
    """Make the video between two pictures with SparseCtrl."""
    graph.column("Pictures")
    loaded = load_sd15(graph)
    given = [graph.add("LoadImage", which, image=EXAMPLE) for which in ("first", "last")]
    graph.column("Prompt and ends")
    words = prompts(graph, loaded[1], MEADOW, UNWANTED)
    first, last = (
        picture(graph, loaded[2], given=one, purpose=which, side=SIDE)
        for one, which in zip(given, ("first", "last"), strict=True)
    )
    graph.column("Frames")
    sparse = load_sparsectrl(graph, loaded[0])
    made = key_frames(graph, sparse, words, first[0], anchor="first", last_frame=last[0])
    decoded_video(graph, made, loaded[2])


def text_to_video(graph: Graph) -> None:
    """Make a video from text alone with AnimateDiff, sampled by the stock KSampler."""
    graph.column("Models")
    loaded = load_sd15(graph)
    moving = graph.add("MicroCinemaMotionLoader", model=loaded[0], motion_file=MOTION)
    graph.column("Prompt")
    words = prompts(
        graph, loaded[1], "a sailing boat on a calm lake at sunset, ripples on the water", UNWANTED
    )
    graph.column("Frames")
    _animated(graph, moving[0], words, loaded[2], 8.0)


def _animated(graph: Graph, model: Out, words: Words, vae: Out, fps: Out | float) -> None:
    """Add an empty latent of 16 frames, KSampler with the settings of AnimateDiff's authors, and the video."""
    empty = graph.add("EmptyLatentImage", "16 frames", width=SIDE, height=SIDE, batch_size=16)
    made = graph.add("KSampler", model=model, positive=words[0], negative=words[1], latent_image=empty[0],
                     steps=25, cfg=8.0, sampler_name="euler", scheduler="ddim_uniform")  # fmt: skip
    graph.column("Video")
    frames = graph.add("VAEDecode", samples=made[0], vae=vae)
    video(graph, frames[0], fps)


def lora_and_controlnet(graph: Graph) -> None:
    """Make a video in a LoRA's style that follows the edges of another video."""
    graph.column("Models")
    loaded = load_sd15(graph)
    styled = with_lora(graph, loaded[0], loaded[1])
    moving = graph.add("MicroCinemaMotionLoader", model=styled[0], motion_file=MOTION)
    film = graph.add("LoadVideo", file="motion.mp4")
    graph.column("Prompt and hints")
    words = prompts(graph, styled[1], "shuimobysim, a horse running, ink painting", "text, frame")
    edges, parts = hints(graph, film, 16)
    graph.column("Frames")
    _animated(graph, moving[0], guided(graph, words, edges), loaded[2], parts[2])


def with_lora(graph: Graph, model: Out, encoder: Out) -> Node:
    """Add a LoRA of an ink painter's style: outputs MODEL and CLIP."""
    return graph.add("LoraLoader", model=model, clip=encoder, lora_name=LORA, strength_model=0.8,
                     strength_clip=0.8)  # fmt: skip


def hints(graph: Graph, film: Node, count: int) -> tuple[Out, Node]:
    """Add the edges of a video's first frames; return them and the video's parts."""
    parts = graph.add("GetVideoComponents", video=film[0])
    frames = graph.add("ImageFromBatch", f"{count} frames", image=parts[0], batch_index=0, length=count)
    sized = graph.add(
        "ImageScale", image=frames[0], upscale_method="area", width=SIDE, height=SIDE, crop="center"
    )
    return graph.add("Canny", image=sized[0], low_threshold=0.2, high_threshold=0.5)[0], parts


def guided(graph: Graph, words: Words, edges: Out) -> Words:
    """Add a ControlNet and return the prompts that follow these edges."""
    net = graph.add("ControlNetLoader", control_net_name=EDGES)
    both = graph.add("ControlNetApplyAdvanced", positive=words[0], negative=words[1], control_net=net[0],
                     image=edges, strength=0.9, start_percent=0.0, end_percent=0.8)  # fmt: skip
    return both[0], both[1]
