"""Recipe and note of the workflow with a prompt for each part of a video, in a loop."""

from __future__ import annotations

from .graph import Graph
from .parts import (
    EXAMPLE,
    MINI_BASE,
    MINI_TSR,
    between,
    decoded_video,
    key_frames,
    load_mini,
    picture,
    prompts,
)

SUBJECT = "a picture"
AWAY, CLOSER = "going away", "coming closer"
"""Motions of the two parts: there and back."""
NOTE = """## A loop in two parts

Part 1 goes away from **your picture**, part 2 comes back to it: 144 frames that begin and end with it.

- For other motions, change the prompts and *MicroCinema Prompt Schedule* alike; it has one line for each part.
- **loop** in *MicroCinema Interpolate Frames* joins the last key frame to the first."""


def loop_of_parts(graph: Graph) -> None:
    """Make two parts around one picture, each with its own prompt, and close them to a loop."""
    graph.column("Picture")
    image = load_mini(graph, "image")
    centre = picture(graph, image[2], given=graph.add("LoadImage", image=EXAMPLE))
    graph.column("Prompt and part 1")
    first, unwanted = prompts(graph, image[1], f"{SUBJECT} {AWAY}")
    base = load_mini(graph, "base")
    keys = key_frames(graph, base, (first, unwanted), centre[0], **MINI_BASE)
    graph.column("Part 2")
    second = graph.add("CLIPTextEncode", text=f"{SUBJECT} {CLOSER}", clip=image[1])
    back = key_frames(graph, base, (second[0], unwanted), centre[0], **MINI_BASE)
    graph.column("Key frames of the loop")
    away = graph.add("LatentFromBatch", "from the picture on", samples=keys[0], batch_index=4, length=5)
    closer = graph.add("LatentFromBatch", "up to the picture", samples=back[0], batch_index=0, length=4)
    joined = graph.add("LatentBatch", samples1=away[0], samples2=closer[0])
    lines = f"0-4: {AWAY}\n5-8: {CLOSER}"
    words = graph.add("MicroCinemaPromptSchedule", clip=image[1], text=lines, frames=9, prefix=SUBJECT)
    graph.column("Frames between")
    sockets = {"key_frames": joined[0], "rounds": 2, "loop": True}
    made = between(graph, load_mini(graph, "tsr"), (words[0], unwanted), keys, **MINI_TSR, **sockets)
    decoded_video(graph, made, image[2])
