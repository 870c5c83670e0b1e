"""The notes beside the workflows."""

from __future__ import annotations

MOTIONS = """**Six motions** work for any subject: *moving left*, *moving right*, *rising*, *sinking*,
*coming closer*, *going away*. Put one into the prompt; without one, subjects move little."""
SD15_FILE = """- **models/checkpoints**: **v1-5-pruned-emaonly-fp16.safetensors**, or another checkpoint of Stable
Diffusion 1.5."""
PIA_FILE = "- **models/animatediff_models**: **diffusion_pytorch_model.fp16.safetensors** (PIA)."
ANIMATEDIFF_FILE = "- **models/animatediff_models**: **mm_sd15_v3.safetensors** (AnimateDiff 3)."
SPARSECTRL_FILE = "- **models/controlnet**: **mm_sd15_v3_sparsectrl_rgb.safetensors** (SparseCtrl)."
NEEDS = "**Needs these files.** ComfyUI offers to download them; docs/models.md in the pack says more."
SD21_FITS = """**What fits.** **v2-1_512-ema-pruned.safetensors** is the 512-pixel checkpoint (2.1-base), which
predicts noise as the paper's model does. The 768-pixel checkpoint works too. LoRAs and ControlNets have to be made
for Stable Diffusion 2.x; those for 1.5 or SDXL do not fit. We no longer know an official address for these
checkpoints."""

PICTURE_TO_VIDEO_MINI = f"""## Your picture to video

1. Choose your picture in *Load Image*. It becomes the **centre frame**: frame 5 of 9.
2. Say in the green prompt what it shows **and how it moves**.
3. Press **Run**. It takes a minute or two.

{MOTIONS}

**What to expect.** The mini models ship with the pack and are toys: 128 x 128 pixels, trained on animated emoji.
Drawings on a plain background work best; photographs move little and come out softer.

- Another motion, another look: change the **seed** of *MicroCinema Sampler*.
- Faster: set **rounds** of *MicroCinema Interpolate Frames* to 1 for 33 frames in place of 129.
- **fit** says what happens to a picture that is not square: *crop*, *pad* or *stretch*.
- Fewer nodes: the blueprint *MicroCinema Picture to Video*."""

TEXT_TO_VIDEO_MINI = f"""## Text to video

Press **Run**; it takes a minute or two on a CPU. The mini models ship with the pack and know **animated emoji** at
128 x 128 pixels: flags, faces and simple objects come out well, animals and people lose detail.

Describe what is seen, how it moves, and on which background: *a red heart coming closer on a white background*.

{MOTIONS}

- *KSampler* makes the **centre frame**, which sets the appearance of the video. If you do not like it, change its
**seed** first.
- *MicroCinema Sampler* makes nine key frames around it, at 2 fps.
- *MicroCinema Interpolate Frames* adds three new frames between every two, twice. Set **rounds** to 1 for a faster
run."""

REPAINTED_PICTURE_MINI = f"""## A picture, repainted, then to video

*KSampler* repaints your picture before it becomes the **centre frame**. **denoise** sets how much changes: 0.3
keeps the picture nearly as it is, 0.8 keeps only its layout and colours.

Say in the green prompt what the picture should become, and how it moves.

{MOTIONS}

All models ship with the pack. The repainted picture is passed on as a latent; the second *MicroCinema Centre Frame*
only shows it, and gives its colours to *MicroCinema Video Combine*: **colour_strength** pulls the video to them."""

LONGER_VIDEO_MINI = f"""## A longer video

Part 2 starts from the **last** frame of part 1 and adds the four frames after it. The 9 + 4 key frames are interpolated
together, without seams: 49 frames at 8 fps.

{MOTIONS}

- *Going away* can continue for several parts; a subject that moves to one side soon leaves the picture.
- Longer still: copy the column *Part 2*, connect it in the same way, and give it another **seed**.
- Errors add up. **colour_strength** in *MicroCinema Video Combine* pulls the colours back to the centre frame.
- For three parts in three nodes, use the blueprint *MicroCinema Picture to Longer Video*."""

