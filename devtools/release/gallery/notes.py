"""What the note beside each workflow says."""

from __future__ import annotations

NOTES = {
    "sdxl_to_video": """## An SDXL picture comes to life

On the left is a stock SDXL graph. Put **your own** in its place: whatever ends in a picture (LoRAs, refiners, Flux,
anything) goes into *Centre frame*. The picture is fitted to the video model's size and encoded with its VAE.

- Needs `sd_xl_base_1.0.safetensors` in `models/checkpoints`, or choose another.
- The video models here are the **mini** ones that ship with MicroCinema: 128 x 128 pixels, made for drawings in the
style of animated emoji. With your own trained files the graph is the same, only larger.
- Two prompts: the left one says how the picture looks, the right one **how it moves**.""",
    "sd15_inflated_image_to_video": """## Stable Diffusion 1.5 as a video model

*MicroCinema Inflate* makes a MicroCinema U-Net and an AppearNet of a Stable Diffusion 1.5 checkpoint: every spatial
weight is taken over, every temporal layer starts as identity.

**Until it is trained it is the image model**: nine pictures of one text that share no motion. This graph is the
starting point of training (see the pack's docs/training.md), and shows that nothing of the checkpoint was lost.

Needs `v1-5-pruned-emaonly-fp16.safetensors` in `models/checkpoints`, or choose another 1.5 file, **the same in both
nodes**.""",
    "img2img_centre_frame_mini": """## Image to image, then to video

Your picture is painted over by the image model before it becomes the **centre frame**: `denoise` in *Paint over* says
how much. 0.3 keeps it nearly as it is, 0.8 keeps only its layout and colours.

Everything here ships with MicroCinema. The centre frame goes on as a latent; it never passes through pixels.""",
    "sd15_controlnet_motion": """## Motion by ControlNet

A ControlNet that gets **one hint per frame** says what is where in every frame, so the edges of a video steer the
motion, also of a model that was never trained on videos.

- **Choose a motion video of your own** in *Load Video*, of nine frames or more: none comes with this workflow, and
`motion.mp4` is only the name of one that could lie in ComfyUI's `input` folder.
- *Canny* makes edges of it. Depth or pose work the same way with their own ControlNets.
- Needs `v1-5-pruned-emaonly-fp16.safetensors` in `models/checkpoints` and
`control_v11p_sd15_canny_fp16.safetensors` in `models/controlnet`.
- Number of hints, of latents (*Nine frames*) and of frames must agree: change all three.""",
    "sd15_lora": """## A LoRA on a video model

The U-Net keeps Stable Diffusion's own key names, so the stock *Load LoRA* works on it. LoRAs that were trained on
MicroCinema's temporal layers load in the same way.

- Needs `v1-5-pruned-emaonly-fp16.safetensors` in `models/checkpoints` and `MoXinV1.safetensors` in `models/loras`, or
choose yours; both for Stable Diffusion 1.5.
- The sampler is the stock *KSampler*: *Apply AppearNet* gives it the centre frame, and a latent batch of nine is one
video of nine frames.""",
    "long_video_mini": """## A longer video

Nine key frames are four and a half seconds. Each further part starts from the **last** frame of the one before: that is
its centre frame, and the four key frames after the centre are added. Nothing is shown twice.

The joined key frames (9 + 4 + 4) go through one interpolation, which sees no seams: 65 frames at 8 a second. Copy a
column to go on; the `seed` of each part is its own.

Errors add up along such a chain: *Clip* pulls the colours half way back to the centre frame (`colour_strength`), and
its report says how far they had drifted.""",
    "upscaled_video_mini": """## Four times the size

*Upscale Image (using Model)* is ComfyUI's own, and takes the frames of a video as it takes a picture.

- Needs an upscaler in `models/upscale_models`: `RealESRGAN_x4plus.safetensors`, or choose another. For drawings
realesr-animevideov3 is quicker and steadier.
- Put it before *Clip*, so that the clip is made of the large frames.""",
    "svd_noise_prior": """## The noise prior on another video model

*MicroCinema Noise Prior* puts a little of your picture into the starting noise (`gamma`) of **Stable Video Diffusion**,
or of any other model that starts from noise. Those were not trained for it, so it is an experiment: compare with
`gamma` 0, which changes nothing.

Leave `lambda` at -1: only MicroCinema's weights know it.

Needs `svd.safetensors` in `models/checkpoints`.""",
}
