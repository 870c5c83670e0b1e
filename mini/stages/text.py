"""Stage `text`: the text encoder, by telling which caption belongs to which clip, as CLIP's was trained.

Stable Diffusion's text encoder was trained so (Radford et al. 2021) before it was frozen. Trained with the image model
instead, the mini family's learned colours and little else: a picture's loss hardly asks for more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from microcinema_core.data.shards import ShardDataset
from microcinema_core.files.checkpoint import Checkpoint, write_checkpoint
from microcinema_core.files.paths import home_folder
from microcinema_core.networks.text import END_TOKEN, CompactVocabulary, TextConfig, TextEncoder
from microcinema_core.train.config import TrainConfig
from microcinema_core.train.latents import (
    all_tokens,
    draw_latents,
    load_vae,
    pick_captions,
    read_export,
)
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import grid
from microcinema_core.train.stage import Batch, Items, Parts, Sheet
from microcinema_core.train.tables import from_table

SHEET_CAPTIONS, SHEET_FOUND, SHEET_CLIPS = 12, 7, 256


@dataclass(frozen=True)
class TextModelTable:
    """`vae`: the exported file whose latents the sets hold; `text` changes the mini shape.

    `pictures` names a second set, of single pictures: clips that stand still.
    """

    vae: str = "runs/mini_vae/mini_vae.safetensors"
    pictures: str = ""
    text: dict[str, Any] = field(default_factory=dict)


class Still:
    """Pictures as clips of equal frames."""

    def __init__(self, pictures: ShardDataset, frames: int) -> None:
        self.pictures, self.frames = pictures, frames

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Batch:
        item = self.pictures[index]
        still: Batch = {
            key: item[key].expand(self.frames, -1, -1, -1) for key in ("mean", "std") if key in item
        }
        return {**item, **still}


class ClipEncoder(nn.Module):
    """Latents of a clip (n, f, c, h, w) -> its place in the space that captions share, (n, width).

    Frames are channels: what moves where is a difference between them.
    """

    def __init__(self, channels: int, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, 2 * hidden, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * hidden, 2 * hidden, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.projection = nn.Linear(2 * hidden, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start

    def forward(self, clips: Tensor) -> Tensor:
        return self.projection(self.layers(clips.flatten(1, 2)).mean(dim=(2, 3)))


class TextStage:
    """Symmetric cross-entropy over a batch of pairs; every other caption of the batch is a wrong answer."""

    def __init__(
        self,
        config: TrainConfig,
        clips: ShardDataset,
        pictures: list[ShardDataset],
        test: ShardDataset,
        vae: Checkpoint,
    ) -> None:
        model = from_table(TextModelTable, config.model, "[model]")
        frames, channels = clips[0]["mean"].shape[:2]
        self.dataset: Items = ConcatDataset([clips, *(Still(held, frames) for held in pictures)])  # type: ignore[list-item]
        self.test, self.vae = test, load_vae(vae)
        self.vocabulary = CompactVocabulary(torch.cat([all_tokens(held) for held in (clips, *pictures)]))
        self.config = from_table(TextConfig, model.text, "[model.text]")
        self.text = TextEncoder(
            from_table(TextConfig, {**model.text, "vocab_size": len(self.vocabulary)}, "[model.text]")
        )
        self.clips = ClipEncoder(frames * channels, self.config.width)
        self.modules: Mapping[str, nn.Module] = {"text": self.text, "clips": self.clips}
        self.empty = clips.empty_tokens

    def prepare(self) -> None:
        """Small embeddings, as CLIP starts."""
        embeddings = self.text.text_model.embeddings
        nn.init.normal_(embeddings.token_embedding.weight, std=0.3)
        nn.init.normal_(embeddings.position_embedding.weight, std=0.1)

    def group_of(self, name: str) -> str | None:
        return name.split(".")[0]

    def to(self, device: torch.device) -> None:
        self.vae.to(device)
        self.empty = self.empty.to(device)
        self.vocabulary.lookup = self.vocabulary.lookup.to(device)

    def loss(self, batch: Batch, draws: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        tokens = pick_captions(batch["tokens"], self.empty, 0.0, draws)
        likeness = self.likeness(draw_latents(batch, draws), tokens)
        right = torch.arange(len(tokens), device=tokens.device)
        loss = (F.cross_entropy(likeness, right) + F.cross_entropy(likeness.T, right)) / 2
        found = (likeness.argmax(dim=1) == right).float().mean()
        return loss, {"found": found.detach(), "scale": self.clips.log_scale.detach().exp()}

    def likeness(self, clips: Tensor, tokens: Tensor) -> Tensor:
        """Logits (clips, captions): scaled cosines."""
        seen = self.clips(clips.to(self.clips.projection.weight.dtype)).float()
        scale = self.clips.log_scale.float().exp().clamp(max=100)
        return scale * F.normalize(seen, dim=-1) @ F.normalize(self.said(tokens), dim=-1).T

    def said(self, tokens: Tensor) -> Tensor:
        """A caption's place (n, width): the projected state of its end token, which has read all before it."""
        end = (tokens == END_TOKEN).int().argmax(dim=1)
        states = self.text(self.vocabulary.compact(tokens[:, : int(end.max()) + 1]))
        return self.text.text_projection(states[torch.arange(len(end), device=end.device), end]).float()

    def sheet(self) -> Sheet:
        """Captions of unseen subjects: each caption's own clip by its centre frame, then those that the model finds."""
        step = max(1, len(self.test) // SHEET_CLIPS)
        items = [self.test[k] for k in range(0, len(self.test), step)]
        device = self.empty.device
        means = torch.stack([item["mean"] for item in items]).to(device)
        asked = torch.arange(SHEET_CAPTIONS) * len(items) // SHEET_CAPTIONS
        tokens = torch.stack([items[k]["tokens"][0] for k in asked.tolist()]).to(device)
        found = self.likeness(means, tokens).T.topk(min(SHEET_FOUND, len(items)), dim=1).indices.cpu()
        shown = torch.cat([asked[:, None], found], dim=1)
        centre = means[shown.flatten().to(device), means.shape[1] // 2]
        return Sheet(grid(self.vae.decode(centre).cpu(), columns=shown.shape[1]))

    def export(self, path: Path, parts: Parts) -> None:
        """A file of the text encoder alone; the image stage's `text_file`."""
        write_checkpoint(
            path,
            {"text": self.vocabulary.spread(parts["text"])},
            role="image",
            configs={"text": self.config},
            lambda_=0.0,
            fps=0.0,
            frames=1,
        )


def build(config: TrainConfig) -> TextStage:
    """Encoded clips of both splits, pictures beside them, and the VAE that encoded them."""
    model = from_table(TextModelTable, config.model, "[model]")
    pictures = [ShardDataset(home_folder() / "data" / model.pictures)] if model.pictures else []
    return TextStage(
        config,
        ShardDataset(config.data_folder),
        pictures,
        ShardDataset(config.test_folder),
        read_export(home_folder() / model.vae),
    )
