"""The notes beside the workflows for the paper's evaluation."""

from __future__ import annotations

from .notes import SD21_FITS

TRAINED_FILES = """- **models/microcinema**: **sd21_base.safetensors**, your trained base model (docs/training.md).
- **models/checkpoints**: **v2-1_512-ema-pruned.safetensors**, the checkpoint that training started from."""
COMMAND = """**For a whole list of prompts**, run in a clone **python3 dev.py python -m devtools.run.batch OUT**
with this workflow's file: it sets prompt and seed, queues the runs and collects the files (docs/batches.md).

- **--kind video** makes the videos. The prompt serves both stages, as in Table 3's *Simple*.
- **--kind picture** makes only the centre frames. Caption them, then make the videos with **--centres** and
**--captions**: the pictures then take the place of the first stage."""
SDXL_FIRST = f"""## SDXL first, then 17 frames

The paper's evaluation (Tables 2 to 4): SDXL draws the centre frame, the base model makes 17 frames around it, without
interpolation.

**Needs these files.**

- **models/checkpoints**: **sd_xl_base_1.0.safetensors**.
{TRAINED_FILES}

{COMMAND}"""
SD21_FIRST = f"""## Stable Diffusion 2.1 first, then 17 frames

Table 4's other first stage: Stable Diffusion 2.1 draws the centre frame, and the base model makes 17 frames around it,
without interpolation.

**Needs these files.**

{TRAINED_FILES}

{COMMAND}

{SD21_FITS}"""
CAPTIONED = f"""## A caption from the picture, then 17 frames

*Generate Text* looks at the picture and says what it shows; its text goes into *CLIP Text Encode*. The paper used
LLaVA-1.5 for this (Table 3).

**Needs a newer ComfyUI**: one with the node *Generate Text* (tried with 0.33.0), and these files.

- **models/text_encoders**: a vision-language model that ComfyUI loads as a text encoder: Qwen3-VL, Qwen3.5, or Gemma 3
or 4 with vision. **qwen3vl_4b.safetensors** is a placeholder: choose yours in *Load CLIP*.
{TRAINED_FILES}

**With an older ComfyUI**, any captioner that has a STRING output will do, for example *Florence2Run* of the pack
**ComfyUI-Florence2** (its output *caption*). Or caption a folder of pictures without ComfyUI (docs/batches.md)."""
