"""Recipes of the workflows before and after training from Stable Diffusion, and of the noise prior elsewhere."""

from __future__ import annotations

from .graph import Graph, Node, Out
from .parts import (
    EXAMPLE,
    EXAMPLE_MOVING,
    KARRAS,
    SD15,
    Words,
    between,
    decoded_video,
    key_frames,
    picture,
    prompts,
    video,
)
from .published import guided, hints, with_lora

SD21 = "v2-1_512-ema-pruned.safetensors"
SIDE = 320
CFG = 7.5
TRAINED = {"frames": 9, **KARRAS, "cfg": CFG, "gamma": 0.02}


def trained(graph: Graph) -> None:
    """Animate a picture with the two files that training writes."""
    loaded, given, words = _start(graph, SD21)
    base, tsr = (
        graph.add("MicroCinemaCheckpointLoader", file=f"sd21_{role}.safetensors", role=role)
        for role in ("base", "tsr")
    )
    centre = picture(graph, loaded[2], given=given, side=SIDE)
    graph.column("Key frames")
    keys = key_frames(graph, base, words, centre[0], **TRAINED)
    graph.column("Frames between")
    made = between(graph, tsr, words, keys, **KARRAS, cfg=CFG, gamma=0.02, rounds=2)
    decoded_video(graph, made, loaded[2])


def _start(graph: Graph, file: str) -> tuple[Node, Node, Words]:
    """Add checkpoint, picture and prompts; return the loader, the picture and the prompts."""
    graph.column("Picture")
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=file)
    given = graph.add("LoadImage", image=EXAMPLE)
    graph.column("Prompt and models")
    return loaded, given, prompts(graph, loaded[1], EXAMPLE_MOVING)


def _inflated(graph: Graph, file: str) -> None:
    loaded, given, words = _start(graph, file)
    inflated = graph.add("MicroCinemaInflate", file=file)
    centre = picture(graph, loaded[2], given=given, side=SIDE)
    graph.column("Frames")
    made = key_frames(graph, inflated, words, centre[0], **TRAINED)
    decoded_video(graph, made, loaded[2])


def inflated_sd15(graph: Graph) -> None:
    """Inflate Stable Diffusion 1.5 to a video model, before training."""
    _inflated(graph, SD15)


def inflated_sd21(graph: Graph) -> None:
    """Inflate Stable Diffusion 2.1 to a video model, before training."""
    _inflated(graph, SD21)


def lora(graph: Graph) -> None:
    """Apply a LoRA of the image model to the video model."""
    graph.column("Picture")
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=SD15)
    given = graph.add("LoadImage", image=EXAMPLE)
    graph.column("Models")
    inflated = graph.add("MicroCinemaInflate", file=SD15)
    styled = with_lora(graph, inflated[0], loaded[1])
    centre = picture(graph, loaded[2], given=given, side=SIDE)
    graph.column("Prompt and frames")
    words = prompts(graph, styled[1], "shuimobysim, a bird over mountains, ink painting")
    made = _stock_sampler(graph, styled[0], inflated[1], words, centre[0], SIDE)
    _plain_video(graph, made, loaded[2], 2.0)


def _stock_sampler(graph: Graph, model: Out, appearnet: Out, words: Words, centre: Out, side: int) -> Node:
    """Add Apply AppearNet, an empty latent of nine frames, and KSampler."""
    applied = graph.add("MicroCinemaApplyAppearNet", model=model, appearnet=appearnet, centre_frame=centre)
    empty = graph.add("EmptyLatentImage", "9 frames", width=side, height=side, batch_size=9)
    return graph.add("KSampler", model=applied[0], positive=words[0], negative=words[1], latent_image=empty[0],
                     **KARRAS, cfg=CFG)  # fmt: skip


def _plain_video(graph: Graph, made: Node, vae: Out, fps: Out | float) -> None:
    """Add a column that decodes a stock sampler's frames and makes a video of them."""
    graph.column("Video")
    frames = graph.add("VAEDecode", samples=made[0], vae=vae)
    video(graph, frames[0], fps)


def controlnet(graph: Graph) -> None:
    """Steer the motion with a ControlNet: one hint per frame, the edges of a video."""
    graph.column("Picture and motion")
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=SD15)
    given = graph.add("LoadImage", image=EXAMPLE)
    film = graph.add("LoadVideo", file="motion.mp4")
    graph.column("Prompt and hints")
    words = prompts(graph, loaded[1], EXAMPLE_MOVING)
    edges, parts = hints(graph, film, 9)
    graph.column("Models")
    inflated = graph.add("MicroCinemaInflate", file=SD15)
    words = guided(graph, words, edges)
    centre = picture(graph, loaded[2], given=given, side=512)
    graph.column("Frames")
    made = _stock_sampler(graph, inflated[0], inflated[1], words, centre[0], 512)
    _plain_video(graph, made, loaded[2], parts[2])


def svd_noise_prior(graph: Graph) -> None:
    """Apply the noise prior to another video model."""
    graph.column("Picture")
    loaded = graph.add("ImageOnlyCheckpointLoader", ckpt_name="svd.safetensors")
    given = graph.add("LoadImage", image=EXAMPLE)
    graph.column("Noise prior")
    centre = graph.add("MicroCinemaCentreFrame", image=given[0], vae=loaded[2], width=1024, height=576)
    prior = graph.add("MicroCinemaNoisePrior", model=loaded[0], gamma=0.02, centre_frame=centre[0])
    guided = graph.add("VideoLinearCFGGuidance", model=prior[0], min_cfg=1.0)
    both = graph.add("SVD_img2vid_Conditioning", clip_vision=loaded[1], init_image=centre[1], vae=loaded[2], width=1024,
                     height=576, video_frames=14, motion_bucket_id=127, fps=6, augmentation_level=0.0)  # fmt: skip
    graph.column("Frames")
    made = graph.add("KSampler", model=guided[0], positive=both[0], negative=both[1], latent_image=both[2],
                     steps=20, cfg=2.5, sampler_name="euler", scheduler="karras")  # fmt: skip
    _plain_video(graph, made, loaded[2], 6.0)


def wan_noise_prior(graph: Graph) -> None:
    """Apply the noise prior to Wan, in the host's own graph of text to video."""
    size = {"width": 832, "height": 480}
    graph.column("Models")
    loaded = graph.add("UNETLoader", unet_name="wan2.1_t2v_1.3B_fp16.safetensors")
    encoder = graph.add("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan")
    vae = graph.add("VAELoader", vae_name="wan_2.1_vae.safetensors")
    given = graph.add("LoadImage", image=EXAMPLE)
    graph.column("Prompt and centre frame")
    words = prompts(graph, encoder[0], EXAMPLE_MOVING,
                    "overexposed, static, blurry, subtitles, low quality, deformed")  # fmt: skip
    centre = graph.add("MicroCinemaCentreFrame", image=given[0], vae=vae[0], **size)
    graph.column("Noise prior and frames")
    shifted = graph.add("ModelSamplingSD3", model=loaded[0], shift=8.0)
    prior = graph.add("MicroCinemaNoisePrior", model=shifted[0], gamma=0.05, centre_frame=centre[0])
    empty = graph.add("EmptyHunyuanLatentVideo", **size, length=33, batch_size=1)
    made = graph.add("KSampler", model=prior[0], positive=words[0], negative=words[1], latent_image=empty[0],
                     steps=30, cfg=6.0, sampler_name="uni_pc", scheduler="simple")  # fmt: skip
    _plain_video(graph, made, vae[0], 16.0)
