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
NOTE = """## A loop with a prompt for each part

Two parts of nine key frames are made around **your picture**, each with its own prompt: *going away* and *coming
closer*. The loop takes the second half of part 1 (your picture and what follows) and the first half of part 2 (what
leads to your picture): nine key frames that begin and end with it.

- *MicroCinema Prompt Schedule* has one line for each part: frames 0 to 4 and 5 to 8. So *MicroCinema Interpolate
Frames* gives each new frame the text of its own part.
- **loop** in *MicroCinema Interpolate Frames* adds frames between the last key frame and the first as well, so that
nine key frames become 144 frames.
- Other pairs of motions that lead back: *moving left* and *moving right*, *rising* and *sinking*. Change both
prompts and the schedule.
- Where a model follows a text that changes within one clip, as AnimateDiff does, one *MicroCinema Prompt Schedule* in
place of the sampler's prompt is all it takes."""


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
