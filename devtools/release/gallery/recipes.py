"""Recipes of shipped workflows: each function fills a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .graph import Graph, Node, Out
from .parts import (
    Mini,
    base_model,
    clip,
    interpolated,
    load_mini,
    picture,
    prompts,
    stable_diffusion,
)

Recipe = Callable[[Graph, Mini], None]
KARRAS = {"steps": 25, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
PIA = "diffusion_pytorch_model.fp16.safetensors"
MOTION, SPARSECTRL = "mm_sd15_v3.safetensors", "mm_sd15_v3_sparsectrl_rgb.safetensors"


def sdxl_to_video(graph: Graph, mini: Mini) -> None:
    """Make the centre frame with a stock SDXL graph, key frames with PIA, frames between them with SparseCtrl."""
    graph.column("1. Any SDXL graph")
    sdxl = graph.add("CheckpointLoaderSimple", "Load SDXL", ckpt_name="sd_xl_base_1.0.safetensors")
    text = "a red fox standing in fresh snow, pine forest, soft morning light, photo"
    positive = graph.add("CLIPTextEncode", "Prompt", text=text, clip=sdxl[1])
    negative = graph.add("CLIPTextEncode", "Negative prompt", text="text, frame", clip=sdxl[1])
    empty = graph.add("EmptyLatentImage", width=1024, height=1024, batch_size=1)
    drawn = graph.add("KSampler", "Picture", model=sdxl[0], positive=positive[0], negative=negative[0],
                      latent_image=empty[0], seed=1, **KARRAS, cfg=6.0)  # fmt: skip
    pixels = graph.add("VAEDecode", "Picture", samples=drawn[0], vae=sdxl[2])
    graph.column("2. Centre frame, motion prompt")
    loaded, words = _sd15(graph, "a red fox in fresh snow, turning its head, wind in its fur")
    centre = graph.add(
        "MicroCinemaCentreFrame", "Centre frame", image=pixels[0], vae=loaded[2], width=512, height=512
    )
    graph.add("PreviewImage", images=centre[1])
    graph.column("3. 16 key frames at 8 fps")
    pia = graph.add("MicroCinemaMotionLoader", "Load PIA", model=loaded[0], motion_file=PIA)
    keys = _sampled(graph, "Key frames", pia, words, centre_frame=centre[0])
    graph.column("4. 76 frames at 40 fps")
    sparse = _sparsectrl(graph, loaded[0])
    between = graph.add("MicroCinemaTSR", "Interpolation", key_frames=keys[0], fps=keys[1], model=sparse[0],
                        appearnet=sparse[1], positive=words[0], negative=words[1], seed=1)  # fmt: skip
    frames = graph.add("VAEDecode", "Frames", samples=between[0], vae=loaded[2])
    clip(graph, frames[0], between[1], colour_anchor=centre[1], colour_strength=0.5)


def _sd15(graph: Graph, text: str) -> tuple[Node, tuple[Out, Out]]:
    """Add Stable Diffusion 1.5 and the prompts."""
    loaded = graph.add("CheckpointLoaderSimple", "Load Stable Diffusion 1.5", ckpt_name=SD15)
    return loaded, prompts(graph, loaded[1], text, negative="blurry, distorted, text")


def _sparsectrl(graph: Graph, model: Out) -> Node:
    """Add AnimateDiff version 3 with SparseCtrl: outputs MODEL and APPEARNET."""
    return graph.add("MicroCinemaMotionLoader", "Load AnimateDiff and SparseCtrl", model=model, motion_file=MOTION,
                     appearance_file=SPARSECTRL)  # fmt: skip


def _sampled(graph: Graph, title: str, loaded: Node, words: tuple[Out, Out], **given: Any) -> Node:
    """Add the sampler of the MODEL and APPEARNET that a motion loader gives: outputs latent and fps."""
    sockets = {"model": loaded[0], "appearnet": loaded[1], "positive": words[0], "negative": words[1]}
    return graph.add("MicroCinemaSampler", title, **sockets, **given)


def picture_to_video(graph: Graph, mini: Mini) -> None:
    """Animate the user's picture with PIA."""
    graph.column("1. Checkpoint and prompt")
    loaded, words = _sd15(graph, "a red fox in fresh snow, turning its head, wind in its fur")
    graph.column("2. Your picture")
    centre = picture(graph, loaded[2], width=512, height=512)
    graph.column("3. 16 frames at 8 fps")
    pia = graph.add("MicroCinemaMotionLoader", "Load PIA", model=loaded[0], motion_file=PIA)
    made = _sampled(graph, "Frames", pia, words, centre_frame=centre[0])
    frames = graph.add("VAEDecode", "Frames", samples=made[0], vae=loaded[2])
    clip(graph, frames[0], made[1])