INTERPOLATED_PICTURES_MINI = """## Between two pictures

*MicroCinema Interpolate Frames* adds three new frames between every two frames, twice: 17 frames in place of 2. The
given frames are kept exactly, as latents. They can come from anywhere: two pictures, a video (*Load Video* and *Get
Video Components*), another model.

- Choose two pictures in which the subject is in slightly different places. Pictures that differ a lot are cross-faded
rather than moved. As the workflow opens, both are *example.png*, so that nothing moves; **python3 dev.py serve** has
*example_2.png* for the second.
- Set **fps** to the rate of your frames. One round multiplies it by 4, two rounds by 16.
- For more than two frames, chain *Batch Images*; n frames become 4n - 3 in one round, or 16n - 15 in two. All must have
the same size.
- The mini model was trained at 128 x 128, on frames that are 1/8 to 1/2 second apart."""

UPSCALED_VIDEO_MINI = f"""## Upscale 4x

*Upscale Image (using Model)* is a stock node of ComfyUI. It upscales the frames of a video like any other pictures.

{MOTIONS}

**Needs an upscaler** in **models/upscale_models**. Two fit here:

- **RealESRGAN_x4plus.safetensors**: chosen here; ComfyUI offers to download it. For photographs and drawings.
- **realesr-animevideov3-x4.safetensors**: much faster, and steadier in drawings. In a clone, **python3 dev.py demo
--upscale** puts it into **models/upscale_models** of $MICROCINEMA_HOME (**microcinema** in your cache folder). Copy it
from there, and choose it in *Load Upscale Model*."""

SDXL_TO_VIDEO = f"""## SDXL picture to video

The two columns on the left are a stock SDXL graph. Put **your own** in their place: any graph that ends in a picture
(LoRAs, refiners, Flux, anything) can be connected to *MicroCinema Centre Frame*. PIA makes 16 frames around that
picture, and AnimateDiff with SparseCtrl adds frames between them: 76 frames at 40 fps.

{NEEDS}

- **models/checkpoints**: **sd_xl_base_1.0.safetensors**, or another checkpoint of SDXL.
{SD15_FILE}
{PIA_FILE}
{ANIMATEDIFF_FILE}
{SPARSECTRL_FILE}

- There are two prompts: the left one describes the picture, the right one the picture **and how it moves**.
**motion** in *MicroCinema Sampler* sets how much moves.
- Stable Diffusion 1.5 moves pictures best that it could have drawn itself. If yours falls apart, repaint it first:
*VAE Encode*, then *KSampler* with Stable Diffusion 1.5 and a **denoise** of 0.3 to 0.5.
- If colours flash at the key frames, set **end_percent** in *MicroCinema Interpolate Frames* to 0.6.
**colour_strength** in *MicroCinema Video Combine* pulls the colours of all frames towards those of your picture.
- For a quick look, bypass *MicroCinema Interpolate Frames* (Ctrl+B) to see the 16 key frames."""

PICTURE_TO_VIDEO = f"""## Your picture to video

PIA makes 16 frames around your picture: 2 seconds of 512 x 512 pixels. The picture becomes the centre frame;
**anchor** in *MicroCinema Sampler* makes it the first or the last.

{NEEDS}

{SD15_FILE}
{PIA_FILE}

- Choose your picture, and describe what it shows **and what moves in it**: hair, water, smoke, a turning head.
- **motion** in *MicroCinema Sampler* sets how much moves.
- Stable Diffusion 1.5 moves pictures best that it could have drawn itself, so a checkpoint in the style of your
picture helps.
- For a longer video, add the blueprint *MicroCinema Longer Video*; for more frames a second, see the workflow *21
SDXL picture to video (PIA, SparseCtrl)*."""

FIRST_AND_LAST_FRAME = f"""## The video between two pictures

Your two pictures become the first and the last of 16 frames. AnimateDiff with SparseCtrl makes the frames in between.

{NEEDS}

{SD15_FILE}
{ANIMATEDIFF_FILE}
{SPARSECTRL_FILE}

- Choose two pictures of the same scene, and describe in the prompt both of them and what changes.
- With only one picture, disconnect **last_frame**. **anchor** says which frame the first picture becomes.
- For more frames, put *MicroCinema Interpolate Frames* after *MicroCinema Sampler*: each round multiplies the frame
rate by 5.
- The blueprint *MicroCinema First and Last Frame* does the same in four nodes."""

TEXT_TO_VIDEO_ANIMATEDIFF = f"""## Text to video with AnimateDiff

*MicroCinema Motion Loader* turns a Stable Diffusion 1.5 MODEL into a video MODEL. A batch of 16 empty latents is one
video of 16 frames, and the sampler is the stock *KSampler*.

{NEEDS}

{SD15_FILE}
{ANIMATEDIFF_FILE}

- Say what moves: water, clouds, people walking. With AnimateDiff 2, **motion_lora** adds a camera movement.
- The settings are those of AnimateDiff's authors. Quality drops with more than 16 frames, and more than
32 are refused."""

