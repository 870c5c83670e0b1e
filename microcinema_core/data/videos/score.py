"""Scores of clips: motion, the CLIP similarity of captions and frames, and a user's own functions."""

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

from ... import json_text
from ...messages import one_line, reason
from ...optional_deps import require
from ..tokens import load_tokenizer, pad_tokens, text_tokens

FLOW_SIDE = 64
"""Shorter side in pixels at which optical flow is computed."""

FLOW_PAIRS = 4
"""Pairs of frames that optical flow is averaged over, at most."""

CLIP_FRAMES = 3
"""Frames that are compared to the captions, at most."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ScoreFunction = Callable[[Tensor, Sequence[str]], float]
"""A user's own score, of uint8 frames `n 3 h w` and captions."""


def motion(frames: Tensor, fps: float) -> float:
    """Return the mean optical flow of uint8 frames `n 3 h w`, in shorter sides per second.

    A step of more than about a tenth of the side between two frames counts as that, as the flow cannot follow it.
    """
    from skimage.registration import optical_flow_ilk

    grey = _grey(frames)
    pairs = np.unique(np.linspace(0, len(grey) - 2, min(FLOW_PAIRS, len(grey) - 1)).round().astype(int))
    flows = [optical_flow_ilk(grey[place], grey[place + 1], radius=5, num_warp=4) for place in pairs]
    return float(np.mean([np.hypot(*flow).mean() for flow in flows]) / FLOW_SIDE * fps)


def _grey(frames: Tensor) -> np.ndarray:
    """Return greyscale frames, float32 `n h w`, 0 to 1, with the shorter side FLOW_SIDE pixels."""
    height, width = frames.shape[-2:]
    scale = FLOW_SIDE / min(height, width)
    size = (max(FLOW_SIDE, round(height * scale)), max(FLOW_SIDE, round(width * scale)))
    small = F.interpolate(frames, size=size, mode="bilinear", antialias=True).float() / 255
    return (small * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).numpy()


