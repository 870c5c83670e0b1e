"""Scores of clips: motion, CLIP's agreement of caption and frames, and whatever a user's own function says."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...optional_deps import need
from ..tokens import END, LENGTH, START

FLOW_SIDE = 64
FLOW_PAIRS = 4
CLIP_FRAMES = 3
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Hook = Callable[[Tensor, Sequence[str]], float]


def motion(frames: Tensor, fps: float) -> float:
    """How far things move: mean optical flow in shorter sides a second, of uint8 frames (n, 3, h, w).

    Steps of more than about a tenth of the side are seen as that: what is too fast to be followed is all the same.
    """
    from skimage.registration import optical_flow_ilk

    grey = _grey(frames)
    pairs = np.unique(np.linspace(0, len(grey) - 2, min(FLOW_PAIRS, len(grey) - 1)).round().astype(int))
    flows = [optical_flow_ilk(grey[place], grey[place + 1], radius=5, num_warp=4) for place in pairs]
    return float(np.mean([np.hypot(*flow).mean() for flow in flows]) / FLOW_SIDE * fps)


def _grey(frames: Tensor) -> np.ndarray:
    """float32 (n, h, w), 0 to 1, the shorter side FLOW_SIDE pixels."""
    height, width = frames.shape[-2:]
    scale = FLOW_SIDE / min(height, width)
    size = (max(FLOW_SIDE, round(height * scale)), max(FLOW_SIDE, round(width * scale)))
    small = F.interpolate(frames, size=size, mode="bilinear", antialias=True).float() / 255
    return (small * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).numpy()


class ClipScorer:
    """Cosine of captions and frames by a CLIP model in a local folder, as `CLIPModel.save_pretrained` writes it.

    Raises:
        ValueError: the folder holds no such model.
    """

    def __init__(self, folder: Path, tokenizer: Path, *, device: str = "cpu") -> None:
        need("transformers")
        from transformers import CLIPModel, CLIPTokenizer

        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} has no config.json; --clip-model takes a folder of transformers' CLIPModel"
            )
        try:
            model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{folder}: {reason}; --clip-model takes config.json and model.safetensors"
            ) from error
        self.model: Any = model.float().eval().requires_grad_(False).to(device)
        self.device, self.side = device, int(self.model.config.vision_config.image_size)
        own = folder if (folder / "vocab.json").is_file() else tokenizer
        self._clip: Any = CLIPTokenizer.from_pretrained(str(own), local_files_only=True)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))

    @torch.inference_mode()
    def __call__(self, frames: Tensor, captions: Sequence[str]) -> float:
        """Mean over the captions and at most CLIP_FRAMES frames of uint8 (n, 3, h, w)."""
        places = np.unique(np.linspace(0, len(frames) - 1, CLIP_FRAMES).round().astype(int))
        pixels = (self._fitted(frames[places]) / 255 - self.mean) / self.std
        tokens = torch.tensor([self._tokens(caption) for caption in captions])
        found = self.model(input_ids=tokens.to(self.device), pixel_values=pixels.to(self.device))
        text, image = (F.normalize(part, dim=-1) for part in (found.text_embeds, found.image_embeds))
        return float((text @ image.T).mean())

    def _fitted(self, frames: Tensor) -> Tensor:
        """The middle square at the model's size, 0 to 255."""
        side = min(frames.shape[-2:])
        top, left = ((length - side) // 2 for length in frames.shape[-2:])
        square = frames[..., top : top + side, left : left + side].contiguous()
        return F.interpolate(square, size=(self.side, self.side), mode="bicubic", antialias=True).float()

    def _tokens(self, caption: str) -> list[int]:
        ids = self._clip(caption)["input_ids"][1:-1][: LENGTH - 2]
        return [START, *ids, END, *[END] * (LENGTH - 2 - len(ids))]


def folder_digest(folder: Path) -> str:
    """A hash of a model's files, so that another model's scores are not taken for its own."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Named:
    """A user's score: a column's name and where its function is."""

    name: str
    module: str
    function: str

    @classmethod
    def parse(cls, text: str) -> Named:
        """`aesthetic=my_scores:aesthetic`."""
        name, _, place = text.partition("=")
        module, _, function = place.partition(":")
        if not (name.isidentifier() and module and function.isidentifier()):
            raise ValueError(
                f"score {text!r}: expected NAME=MODULE:FUNCTION, as in aesthetic=my_scores:aesthetic"
            )
        return cls(name, module, function)

    def load(self) -> Hook:
        try:
            function = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"score {self.name}: {error}; it must be importable from where you are"
            ) from error
        if not callable(function):
            raise ValueError(f"score {self.name}: {self.module}:{self.function} is no function")
        return function


@dataclass(frozen=True)
class Scoring:
    """What is measured. `clip_digest` stands for the model's content, which `clip_model` may change under its name."""

    clip_model: Path | None = None
    clip_digest: str = ""
    hooks: tuple[Named, ...] = ()
    tokenizer: Path | None = None
    device: str = "cpu"

    @property
    def columns(self) -> list[str]:
        return ["motion", *(["clip"] if self.clip_model else []), *(hook.name for hook in self.hooks)]

    def identity(self) -> str:
        hooks = [(hook.name, hook.module, hook.function) for hook in self.hooks]
        return json.dumps([self.clip_digest, hooks])


class Scorer:
    """All scores of a clip, by name. A score that is no number is NaN, and is never kept by a threshold."""

    def __init__(self, scoring: Scoring) -> None:
        need("skimage")
        self.clip = None
        if scoring.clip_model is not None:
            self.clip = ClipScorer(
                scoring.clip_model, scoring.tokenizer or scoring.clip_model, device=scoring.device
            )
        self.hooks = {hook.name: hook.load() for hook in scoring.hooks}

    def __call__(self, frames: Tensor, captions: Sequence[str], fps: float) -> dict[str, float]:
        """uint8 frames (n, 3, h, w), their captions (none: the empty one), and their rate."""
        texts = list(captions) or [""]
        scores = {"motion": motion(frames, fps)}
        if self.clip is not None:
            scores["clip"] = self.clip(frames, texts)
        for name, hook in self.hooks.items():
            scores[name] = float(hook(frames, texts))
        return {name: value if math.isfinite(value) else math.nan for name, value in scores.items()}