LORA_AND_CONTROLNET = f"""## LoRA and ControlNet on a video

The MODEL goes through *Load LoRA* and then through *MicroCinema Motion Loader*: the video has the LoRA's style. A
ControlNet with **one hint per frame** makes it follow another video.

{NEEDS}

{SD15_FILE}
{ANIMATEDIFF_FILE}
- **models/loras**: **MoXinV1.safetensors**, or another LoRA for Stable Diffusion 1.5.
- **models/controlnet**: **control_v11p_sd15_canny_fp16.safetensors**.
- **A video of your own** in *Load Video*, with 16 frames or more. None ships with this workflow; **motion.mp4** is a
placeholder for a file in ComfyUI's **input** folder.

*Canny* extracts the edges. Depth and pose work in the same way, each with its own ControlNet. There must be as many
hints (*ImageFromBatch*) as latents (*Empty Latent Image*)."""

TRAINED = f"""## Your trained models

For the two files that training writes (docs/training.md): put **sd21_base.safetensors** and
**sd21_tsr.safetensors** into **models/microcinema**. In *Load Checkpoint*, choose the checkpoint that training
started from; text encoder and VAE come from it.

{SD21_FITS}

- Your picture becomes the **centre frame**: frame 5 of 9. You can put any text-to-image graph in its place.
- Describe what is seen **and how it moves**, in the style of your captions.
- **width** and **height**: the size you trained at. The paper's is 320 x 320.
- **rounds**: 2 makes 129 frames; 1 makes 33 and is four times as fast."""

_INFLATED = """*MicroCinema Inflate* turns a Stable Diffusion checkpoint into a MicroCinema U-Net and an AppearNet.
It keeps every spatial weight and initialises every temporal layer as identity.

**Until it is trained, it is still the image model**: it makes nine pictures of one prompt, without motion between
them. Only the starting noise ties them a little to the centre frame. Use this graph to see the starting point of
training (docs/training.md)."""

INFLATED_SD15 = f"""## Stable Diffusion 1.5 before training

{_INFLATED}

{NEEDS}

{SD15_FILE}

Choose **the same file** in *Load Checkpoint* and in *MicroCinema Inflate*. LoRAs and ControlNets for Stable Diffusion
1.5 fit."""

INFLATED_SD21 = f"""## Stable Diffusion 2.1 before training

{_INFLATED}

Put the checkpoint into **models/checkpoints**, and choose **the same file** in *Load Checkpoint* and in *MicroCinema
Inflate*. The paper's models were trained at 320 x 320 pixels.

{SD21_FITS}"""

LORA = f"""## A LoRA on an inflated model

The U-Net keeps Stable Diffusion's own key names, so LoRAs load with the stock *Load LoRA*. LoRAs trained on
MicroCinema's temporal layers load in the same way.

{NEEDS}

{SD15_FILE}
- **models/loras**: **MoXinV1.safetensors**, or another LoRA for Stable Diffusion 1.5.

The sampler is the stock *KSampler*. *MicroCinema Apply AppearNet* gives it the centre frame, and a batch of nine
latents is one video of nine frames."""

CONTROLNET = f"""## Motion from a ControlNet

A ControlNet with **one hint per frame** fixes the layout of every frame. Here the hints are the edges of a video,
which steer the motion. This works even with a model that was never trained on videos.

{NEEDS}

{SD15_FILE}
- **models/controlnet**: **control_v11p_sd15_canny_fp16.safetensors**.
- **A video of your own** in *Load Video*, with nine frames or more. None ships with this workflow; **motion.mp4** is a
placeholder for a file in ComfyUI's **input** folder.

*Canny* extracts the edges. Depth and pose work in the same way, each with its own ControlNet. There must be as many
hints (*ImageFromBatch*) as latents (*Empty Latent Image*)."""

SVD_NOISE_PRIOR = f"""## The noise prior on another video model

*MicroCinema Noise Prior* adds a small share of your picture (**gamma**) to the starting noise of **Stable Video
Diffusion**, or of any other model that starts from noise. These models were not trained with it, so this is an
experiment. Compare with a **gamma** of 0, which changes nothing.

Leave **lambda** at -1; it only applies to weights that were trained with the noise prior.

{NEEDS}

- **models/checkpoints**: **svd.safetensors**."""