class CLIPScorer:
    """Cosine similarity of captions and frames by a CLIP model in a local folder.

    Args:
        folder: a folder as `CLIPModel.save_pretrained` writes it.
        tokenizer: folder of CLIP's tokenizer; `tokens.choose_tokenizer` finds it.
        device: device of the model.
        most_frames: frames that are compared to the captions, at most, evenly spaced; None compares all.

    Raises:
        ValueError: a folder holds no such model or no such tokenizer.
    """

    def __init__(
        self, folder: Path, tokenizer: Path, *, device: str = "cpu", most_frames: int | None = CLIP_FRAMES
    ) -> None:
        require("transformers")
        self.model = _load_clip_model(folder).float().eval().requires_grad_(False).to(device)
        self.device, self.side = device, int(self.model.config.vision_config.image_size)
        self.most_frames = most_frames
        self._clip = load_tokenizer(tokenizer)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))

    @torch.inference_mode()
    def __call__(self, frames: Tensor, captions: Sequence[str]) -> float:
        """Return the mean over captions and at most `most_frames` frames of uint8 `n 3 h w`."""
        places = np.unique(
            np.linspace(0, len(frames) - 1, self.most_frames or len(frames)).round().astype(int)
        )
        pixels = (self._fit(frames[places]) / 255 - self.mean) / self.std
        tokens = torch.tensor([pad_tokens(text_tokens(self._clip, caption)) for caption in captions])
        found = self.model(input_ids=tokens.to(self.device), pixel_values=pixels.to(self.device))
        text, image = (F.normalize(part, dim=-1) for part in (found.text_embeds, found.image_embeds))
        return float((text @ image.T).mean())

    def _fit(self, frames: Tensor) -> Tensor:
        """Return the central square at the model's size, 0 to 255."""
        side = min(frames.shape[-2:])
        top, left = ((length - side) // 2 for length in frames.shape[-2:])
        square = frames[..., top : top + side, left : left + side].contiguous()
        return F.interpolate(square, size=(self.side, self.side), mode="bicubic", antialias=True).float()


def check_clip_model(folder: Path) -> None:
    """Refuse a folder whose `config.json` is not that of a transformers `CLIPModel`.

    Raises:
        ValueError: the message names the folder.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(_no_clip_model(folder, "has no config.json"))
    try:
        kind = json_text.loads(config.read_bytes()).get("model_type", "clip")
    except (ValueError, AttributeError) as error:
        raise ValueError(_no_clip_model(folder, "has a config.json that is no JSON object")) from error
    if kind != "clip":
        raise ValueError(_no_clip_model(folder, f"holds a model of the type {one_line(kind)}"))


def _load_clip_model(folder: Path) -> Any:
    """Load a CLIP model strictly: transformers itself fills what a file lacks with random numbers."""
    from transformers import CLIPModel

    check_clip_model(folder)
    load: Any = CLIPModel.from_pretrained  # typed without `output_loading_info`, which adds a result
    try:
        model, found = load(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # of each library that reads a part of the folder
        why = one_line(next(iter(str(error).splitlines()), type(error).__name__))
        raise ValueError(_no_clip_model(folder, f"cannot be loaded ({why})")) from error
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(
            _no_clip_model(folder, f"lacks {len(lacking)} of the model's tensors, such as {lacking[0]}")
        )
    return model


def _no_clip_model(folder: Path, why: str) -> str:
    return (
        f"--clip-model {one_line(folder)} {why}; expected a folder of transformers' CLIPModel, with config.json and "
        "model.safetensors"
    )


def clip_digest(folder: Path, tokenizer: Path) -> str:
    """Return a hash of a CLIP model's and its tokenizer's files, so that scores of different ones are kept apart."""
    digest = hashlib.sha256()
    model = [*folder.glob("*.json"), *folder.glob("*.safetensors")]
    words = [*tokenizer.glob("*.json"), *tokenizer.glob("merges.txt")]
    for path in (*sorted(model), *sorted(words)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class CustomScore:
    """A user's own score: its name, and the module and name of its function."""

    name: str
    module: str
    function: str

    @classmethod
    def parse(cls, text: str) -> CustomScore:
        """Parse NAME=MODULE:FUNCTION, such as `aesthetic=my_scores:aesthetic`.

        Raises:
            ValueError: the text has another form.
        """
        name, _, place = text.partition("=")
        module, _, function = place.partition(":")
        if not (name.isidentifier() and module and function.isidentifier()):
            raise ValueError(
                f"score {text!r}: expected NAME=MODULE:FUNCTION, as in aesthetic=my_scores:aesthetic"
            )
        return cls(name, module, function)

    def load(self) -> ScoreFunction:
        """Import the function.

        Raises:
            ValueError: there is no such module or function.
        """
        try:
            function = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"score {self.name}: {reason(error)}; it must be importable from the current folder"
            ) from error
        except Exception as error:  # of the user's own code
            raise ValueError(
                f"score {self.name}: {self.module} raises {type(error).__name__} as it is imported: {reason(error)}"
            ) from error
        if not callable(function):
            raise ValueError(f"score {self.name}: {self.module}:{self.function} is no function")
        return function


@dataclass(frozen=True)
class ScoreSettings:
    """Which scores are computed, and with what.

    Attributes:
        clip_model: folder of a CLIP model for the score `clip`, or None.
        clip_digest: hash of the model's and its tokenizer's files; a folder may change its content under one name.
        custom: the user's own scores.
        tokenizer: folder of CLIP's tokenizer; needed with `clip_model`.
        device: device of the CLIP model.
    """

    clip_model: Path | None = None
    clip_digest: str = ""
    custom: tuple[CustomScore, ...] = ()
    tokenizer: Path | None = None
    device: str = "cpu"

    @property
    def names(self) -> list[str]:
        """The names of the scores."""
        return ["motion", *(["clip"] if self.clip_model else []), *(score.name for score in self.custom)]

    def identity(self) -> str:
        """Return text that is the same for settings that give the same scores."""
        custom = [(score.name, score.module, score.function) for score in self.custom]
        return json.dumps([self.clip_digest, custom])


class Scorer:
    """Computes all scores of a clip. A score that is not finite becomes NaN, which no threshold keeps."""

    def __init__(self, settings: ScoreSettings) -> None:
        require("skimage")
        self.clip = None
        if settings.clip_model is not None:
            assert settings.tokenizer is not None
            self.clip = CLIPScorer(settings.clip_model, settings.tokenizer, device=settings.device)
        self.custom = {score.name: score.load() for score in settings.custom}

    def __call__(self, frames: Tensor, captions: Sequence[str], fps: float) -> dict[str, float]:
        """Return the scores by name of uint8 frames `n 3 h w`; without captions the empty one is used."""
        texts = list(captions) or [""]
        scores = {"motion": motion(frames, fps)}
        if self.clip is not None:
            scores["clip"] = self.clip(frames, texts)
        for name, function in self.custom.items():
            scores[name] = float(function(frames, texts))
        return {name: value if math.isfinite(value) else math.nan for name, value in scores.items()}
