"""Latents of frames and contexts of captions, by the two encoders of a Stable Diffusion checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tokens import END, LENGTH, START
from .stable_diffusion import SCALE, Networks


class Encoders:
    """Latents of frames and contexts of captions, on a device, as the host would give them."""

    def __init__(
        self, networks: Networks, tokenizer: Path, *, device: str = "cpu", dtype: str = "fp32"
    ) -> None:
        from transformers import CLIPTokenizer

        self.device = torch.device(device)
        self.low = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        self.vae, self.text = networks.vae.to(self.device), networks.text.to(self.device)
        self.padding, self.width = networks.padding, networks.width
        self._clip: Any = CLIPTokenizer.from_pretrained(str(tokenizer))

    @torch.inference_mode()
    def latents(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (n, 3, h, w) -> mean and std in model space, float32 (n, c, h / 8, w / 8)."""
        pictures = frames.to(self.device).float() / 127.5 - 1
        with torch.autocast(self.device.type, self.low, enabled=self.low is not None):
            posterior = self.vae.encode(pictures).latent_dist  # type: ignore[operator]
        return SCALE * posterior.mean.float().cpu(), SCALE * posterior.std.float().cpu()

    @torch.inference_mode()
    def contexts(self, captions: Sequence[str]) -> Tensor:
        """float32 (n, 77, d); what does not fit one prompt of 77 tokens is cut off."""
        tokens = self.tokens(captions).to(self.device)
        return torch.cat([self.text(part).last_hidden_state.float().cpu() for part in tokens.split(16)])

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """int64 (n, 77). Captions are plain text: parentheses are no weights."""
        rows = []
        for caption in captions:
            ids = self._clip(caption)["input_ids"][1:-1][: LENGTH - 2]
            rows.append([START, *ids, END, *[self.padding] * (LENGTH - 2 - len(ids))])
        return torch.tensor(rows, dtype=torch.int64).reshape(len(captions), LENGTH)
