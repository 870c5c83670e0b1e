"""The notes shown beside the workflows that have a recipe."""

from __future__ import annotations

NOTES = {
    "sdxl_to_video": """## SDXL picture to video

The graph on the left is a stock SDXL graph. Replace it with **your own**: any graph that ends in a picture (LoRAs,
refiners, Flux, anything) can be connected to *Centre frame*. PIA then makes 16 frames around that picture, and
AnimateDiff with SparseCtrl adds frames between them: 76 frames at 40 fps.

Needs these files (docs/models.md of the pack has their addresses):

- `models/checkpoints`: `sd_xl_base_1.0.safetensors` and `v1-5-pruned-emaonly-fp16.safetensors`, or other checkpoints of
SDXL and Stable Diffusion 1.5.
- `models/animatediff_models`: `diffusion_pytorch_model.fp16.safetensors` (PIA) and `mm_sd15_v3.safetensors`.
- `models/controlnet`: `mm_sd15_v3_sparsectrl_rgb.safetensors`.

Good to know:

- There are two prompts: the left one describes the picture, the right one the picture **and how it moves**.
- `motion` in *Key frames* sets how much moves.
- Stable Diffusion 1.5 moves pictures best that it could have drawn itself. If yours falls apart, repaint it first:
*VAE Encode*, then *KSampler* with Stable Diffusion 1.5 and a `denoise` of 0.3 to 0.5.
- If colours flash at the key frames, set `end_percent` in *Interpolation* to 0.6. `colour_strength` in *Clip* pulls all
frames to the colours of your picture.
- A quick look: set *Interpolation* to bypass (Ctrl+B) to see the 16 key frames.""",
    "picture_to_video": """## Your picture to video

PIA makes 16 frames around your picture. By default it becomes the centre frame; `anchor` in *Frames* makes it the first
or the last.

Needs these files (docs/models.md of the pack has their addresses):

- `models/checkpoints`: `v1-5-pruned-emaonly-fp16.safetensors`, or another checkpoint of Stable Diffusion 1.5.
- `models/animatediff_models`: `diffusion_pytorch_model.fp16.safetensors` (PIA).

Good to know:

- Choose your picture, and describe in the prompt what it shows **and how it moves**.
- `motion` in *Frames* sets how much moves.
- Stable Diffusion 1.5 moves pictures best that it could have drawn itself, so a checkpoint in the style of your picture
helps.
- For a longer video, add the blueprint *MicroCinema Longer Video*; for more frames a second, see `sdxl_to_video`.""",
    "first_and_last_frame": """## The video between two pictures

Your two pictures become the first and the last of 16 frames. AnimateDiff with SparseCtrl makes the frames between them.

Needs these files (docs/models.md of the pack has their addresses):

- `models/checkpoints`: `v1-5-pruned-emaonly-fp16.safetensors`, or another checkpoint of Stable Diffusion 1.5.
- `models/animatediff_models`: `mm_sd15_v3.safetensors`.
- `models/controlnet`: `mm_sd15_v3_sparsectrl_rgb.safetensors`.

Choose two pictures of the same scene in *First picture* and *Last picture*, and describe both in the prompt. With one
picture, disconnect `last_frame`. `anchor` says which frame the first picture becomes.

For more frames, put *MicroCinema TSR* after *Frames*: each round multiplies the frame rate by 5.""",
    "text_to_video_animatediff": """## Text to video with AnimateDiff

*MicroCinema Motion Loader* turns a Stable Diffusion 1.5 MODEL into a video MODEL. A batch of 16 empty latents is one
video of 16 frames, and the sampler is the stock *KSampler*.

Needs these files (docs/models.md of the pack has their addresses):

- `models/checkpoints`: `v1-5-pruned-emaonly-fp16.safetensors`, or another checkpoint of Stable Diffusion 1.5.
- `models/animatediff_models`: `mm_sd15_v3.safetensors`. With version 2, `motion_lora` adds a camera movement.

The settings are those of AnimateDiff's authors. More than 16 frames get worse, and more than 32 are refused.""",
    "sd15_lora_controlnet_to_video": """## LoRA and ControlNet on a video

The MODEL goes through *Load LoRA* and then through *MicroCinema Motion Loader*: the video has the LoRA's style. A
ControlNet with **one hint per frame** makes it follow another video.

Needs these files (docs/models.md of the pack has their addresses):

- `models/checkpoints`: `v1-5-pruned-emaonly-fp16.safetensors`, or another checkpoint of Stable Diffusion 1.5.
- `models/animatediff_models`: `mm_sd15_v3.safetensors`.
- `models/loras`: `MoXinV1.safetensors`, or another LoRA for Stable Diffusion 1.5.
- `models/controlnet`: `control_v11p_sd15_canny_fp16.safetensors`.
- **A motion video of your own** in *Motion video*, with 16 frames or more. None ships with this workflow; `motion.mp4`
is a placeholder for a file in ComfyUI's `input` folder.

*Canny* extracts the edges. Depth and pose work in the same way, each with its own ControlNet. There must be as many
hints (*First 16 frames*) as latents (*16 empty latents*).""",
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
- There must be as many hints (*First 9 frames*) as latents (*Nine empty latents*). To change the
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
