"""Parts that several workflows share: loaders, prompts, a picture, samplers, the video."""

from __future__ import annotations

from typing import Any

from .graph import NEGATIVE, Graph, Node, Out

Words = tuple[Out, Out]
"""Outputs of a prompt and of a negative prompt."""

MINI_IMAGE = {"steps": 30, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "simple"}
MINI_BASE = {
    "frames": 9,
    "steps": 10,
    "cfg": 1.0,
    "sampler_name": "ddim",
    "scheduler": "normal",
    "gamma": 0.04,
}
MINI_TSR = {"steps": 3, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "normal", "gamma": 0.02}
"""The mini models' settings (docs/mini.md): of KSampler for the centre frame, of Sampler, of TSR."""
KARRAS = {"steps": 25, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
"""Settings of Stable Diffusion's own U-Nets."""
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
PIA = "diffusion_pytorch_model.fp16.safetensors"
MOTION, SPARSECTRL = "mm_sd15_v3.safetensors", "mm_sd15_v3_sparsectrl_rgb.safetensors"
EXAMPLE = "example.png"
"""A picture that ComfyUI ships."""
EXAMPLE_MOVING = "a fairy in a meadow, smiling, hair and grass moving in the wind"
"""What that picture shows, and what moves in it."""


def load_mini(graph: Graph, role: str) -> Node:
    """Add a loader of mini weights: outputs MODEL, CLIP, VAE, APPEARNET, if a file of that role has them."""
    return graph.add("MicroCinemaCheckpointLoader", file=f"mini_{role}.safetensors", role=role)


def load_sd15(graph: Graph) -> Node:
    """Add the stock loader with Stable Diffusion 1.5: outputs MODEL, CLIP, VAE."""
    return graph.add("CheckpointLoaderSimple", ckpt_name=SD15)


def load_pia(graph: Graph, model: Out) -> Node:
    """Add PIA: outputs MODEL and APPEARNET."""
    return graph.add("MicroCinemaMotionLoader", model=model, motion_file=PIA)


def load_sparsectrl(graph: Graph, model: Out) -> Node:
    """Add AnimateDiff version 3 with SparseCtrl: outputs MODEL and APPEARNET."""
    return graph.add("MicroCinemaMotionLoader", model=model, motion_file=MOTION,
                     appearance_file=SPARSECTRL)  # fmt: skip


def prompts(graph: Graph, encoder: Out, text: str, negative: str = "") -> Words:
    """Add a prompt and a negative prompt, and return both outputs."""
    positive = graph.add("CLIPTextEncode", text=text, clip=encoder)
    unwanted = graph.add("CLIPTextEncode", f"{NEGATIVE} Prompt", text=negative, clip=encoder)
    return positive[0], unwanted[0]


def picture(graph: Graph, vae: Out, *, given: Node, purpose: str = "", side: int = 0) -> Node:
    """Add Centre Frame: outputs latent and picture. `side` in pixels; 0 is the model's own size."""
    return graph.add("MicroCinemaCentreFrame", purpose, image=given[0], vae=vae, width=side, height=side)


def key_frames(graph: Graph, loaded: Node, words: Words, centre: Out, **given: Any) -> Node:
    """Add Sampler: outputs latent and fps. `loaded` has MODEL as its first output and APPEARNET as its last."""
    return graph.add(
        "MicroCinemaSampler", **_sampler_sockets(graph, loaded, words), centre_frame=centre, **given
    )


def between(graph: Graph, loaded: Node, words: Words, keys: Node, **given: Any) -> Node:
    """Add TSR after a node with the outputs latent and fps: outputs the same two."""
    sockets = {**_sampler_sockets(graph, loaded, words), "key_frames": keys[0], "fps": keys[1]}
    return graph.add("MicroCinemaTSR", **{**sockets, **given})


def _sampler_sockets(graph: Graph, loaded: Node, words: Words) -> dict[str, Out]:
    last = len(graph.nodes[loaded.number - 1]["outputs"]) - 1
    return {"model": loaded[0], "appearnet": loaded[last], "positive": words[0], "negative": words[1]}


def video(graph: Graph, frames: Out, fps: Out | float, **more: Any) -> None:
    """Add Video Combine and Save Video."""
    joined = graph.add("MicroCinemaFrameCombine", images=frames, fps=fps, **more)
    graph.add("SaveVideo", video=joined[0], filename_prefix="video/MicroCinema")


def decoded_video(graph: Graph, made: Node, vae: Out, **more: Any) -> None:
    """Add a column that decodes frames from a node with the outputs latent and fps, and makes a video of them."""
    graph.column("Video")
    frames = graph.add("VAEDecode", samples=made[0], vae=vae)
    video(graph, frames[0], made[1], **more)