def first_and_last_frame(graph: Graph, mini: Mini) -> None:
    """Make the video between two pictures with SparseCtrl."""
    graph.column("1. Checkpoint and prompt")
    loaded, words = _sd15(graph, "a landscape, clouds moving, the light changing")
    graph.column("2. First and last frame")
    ends = []
    for title in ("First", "Last"):
        given = graph.add("LoadImage", f"{title} picture", image="example.png")
        ends.append(graph.add("MicroCinemaCentreFrame", f"{title} frame", image=given[0], vae=loaded[2], width=512,
                              height=512))  # fmt: skip
    graph.column("3. 16 frames at 8 fps")
    sparse = _sparsectrl(graph, loaded[0])
    made = _sampled(
        graph, "Frames", sparse, words, centre_frame=ends[0][0], anchor="first", last_frame=ends[1][0]
    )
    frames = graph.add("VAEDecode", "Frames", samples=made[0], vae=loaded[2])
    clip(graph, frames[0], made[1])


def text_to_video_animatediff(graph: Graph, mini: Mini) -> None:
    """Make a video from text alone with AnimateDiff, sampled by the stock KSampler."""
    graph.column("1. Checkpoint and prompt")
    loaded, words = _sd15(graph, "a sailing boat on a calm lake at sunset, ripples on the water")
    graph.column("2. 16 frames at 8 fps")
    moving = graph.add("MicroCinemaMotionLoader", "Load AnimateDiff", model=loaded[0], motion_file=MOTION)
    pixels = _animated(graph, moving[0], words, loaded[2])
    clip(graph, pixels[0], None, fps_value=8.0)


def _animated(graph: Graph, model: Out, words: tuple[Out, Out], vae: Out) -> Node:
    """Add an empty latent of 16 frames, KSampler with the settings of AnimateDiff's authors, and the decoder."""
    empty = graph.add("EmptyLatentImage", "16 empty latents", width=512, height=512, batch_size=16)
    made = graph.add("KSampler", "Frames", model=model, positive=words[0], negative=words[1], latent_image=empty[0],
                     seed=0, steps=25, cfg=8.0, sampler_name="euler", scheduler="ddim_uniform")  # fmt: skip
    return graph.add("VAEDecode", "Frames", samples=made[0], vae=vae)


def sd15_lora_controlnet_to_video(graph: Graph, mini: Mini) -> None:
    """Make a video in a LoRA's style that follows the edges of another video."""
    graph.column("1. Checkpoint, style and prompt")
    loaded = graph.add("CheckpointLoaderSimple", "Load Stable Diffusion 1.5", ckpt_name=SD15)
    styled = graph.add("LoraLoader", "Style LoRA", model=loaded[0], clip=loaded[1], lora_name="MoXinV1.safetensors",
                       strength_model=0.8, strength_clip=0.8)  # fmt: skip
    words = prompts(graph, styled[1], "shuimobysim, a horse running, ink painting", negative="text, frame")
    graph.column("2. Motion of a video")
    guided, parts = _edges(graph, words, 16)
    graph.column("3. 16 frames")
    moving = graph.add("MicroCinemaMotionLoader", "Load AnimateDiff", model=styled[0], motion_file=MOTION)
    pixels = _animated(graph, moving[0], (guided[0], guided[1]), loaded[2])
    clip(graph, pixels[0], parts[2])


def _edges(graph: Graph, words: tuple[Out, Out], count: int) -> tuple[Node, Node]:
    """Add a ControlNet with the edges of a video's first frames; return it and the video's parts."""
    film = graph.add("LoadVideo", "Motion video", file="motion.mp4")
    parts = graph.add("GetVideoComponents", video=film[0])
    frames = graph.add("ImageFromBatch", f"First {count} frames", image=parts[0], batch_index=0, length=count)
    sized = graph.add(
        "ImageScale", image=frames[0], upscale_method="area", width=512, height=512, crop="center"
    )
    edges = graph.add("Canny", "Edge map per frame", image=sized[0], low_threshold=0.2, high_threshold=0.5)
    net = graph.add("ControlNetLoader", control_net_name="control_v11p_sd15_canny_fp16.safetensors")
    guided = graph.add("ControlNetApplyAdvanced", positive=words[0], negative=words[1], control_net=net[0],
                       image=edges[0], strength=0.9, start_percent=0.0, end_percent=0.8)  # fmt: skip
    return guided, parts


