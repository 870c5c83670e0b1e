"""Recipes of the workflows with whole video models in ModelScope's layout (docs/models.md)."""

from __future__ import annotations

from .graph import Graph, Node, Out
from .parts import EXAMPLE, Words, between, decoded_video, prompts, video
from .published import FOX, UNWANTED, drawn_picture
from .training import SD21

DYNAMICRAFTER = "dynamicrafter_512_fp16_pruned.safetensors"
TOONCRAFTER = "tooncrafter_512_interp-pruned-fp16.safetensors"
VIDEOCRAFTER = "videocrafter2.safetensors"
VISION = "CLIP-ViT-H-fp16.safetensors"
SIZE = {"width": 512, "height": 320}
FRAMES = 16


def sdxl_to_video(graph: Graph) -> None:
    """Draw a picture with a stock SDXL graph, and animate it with DynamiCrafter."""
    pixels = drawn_picture(graph, width=1280, height=768)
    encoders = _encoders(graph)
    vision = _vision(graph)
    graph.column("Prompt and centre frame")
    words = prompts(graph, encoders[1], FOX, UNWANTED)
    centre = graph.add("MicroCinemaCentreFrame", image=pixels[0], vae=encoders[2], **SIZE)
    graph.column("DynamiCrafter")
    crafter = _crafter(graph, DYNAMICRAFTER, vision)
    seen = _seen(graph, vision, centre[1])
    model = _rescaled(graph, crafter)
    graph.column("Frames")
    made = graph.add("MicroCinemaSampler", model=model, appearnet=crafter[2], positive=words[0], negative=words[1],
                     centre_frame=centre[0], clip_vision_output=seen)  # fmt: skip
    decoded_video(graph, made, encoders[2], colour_anchor=centre[1])


def interpolated_drawings(graph: Graph) -> None:
    """Make the frames between two drawings with ToonCrafter."""
    graph.column("Drawings")
    first, last = (graph.add("LoadImage", which, image=EXAMPLE) for which in ("first", "last"))
    both = graph.add("ImageBatch", image1=first[0], image2=last[0])
    graph.column("ToonCrafter and size")
    sized = graph.add("ImageScale", image=both[0], upscale_method="area", **SIZE, crop="center")
    encoders = _encoders(graph)
    vision = _vision(graph)
    crafter = _crafter(graph, TOONCRAFTER, vision)
    model = _rescaled(graph, crafter)
    graph.column("Prompt and drawings")
    words = prompts(graph, encoders[1], "a girl turns her head and smiles, anime", UNWANTED)
    keys = graph.add("VAEEncode", pixels=sized[0], vae=encoders[2])
    seen = _seen(graph, vision, sized[0])
    graph.column("Frames")
    made = between(graph, crafter, words, keys, model=model, fps=0.5, rounds=1, clip_vision_output=seen)
    decoded_video(graph, made, encoders[2])


def text_to_video(graph: Graph) -> None:
    """Make a video from text alone with VideoCrafter2, sampled by the stock KSampler."""
    graph.column("Models")
    encoders = _encoders(graph)
    crafter = _crafter(graph, VIDEOCRAFTER)
    graph.column("Prompt")
    words = prompts(
        graph, encoders[1], "a sailing boat on a calm lake at sunset, ripples on the water", UNWANTED
    )
    graph.column("Frames")
    made = _sampled(graph, crafter, words)
    graph.column("Video")
    frames = graph.add("VAEDecode", samples=made[0], vae=encoders[2])
    video(graph, frames[0], 8.0)


def _sampled(graph: Graph, crafter: Node, words: Words) -> Node:
    """Add an empty latent and KSampler with the settings of VideoCrafter2's authors."""
    empty = graph.add("EmptyLatentImage", f"{FRAMES} frames", **SIZE, batch_size=FRAMES)
    return graph.add("KSampler", model=crafter[0], positive=words[0], negative=words[1], latent_image=empty[0],
                     steps=50, cfg=12.0, sampler_name="euler_ancestral", scheduler="normal")  # fmt: skip


def _encoders(graph: Graph) -> Node:
    """Add the stock loader with Stable Diffusion 2.1, whose text encoder and VAE these models share."""
    return graph.add("CheckpointLoaderSimple", "SD 2.1", ckpt_name=SD21)


def _vision(graph: Graph) -> Out:
    return graph.add("CLIPVisionLoader", clip_name=VISION)[0]


def _crafter(graph: Graph, file: str, vision: Out | None = None) -> Node:
    """Add our loader: outputs MODEL, VAE and APPEARNET."""
    sees = {} if vision is None else {"clip_vision": vision}
    return graph.add("MicroCinemaCrafterLoader", file=file, **sees)


def _seen(graph: Graph, vision: Out, pixels: Out) -> Out:
    """Add the pictures' features; they are sized already, and none of them may be cropped away."""
    return graph.add("CLIPVisionEncode", clip_vision=vision, image=pixels, crop="none")[0]


def _rescaled(graph: Graph, crafter: Node) -> Out:
    """Add the stock node for the authors' rescaled guidance, and return the MODEL."""
    return graph.add("RescaleCFG", model=crafter[0], multiplier=0.7)[0]
