"""What storage in fewer bits costs: nothing for the same file, something for a rounded one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from microcinema_core.config import CONTEXT_LENGTH, END_TOKEN, START_TOKEN
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_text_encoder
from microcinema_core.train.to_fp8 import to_fp8
from mini.evaluate import storage
from mini.evaluate.evaluation_context import WEIGHTS


class Plain:
    """A pipeline whose texts are one token each, and whose pictures are the latents."""

    def __init__(self) -> None:
        self.text = load_text_encoder(read_checkpoint(WEIGHTS / storage.IMAGE))

    def encode_text(self, texts: list[str]) -> Tensor:
        words = range(320, 320 + len(texts))
        with torch.no_grad():
            return self.text(
                torch.tensor([[START_TOKEN, word, *[END_TOKEN] * (CONTEXT_LENGTH - 2)] for word in words])
            )

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def test_an_error_of_a_tenth_is_twenty_decibels_below() -> None:
    exact = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert storage.below(exact + 0.1, exact) == pytest.approx(20, abs=0.1)


def test_a_rounded_file_differs_and_the_same_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PROMPTS", storage.PROMPTS[:2])
    monkeypatch.setattr(storage, "STEPS", 2)
    small = tmp_path / "small.safetensors"
    to_fp8(WEIGHTS / storage.IMAGE, small)
    same, exact = storage.compare_images(WEIGHTS / storage.IMAGE, torch.float32, Plain())  # type: ignore[arg-type]
    rounded, again = storage.compare_images(small, torch.float32, Plain())  # type: ignore[arg-type]
    assert same == ["inf"] * 4
    assert all(15 < float(cell) < 60 for cell in rounded)
    assert torch.equal(exact, again), "the yardstick is the same for all"
