"""The notes shown beside the workflows that have a recipe."""

from __future__ import annotations

NOTES = {
    "sdxl_to_video": """## SDXL picture to video

The graph on the left is a stock SDXL graph. Replace it with **your own**: any graph that ends in a picture (LoRAs,
refiners, Flux, anything) can be connected to *Centre frame*. The picture is resized for the video model and encoded
with its VAE.

- Needs `sd_xl_base_1.0.safetensors` in `models/checkpoints`, or choose another checkpoint.
- The video models are the **mini** models that ship with MicroCinema. They work at 128 x 128 pixels and are made for
drawings in the style of animated emoji. With files that you trained yourself the graph is the same, at a larger size.
- There are two prompts: the left one describes the picture, the right one describes **how it moves**.""",
    "sd15_inflated_image_to_video": """## Stable Diffusion 1.5 as a video model

*MicroCinema Inflate* turns a Stable Diffusion 1.5 checkpoint into a MicroCinema U-Net and an AppearNet. It keeps every
spatial weight and initialises every temporal layer as identity.

**Until it is trained, it is still the image model**: it makes nine pictures of one prompt, without motion between them.
Use this graph as the starting point for training (see docs/training.md in the pack). It also shows that inflation
preserves the checkpoint.

Needs `v1-5-pruned-emaonly-fp16.safetensors` in `models/checkpoints`. You can choose another 1.5 file, but choose **the
same one in both nodes**.""",
    "img2img_centre_frame_mini": """## Image to image, then to video

The image model repaints your picture before it becomes the **centre frame**. `denoise` in *Repaint* sets how much
changes: 0.3 keeps the picture nearly as it is, 0.8 keeps only its layout and colours.

All models used here ship with MicroCinema. The centre frame is passed on as a latent, not as pixels.""",
    "sd15_controlnet_motion": """## Motion from ControlNet

A ControlNet with **one hint per frame** fixes the layout of every frame. Here the hints are the edges of a video, which
steer the motion. This works even with a model that was never trained on videos.

- **Choose a motion video of your own** in *Motion video*, with nine frames or more. None ships with this workflow;
`motion.mp4` is a placeholder for a file in ComfyUI's `input` folder.
- *Canny* extracts the edges. Depth and pose work in the same way, each with its own ControlNet.
- Needs `v1-5-pruned-emaonly-fp16.safetensors` in `models/checkpoints` and
`control_v11p_sd15_canny_fp16.safetensors` in `models/controlnet`.
- There must be as many hints (*First nine frames*) as latents (*Nine empty latents*). To change the
length, set both.""",
    "sd15_lora": """## A LoRA on a video model

The U-Net keeps Stable Diffusion's own key names, so LoRAs load with the stock *Load LoRA* node. LoRAs trained on
MicroCinema's temporal layers load in the same way.

- Needs `v1-5-pruned-emaonly-fp16.safetensors` in `models/checkpoints` and `MoXinV1.safetensors` in `models/loras`. You
can choose other files, both for Stable Diffusion 1.5.
- The sampler is the stock *KSampler*. *Apply AppearNet* gives it the centre frame, and a batch of nine latents is one
video of nine frames.""",
    "long_video_mini": """## A longer video

Nine key frames last four and a half seconds. Each further part takes the **last** frame of the part before as its
centre frame. Only the four key frames after that centre frame are added, so no frame is shown twice.

The joined key frames (9 + 4 + 4) are interpolated together, so there are no seams: 65 frames at 8 fps. To make the
video longer, copy a column and give it another `seed`.

Errors accumulate along such a chain. In *Clip*, `colour_strength` pulls the colours half way back to the centre frame.
The report states how far they had drifted.""",
    "upscaled_video_mini": """## Upscale 4x

*Upscale Image (using Model)* is a stock node of ComfyUI. It upscales the frames of a video like any other pictures.

- Needs an upscaler in `models/upscale_models`: `RealESRGAN_x4plus.safetensors`, or choose another. For drawings,
realesr-animevideov3 is faster and more stable.
- Upscale before *Clip*, so that the video is made from the large frames.""",
    "svd_noise_prior": """## The noise prior on another video model

*MicroCinema Noise Prior* adds a small share of your picture (`gamma`) to the starting noise of **Stable Video
Diffusion**, or of any other model that starts from noise. These models were not trained with it, so this is an
experiment. Compare with a `gamma` of 0, which changes nothing.

Leave `lambda` at -1; it only applies to weights that were trained with the noise prior.

Needs `svd.safetensors` in `models/checkpoints`.""",
}
