"""Recipes of the workflows with the mini models, which ship with the pack."""

from __future__ import annotations

from .graph import Graph, Node, Out
from .parts import (
    EXAMPLE,
    MINI_BASE,
    MINI_IMAGE,
    MINI_TSR,
    Words,
    between,
    decoded_video,
    key_frames,
    load_mini,
    picture,
    prompts,
    video,
)

SIDE = 128
PICTURE_PROMPT = "a picture coming closer"
"""Fits any picture."""
LONG_PROMPT = "a picture going away"
"""The one motion that can go on for three parts."""


def _start(
    graph: Graph, text: str = PICTURE_PROMPT, title: str = "Prompt and key frames"
) -> tuple[Node, Words, Node]:
    """Add picture and centre frame, and a column with prompts: the image model's loader, prompts, centre frame."""
    graph.column("Picture")
    image = load_mini(graph, "image")
    centre = picture(graph, image[2], given=graph.add("LoadImage", image=EXAMPLE))
    graph.column(title)
    return image, prompts(graph, image[1], text), centre


def _frames(graph: Graph, words: Words, centre: Out, *, rounds: int) -> Node:
    """Add both models and their samplers, the second pair in a column of its own: outputs latent and fps."""
    keys = key_frames(graph, load_mini(graph, "base"), words, centre, **MINI_BASE)
    graph.column("Frames between")
    return between(graph, load_mini(graph, "tsr"), words, keys, **MINI_TSR, rounds=rounds)


def picture_to_video(graph: Graph) -> None:
    """Animate the user's picture."""
    image, words, centre = _start(graph)
    decoded_video(graph, _frames(graph, words, centre[0], rounds=2), image[2])


def text_to_video(graph: Graph) -> None:
    """Make the centre frame from the prompt as well: the fifth of the README's prompts, which follow from a rule."""
    graph.column("Prompt")
    image = load_mini(graph, "image")
    empty = graph.add("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1)
    words = prompts(graph, image[1], "a flag of belize coming closer on an orange background")
    graph.column("Centre frame")
    drawn = graph.add("KSampler", "centre frame", model=image[0], positive=words[0], negative=words[1],
                      latent_image=empty[0], **MINI_IMAGE)  # fmt: skip
    _video_of_latent(graph, image, words, drawn[0], "as drawn")


def repainted_picture(graph: Graph) -> None:
    """Repaint a picture (image to image) before it becomes the centre frame."""
    image, words, fitted = _start(graph, "a happy cat face coming closer", "Prompt")
    graph.column("Repainting")
    painted = graph.add("KSampler", "repaint", model=image[0], positive=words[0], negative=words[1],
                        latent_image=fitted[0], denoise=0.6, **MINI_IMAGE)  # fmt: skip
    _video_of_latent(graph, image, words, painted[0], "repainted")


def _video_of_latent(graph: Graph, image: Node, words: Words, latent: Out, purpose: str) -> None:
    """Show a centre frame that is a latent, and add the video of it.

    Centre Frame shows the picture and is no output node, as Preview Image is: a graph with a forgotten link behind it
    is refused, where Preview Image alone would run and be taken for a success. The samplers get the latent itself.
    """
    pixels = graph.add("VAEDecode", "centre frame", samples=latent, vae=image[2])
    shown = picture(graph, image[2], given=pixels, purpose=purpose)
    graph.column("Key frames")
    made = _frames(graph, words, latent, rounds=2)
    decoded_video(graph, made, image[2], colour_anchor=shown[1])


def longer_video(graph: Graph) -> None:
    """Start a second part from the last frame of the first, and interpolate both together."""
    image, words, centre = _start(graph, LONG_PROMPT, "Prompt and part 1")
    base = load_mini(graph, "base")
    keys = key_frames(graph, base, words, centre[0], **MINI_BASE)
    joined, last = further_parts(graph, base, words, keys, parts=2)
    tsr = load_mini(graph, "tsr")
    made = between(graph, tsr, words, last, **MINI_TSR, key_frames=joined, rounds=1)
    decoded_video(graph, made, image[2], colour_anchor=centre[1], colour_strength=0.5)


def further_parts(graph: Graph, base: Node, words: Words, keys: Node, *, parts: int) -> tuple[Out, Node]:
    """Add a column for each further part, and begin one with all key frames; return them and the last Sampler."""
    joined: Out = keys[0]
    further = []
    for number in range(2, parts + 1):
        graph.column(f"Part {number}")
        last = graph.add("LatentFromBatch", "last frame", samples=keys[0], batch_index=8, length=1)
        keys = key_frames(graph, base, words, last[0], **MINI_BASE)
        further.append(graph.add("LatentFromBatch", "new frames", samples=keys[0], batch_index=5, length=4))
    graph.column("All frames")
    for part in further:
        joined = graph.add("LatentBatch", samples1=joined, samples2=part[0])[0]
    return joined, keys


def interpolated_pictures(graph: Graph) -> None:
    """Make the frames between two pictures."""
    graph.column("Pictures")
    first = graph.add("LoadImage", "first", image=EXAMPLE)
    last = graph.add("LoadImage", "last", image=EXAMPLE)
    graph.column("Models")
    image, tsr = (load_mini(graph, role) for role in ("image", "tsr"))
    both = graph.add("ImageBatch", image1=first[0], image2=last[0])
    sized = graph.add(
        "ImageScale", image=both[0], upscale_method="area", width=SIDE, height=SIDE, crop="center"
    )
    graph.column("Frames")
    words = prompts(graph, image[1], "a picture")
    keys = graph.add("VAEEncode", pixels=sized[0], vae=image[2])
    made = between(graph, tsr, words, keys, fps=2.0, **MINI_TSR, rounds=2)
    decoded_video(graph, made, image[2])


def upscaled_video(graph: Graph) -> None:
    """Upscale the frames with the host's upscaler before they are combined."""
    image, words, centre = _start(graph, "a picture moving left")
    made = _frames(graph, words, centre[0], rounds=1)
    graph.column("Upscaling")
    frames = graph.add("VAEDecode", samples=made[0], vae=image[2])
    upscaler = graph.add("UpscaleModelLoader", model_name="RealESRGAN_x4plus.safetensors")
    large = graph.add("ImageUpscaleWithModel", upscale_model=upscaler[0], image=frames[0])
    graph.column("Video")
    video(graph, large[0], made[1])
