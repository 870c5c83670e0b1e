"""Parts that several workflows share: loaders, prompts, a picture, key frames, interpolation, the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .graph import Graph, Node, Out

Words = tuple[Out, Out]


@dataclass(frozen=True)
class Mini:
    """Settings of the mini models by input name, from the workflows `*_mini`.

    Attributes:
        image: inputs of KSampler, for the centre frame.
        base: inputs of MicroCinemaSampler.
        tsr: inputs of MicroCinemaTSR.
    """

    image: dict[str, Any]
    base: dict[str, Any]
    tsr: dict[str, Any]


def load_mini(graph: Graph, role: str, title: str) -> Node:
    """Add a loader of mini weights: outputs MODEL, CLIP, VAE, APPEARNET, if a file of that role has them."""
    return graph.add("MicroCinemaCheckpointLoader", title, file=f"mini_{role}.safetensors", role=role)


def prompts(graph: Graph, encoder: Out, text: str, negative: str = "") -> Words:
    """Add a prompt and a negative prompt, and return both outputs."""
    positive = graph.add("CLIPTextEncode", "Prompt", text=text, clip=encoder)
    unwanted = graph.add("CLIPTextEncode", "Negative prompt", text=negative, clip=encoder)
    return positive[0], unwanted[0]


def stable_diffusion(graph: Graph, file: str, text: str) -> tuple[Node, Words]:
    """Add a column with the stock checkpoint loader and the prompts."""
    graph.column("1. Checkpoint and prompt")
    loaded = graph.add("CheckpointLoaderSimple", "Load text encoder and VAE", ckpt_name=file)
    return loaded, prompts(graph, loaded[1], text)


def picture(graph: Graph, vae: Out, width: int = 0, height: int = 0) -> Node:
    """Add the user's picture as the centre frame: outputs latent and picture."""
    given = graph.add("LoadImage", "Your picture", image="example.png")
    centre = graph.add(
        "MicroCinemaCentreFrame", "Centre frame", image=given[0], vae=vae, width=width, height=height
    )
    graph.add("PreviewImage", images=centre[1])
    return centre


def base_model(graph: Graph, mini: Mini, words: Words, centre: Out) -> Node:
    """Add a column with the mini base model and its sampler: outputs latent and fps."""
    graph.column("3. Nine key frames at 2 fps")
    base = load_mini(graph, "base", "Load the video model")
    sockets = {"model": base[0], "appearnet": base[3], "positive": words[0], "negative": words[1]}
    return graph.add("MicroCinemaSampler", "Key frames", **{**mini.base, **sockets, "centre_frame": centre})


def interpolated(
    graph: Graph, mini: Mini, words: Words, keys: Out, fps: Out, vae: Out, rounds: int = 2
) -> tuple[Out, Out]:
    """Add a column with the mini interpolation model; return the decoded frames and their fps."""
    graph.column("Interpolation to 8 fps" if rounds == 1 else "Interpolation to 32 fps")
    tsr = load_mini(graph, "tsr", "Load the interpolation model")
    sockets = {"model": tsr[0], "appearnet": tsr[3], "positive": words[0], "negative": words[1]}
    given = {**mini.tsr, **sockets, "key_frames": keys, "fps": fps, "rounds": rounds}
    between = graph.add("MicroCinemaTSR", "Interpolation", **given)
    pixels = graph.add("VAEDecode", "Frames", samples=between[0], vae=vae)
    return pixels[0], between[1]


def clip(
    graph: Graph, frames: Out, fps: Out | None, *, fps_value: float = 2.0, column: bool = True, **more: Any
) -> None:
    """Add Frame Combine and Save Video, in their own column unless `column` is false."""
    if column:
        graph.column("Clip")
    joined = graph.add(
        "MicroCinemaFrameCombine", "Clip", images=frames, fps=fps_value if fps is None else fps, **more
    )
    graph.add("SaveVideo", video=joined[0], filename_prefix="video/MicroCinema")
