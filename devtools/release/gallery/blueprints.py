"""Subgraph blueprints: several nodes as one, in the front end's node library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .graph import Graph, Node
from .mini import LONG_PROMPT, PICTURE_PROMPT, further_parts
from .parts import (
    MINI_BASE,
    MINI_TSR,
    Words,
    between,
    key_frames,
    load_mini,
    load_sd15,
    load_sparsectrl,
    prompts,
)
from .published import MEADOW, SIDE, UNWANTED
from .subgraph import Subgraph


@dataclass(frozen=True)
class Blueprint:
    """A shipped blueprint.

    Attributes:
        fill: adds its nodes to a graph, and returns what is seen of them from outside.
        seed: seed of its first sampling node. Blueprints differ in it, since several can be in one graph.
    """

    fill: Callable[[Graph], Subgraph]
    seed: int


def picture_to_video(graph: Graph) -> Subgraph:
    """Turn a picture and a prompt into a video of 129 frames."""
    image, words, centre = _mini_start(graph)
    graph.column("Key frames")
    keys = key_frames(graph, load_mini(graph, "base"), words, centre[0], **MINI_BASE)
    graph.column("Frames between")
    tsr = between(graph, load_mini(graph, "tsr"), words, keys, **MINI_TSR, rounds=2)
    pixels, film = _video(graph, tsr, image)
    return Subgraph(
        graph,
        inputs=[("image", centre, "image")],
        outputs=[("video", film[0]), ("images", pixels[0]), ("fps", tsr[1])],
        widgets=[(_prompt(words), "text"), (centre, "fit"), (keys, "seed"), (tsr, "rounds")],
    )


def _mini_start(graph: Graph, text: str = PICTURE_PROMPT) -> tuple[Node, Words, Node]:
    """Add the image model, prompts and a centre frame without a picture."""
    graph.column("Prompt and centre frame")
    image = load_mini(graph, "image")
    words = prompts(graph, image[1], text)
    return image, words, graph.add("MicroCinemaCentreFrame", vae=image[2])


def _prompt(words: Words) -> Node:
    return Node(words[0][0])


def _video(graph: Graph, made: Node, loaded: Node, **more: Any) -> tuple[Node, Node]:
    """Add the decoder and Video Combine."""
    graph.column("Video")
    pixels = graph.add("VAEDecode", samples=made[0], vae=loaded[2])
    return pixels, graph.add("MicroCinemaFrameCombine", images=pixels[0], fps=made[1], **more)


def picture_to_longer_video(graph: Graph) -> Subgraph:
    """Turn a picture and a prompt into a video of three parts, 65 frames."""
    image, words, centre = _mini_start(graph, LONG_PROMPT)
    base = load_mini(graph, "base")
    graph.column("Part 1")
    keys = key_frames(graph, base, words, centre[0], **MINI_BASE)
    joined, last = further_parts(graph, base, words, keys, parts=3)
    made = between(graph, load_mini(graph, "tsr"), words, last, **MINI_TSR, key_frames=joined, rounds=1)
    pixels, film = _video(graph, made, image, colour_anchor=centre[1], colour_strength=0.5)
    return Subgraph(
        graph,
        inputs=[("image", centre, "image")],
        outputs=[("video", film[0]), ("images", pixels[0]), ("fps", made[1])],
        widgets=[(_prompt(words), "text"), (centre, "fit"), (keys, "seed"), (film, "colour_strength")],
    )


def first_and_last_frame(graph: Graph) -> Subgraph:
    """Make the video between two pictures with published weights (docs/models.md)."""
    graph.column("Prompt and pictures")
    loaded = load_sd15(graph)
    words = prompts(graph, loaded[1], MEADOW, UNWANTED)
    first, last = (
        graph.add("MicroCinemaCentreFrame", which, vae=loaded[2], width=SIDE, height=SIDE)
        for which in ("first", "last")
    )
    graph.column("Frames")
    sparse = load_sparsectrl(graph, loaded[0])
    made = key_frames(graph, sparse, words, first[0], anchor="first", last_frame=last[0])
    pixels, film = _video(graph, made, loaded)
    return Subgraph(
        graph,
        inputs=[("first", first, "image"), ("last", last, "image")],
        outputs=[("video", film[0]), ("images", pixels[0]), ("fps", made[1])],
        widgets=[(loaded, "ckpt_name"), (sparse, "motion_file"), (sparse, "appearance_file"), (_prompt(words), "text"),
                 (made, "seed")],
    )  # fmt: skip


def picture_to_key_frames(graph: Graph) -> Subgraph:
    """Turn a picture and a prompt into nine key frames."""
    image, words, centre = _mini_start(graph)
    graph.column("Key frames")
    keys = key_frames(graph, load_mini(graph, "base"), words, centre[0], **MINI_BASE)
    pixels = graph.add("VAEDecode", samples=keys[0], vae=image[2])
    return Subgraph(
        graph,
        inputs=[("image", centre, "image")],
        outputs=[("key_frames", keys[0]), ("fps", keys[1]), ("images", pixels[0])],
        widgets=[(_prompt(words), "text"), (centre, "fit"), (keys, "seed"), (keys, "steps"), (keys, "cfg")],
    )


def to_32_fps(graph: Graph) -> Subgraph:
    """Interpolate key frames at 2 fps to 32 fps."""
    graph.column("Prompt")
    image = load_mini(graph, "image")
    words = prompts(graph, image[1], PICTURE_PROMPT)
    graph.column("Frames")
    tsr = load_mini(graph, "tsr")
    sockets = {"model": tsr[0], "appearnet": tsr[3], "positive": words[0], "negative": words[1]}
    made = graph.add("MicroCinemaTSR", **sockets, **MINI_TSR, rounds=2)
    pixels = graph.add("VAEDecode", samples=made[0], vae=image[2])
    return Subgraph(
        graph,
        inputs=[("key_frames", made, "key_frames"), ("fps", made, "fps")],
        outputs=[("images", pixels[0]), ("fps", made[1])],
        widgets=[(_prompt(words), "text"), (made, "seed"), (made, "steps")],
    )


def longer_video(graph: Graph) -> Subgraph:
    """Go on from the last frame of the last part, with weights that take a picture as the first frame.

    The last part is an input of its own, because the host's LatentFromBatch reaches no further than 64 frames.
    """
    graph.column("Next frames")
    last = graph.add("LatentFromBatch", "last frame", batch_index=63, length=1)
    made = graph.add("MicroCinemaSampler", centre_frame=last[0], anchor="first")
    new = graph.add("LatentFromBatch", "without the first", samples=made[0], batch_index=1, length=63)
    joined = graph.add("LatentBatch", samples2=new[0])
    return Subgraph(
        graph,
        inputs=[("model", made, "model"), ("appearnet", made, "appearnet"), ("positive", made, "positive"),
                ("negative", made, "negative"), ("frames", joined, "samples1"), ("last_part", last, "samples")],
        outputs=[("frames", joined[0]), ("last_part", made[0]), ("fps", made[1])],
        widgets=[(made, "seed"), (made, "steps"), (made, "cfg")],
    )  # fmt: skip


BLUEPRINTS = {
    "MicroCinema Picture to Video": Blueprint(picture_to_video, 11),
    "MicroCinema Picture to Longer Video": Blueprint(picture_to_longer_video, 21),
    "MicroCinema First and Last Frame": Blueprint(first_and_last_frame, 31),
    "MicroCinema Picture to Key Frames": Blueprint(picture_to_key_frames, 41),
    "MicroCinema to 32 fps": Blueprint(to_32_fps, 51),
    "MicroCinema Longer Video": Blueprint(longer_video, 61),
}
"""By name."""