def sd15_inflated_image_to_video(graph: Graph, mini: Mini) -> None:
    """Inflate Stable Diffusion 1.5 to a video model, before training."""
    loaded, words = stable_diffusion(graph, SD15, "a red fox running through snow")
    graph.column("2. Centre frame")
    centre = picture(graph, loaded[2], width=320, height=320)
    graph.column("3. Key frames")
    inflated = graph.add("MicroCinemaInflate", "Inflate", file=SD15)
    keys = graph.add("MicroCinemaSampler", "Key frames", model=inflated[0], appearnet=inflated[1], positive=words[0],
                     negative=words[1], centre_frame=centre[0], **KARRAS, cfg=7.5)  # fmt: skip
    graph.column("4. Clip")
    pixels = graph.add("VAEDecode", "Frames", samples=keys[0], vae=loaded[2])
    clip(graph, pixels[0], keys[1], column=False)


def img2img_centre_frame_mini(graph: Graph, mini: Mini) -> None:
    """Repaint a picture (image to image) before it becomes the centre frame."""
    graph.column("1. Prompt")
    image = load_mini(graph, "image", "Load the image model")
    words = prompts(graph, image[1], "a happy face laughing")
    graph.column("2. Image to image")
    given = graph.add("LoadImage", "Your picture", image="example.png")
    fitted = graph.add("MicroCinemaCentreFrame", "Fit to the model", image=given[0], vae=image[2])
    painted = graph.add("KSampler", "Repaint", model=image[0], positive=words[0], negative=words[1],
                        latent_image=fitted[0], denoise=0.5, **mini.image)  # fmt: skip
    pixels = graph.add("VAEDecode", "Decoded centre frame", samples=painted[0], vae=image[2])
    graph.add("PreviewImage", images=pixels[0])
    keys = base_model(graph, mini, words, painted[0])
    frames, fps = interpolated(graph, mini, words, keys[0], keys[1], image[2])
    clip(graph, frames, fps, colour_anchor=pixels[0])


def _stock_sampler(
    graph: Graph, model: Out, appearnet: Out, words: tuple[Out, Out], centre: Out, vae: Out, size: int
) -> Node:
    """Add Apply AppearNet, an empty latent of nine frames, KSampler, and the decoder."""
    applied = graph.add("MicroCinemaApplyAppearNet", model=model, appearnet=appearnet, centre_frame=centre)
    empty = graph.add("EmptyLatentImage", "Nine empty latents", width=size, height=size, batch_size=9)
    keys = graph.add("KSampler", "Key frames", model=applied[0], positive=words[0], negative=words[1],
                     latent_image=empty[0], seed=0, **KARRAS, cfg=7.5)  # fmt: skip
    return graph.add("VAEDecode", "Frames", samples=keys[0], vae=vae)


def sd15_controlnet_motion(graph: Graph, mini: Mini) -> None:
    """Steer the motion with a ControlNet: one hint per frame, the edges of a video."""
    loaded, words = stable_diffusion(graph, SD15, "a red fox running through snow")
    graph.column("2. Motion")
    guided, parts = _edges(graph, words, 9)
    graph.column("3. Centre frame")
    centre = picture(graph, loaded[2], width=512, height=512)
    graph.column("4. Key frames")
    inflated = graph.add("MicroCinemaInflate", "Inflate", file=SD15)
    both = (guided[0], guided[1])
    pixels = _stock_sampler(graph, inflated[0], inflated[1], both, centre[0], loaded[2], 512)
    clip(graph, pixels[0], parts[2])


def sd15_lora(graph: Graph, mini: Mini) -> None:
    """Apply a LoRA of the image model to the video model."""
    graph.column("1. Prompt and style")
    loaded = graph.add("CheckpointLoaderSimple", "Load text encoder and VAE", ckpt_name=SD15)
    inflated = graph.add("MicroCinemaInflate", "Inflate", file=SD15)
    styled = graph.add("LoraLoader", "Style LoRA", model=inflated[0], clip=loaded[1], lora_name="MoXinV1.safetensors",
                       strength_model=0.8, strength_clip=0.8)  # fmt: skip
    words = prompts(graph, styled[1], "shuimobysim, a bird over mountains, ink painting")
    graph.column("2. Centre frame")
    centre = picture(graph, loaded[2], width=320, height=320)
    graph.column("3. Key frames")
    pixels = _stock_sampler(graph, styled[0], inflated[1], words, centre[0], loaded[2], 320)
    clip(graph, pixels[0], None)


