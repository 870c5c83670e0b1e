"""The notes beside the workflows with whole video models, and beside Wan."""

from __future__ import annotations

from .notes import NEEDS

SD21_FILE = """- **models/checkpoints**: **v2-1_512-ema-pruned.safetensors**, or any other checkpoint of Stable
Diffusion 2.1, for its text encoder and VAE. We no longer know an official address for it. OpenCLIP ViT-H
(*Load CLIP*) and a VAE of Stable Diffusion 1.5 or 2.1 (*Load VAE*) can take its place."""
VISION_FILE = "- **models/clip_vision**: **CLIP-ViT-H-fp16.safetensors**."

SDXL_TO_VIDEO_CRAFTER = f"""## SDXL picture to video with DynamiCrafter

The two columns on the left are a stock SDXL graph. Put **your own** in their place, or *Load Image* with a picture of
yours. DynamiCrafter turns it into 16 frames of 512 x 320 pixels. Of the published models, it is the closest to the
paper's design.

{NEEDS}

- **models/checkpoints**: **sd_xl_base_1.0.safetensors**, or another checkpoint of SDXL.
- **models/checkpoints** too: **dynamicrafter_512_fp16_pruned.safetensors** (DynamiCrafter: code Apache-2.0).
{VISION_FILE}
{SD21_FILE}

- The right prompt describes the picture **and how it moves**.
- **motion** in *MicroCinema Sampler* sets how much moves.
- **hold** keeps your picture itself as the frame that **anchor** names; without **hold**, the model chooses where in
the video the picture appears.
- For the 1024 file: choose it, and set 1024 x 576 in *MicroCinema Centre Frame*.
- *RescaleCFG* keeps colours from getting harsh. DynamiCrafter's authors use 0.7."""

INTERPOLATED_DRAWINGS = f"""## The frames between two drawings

ToonCrafter makes 14 frames between two drawings of one scene. The drawings are kept exactly, as latents.

{NEEDS}

- **models/checkpoints**: **tooncrafter_512_interp-pruned-fp16.safetensors** (ToonCrafter: code Apache-2.0).
{VISION_FILE}
{SD21_FILE}

- Choose two drawings with the same figure on the same background, and describe what happens between them.
- For more drawings, chain *Batch Images*: n drawings become 15n - 14 frames.
- **fps** is the rate of your drawings: at 0.5, one every two seconds, the video has 7.5 fps.
- For photographs, choose **dynamicrafter_512_interp_fp16_pruned.safetensors**.
- ToonCrafter's own decoder is not used. It also looks at the drawings and keeps lines sharper than this VAE does."""

TEXT_TO_VIDEO_CRAFTER = f"""## Text to video with VideoCrafter2, ModelScope or ZeroScope

*MicroCinema Crafter Loader* reads their files, and the sampler is the stock *KSampler*. A batch of 16 empty latents is
one video of 16 frames.

**Licences.** VideoCrafter2 is for non-commercial use, ModelScope and ZeroScope are CC-BY-NC-4.0. The loader writes the
licence into ComfyUI's log.

**Needs these files.** ComfyUI cannot offer to download the video models: we know no public address for
any of them as safetensors.

- **models/checkpoints**: **videocrafter2.safetensors**. Its authors publish a .ckpt file, which can run code as it
opens and is refused: save its tensors as safetensors first. Or the U-Net of ModelScope or ZeroScope as safetensors, in
their authors' or in diffusers' layout.
{SD21_FILE}

- VideoCrafter2: 512 x 320, **cfg** 12, as here. ModelScope: 256 x 256, cfg 9. ZeroScope: 576 x 320, cfg 9, 24
frames.
- Say what moves."""

WAN_NOISE_PRIOR = f"""## Wan text to video with a centre frame

The stock text-to-video graph of **Wan 2.1** with one more node: *MicroCinema Noise Prior* adds a small share of your
picture (**gamma**) to the noise that the video starts from. Wan never sees the picture itself, but the
picture's colours and layout come through.

**This is an experiment**: Wan was trained to start from plain noise. A **gamma** of 0 changes nothing; more than
0.1 can give grey or still videos. docs/noise_prior.md in the pack has a command that compares several
values.

{NEEDS}

- **models/diffusion_models**: **wan2.1_t2v_1.3B_fp16.safetensors** (Apache-2.0).
- **models/text_encoders**: **umt5_xxl_fp8_e4m3fn_scaled.safetensors** (Apache-2.0).
- **models/vae**: **wan_2.1_vae.safetensors** (Apache-2.0).

- Describe what your picture shows **and how it moves**.
- Picture and video must have the same size: set it in *MicroCinema Centre Frame* and in the empty latent."""