def long_video_mini(graph: Graph, mini: Mini) -> None:
    """Start each further clip from the last frame of the previous one, and interpolate all together."""
    graph.column("1. Prompt")
    image = load_mini(graph, "image", "Load text encoder and VAE")
    words = prompts(graph, image[1], "a happy face laughing")
    graph.column("2. Centre frame")
    centre = picture(graph, image[2])
    graph.column("3. First nine key frames")
    base = load_mini(graph, "base", "Load the video model")
    keys = graph.add("MicroCinemaSampler", "Key frames", **_base_inputs(base, words, centre[0], mini))
    joined: Out = keys[0]
    for number in (2, 3):
        graph.column(f"{number + 2}. Four more key frames")
        last = graph.add("LatentFromBatch", "Last frame", samples=keys[0], batch_index=8, length=1)
        keys = graph.add(
            "MicroCinemaSampler", "Next key frames", **_base_inputs(base, words, last[0], mini, seed=number)
        )
        after = graph.add("LatentFromBatch", "Four new frames", samples=keys[0], batch_index=5, length=4)
        joined = graph.add("LatentBatch", "Joined", samples1=joined, samples2=after[0])[0]
    frames, fps = interpolated(graph, mini, words, joined, keys[1], image[2], rounds=1)
    clip(graph, frames, fps, colour_anchor=centre[1], colour_strength=0.5)


def _base_inputs(
    base: Node, words: tuple[Out, Out], centre: Out, mini: Mini, **changes: Any
) -> Mapping[str, Any]:
    sockets = {"model": base[0], "appearnet": base[3], "positive": words[0], "negative": words[1]}
    return {**mini.base, **sockets, "centre_frame": centre, **changes}


def upscaled_video_mini(graph: Graph, mini: Mini) -> None:
    """Upscale the frames with the host's upscaler before they are combined."""
    graph.column("1. Prompt")
    image = load_mini(graph, "image", "Load text encoder and VAE")
    words = prompts(graph, image[1], "a happy face laughing")
    graph.column("2. Centre frame")
    centre = picture(graph, image[2])
    keys = base_model(graph, mini, words, centre[0])
    frames, fps = interpolated(graph, mini, words, keys[0], keys[1], image[2], rounds=1)
    graph.column("5. Upscale 4x")
    upscaler = graph.add("UpscaleModelLoader", model_name="RealESRGAN_x4plus.safetensors")
    large = graph.add("ImageUpscaleWithModel", upscale_model=upscaler[0], image=frames)
    clip(graph, large[0], fps)


def svd_noise_prior(graph: Graph, mini: Mini) -> None:
    """Apply the noise prior to another video model."""
    graph.column("1. Stable Video Diffusion")
    loaded = graph.add("ImageOnlyCheckpointLoader", "Load SVD", ckpt_name="svd.safetensors")
    graph.column("2. Your picture")
    centre = picture(graph, loaded[2], width=1024, height=576)
    graph.column("3. Frames")
    both = graph.add("SVD_img2vid_Conditioning", clip_vision=loaded[1], init_image=centre[1], vae=loaded[2], width=1024,
                     height=576, video_frames=14, motion_bucket_id=127, fps=6, augmentation_level=0.0)  # fmt: skip
    prior = graph.add("MicroCinemaNoisePrior", model=loaded[0], gamma=0.02, centre_frame=centre[0])
    guided = graph.add("VideoLinearCFGGuidance", model=prior[0], min_cfg=1.0)
    keys = graph.add("KSampler", "Frames", model=guided[0], positive=both[0], negative=both[1], latent_image=both[2],
                     seed=0, steps=20, cfg=2.5, sampler_name="euler", scheduler="karras")  # fmt: skip
    pixels = graph.add("VAEDecode", samples=keys[0], vae=loaded[2])
    clip(graph, pixels[0], None, fps_value=6.0)


RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (
        sdxl_to_video,
        picture_to_video,
        first_and_last_frame,
        text_to_video_animatediff,
        sd15_lora_controlnet_to_video,
        sd15_inflated_image_to_video,
        img2img_centre_frame_mini,
        sd15_controlnet_motion,
        sd15_lora,
        long_video_mini,
        upscaled_video_mini,
        svd_noise_prior,
    )
}
