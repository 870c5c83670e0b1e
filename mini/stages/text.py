"""Stage `text`: the text encoder, trained contrastively with clips like CLIP (Radford et al. 2021).

Stable Diffusion's text encoder was trained that way and then frozen. When this one was trained together with the image
model, it learned colours and little else, because the diffusion loss hardly depends on more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from microcinema_core.config import END_TOKEN, TextConfig, centre_index
from microcinema_core.data.shards import ShardDataset
from microcinema_core.files.checkpoint import Checkpoint, write_checkpoint
from microcinema_core.files.load_networks import load_vae
from microcinema_core.files.paths import home_folder
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.text import EMBEDDING_KEY, TextEncoder
from microcinema_core.train.batches import draw_latents, pick_captions
from microcinema_core.train.config import TrainConfig, from_table
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import grid
from microcinema_core.train.stage import Batch, Items, Parts, Sheet
from microcinema_core.train.start_files import read_export

SHEET_CAPTIONS, SHEET_FOUND, SHEET_CLIPS = 12, 7, 256
"""Captions of a sample sheet, clips that are shown for each, and clips that are searched."""


@dataclass(frozen=True)
class TextModelTable:
    """The [model] table.

    Attributes:
        vae: exported file of the VAE that encoded the data sets, absolute or relative to $MICROCINEMA_HOME.
        pictures: a second data set, of single pictures, which are used as still clips; empty for none.
        text: fields of `TextConfig` that differ from the defaults.
    """

    vae: str = "runs/mini_vae/mini_vae.safetensors"
    pictures: str = ""
    text: dict[str, Any] = field(default_factory=dict)


class StillClips:
    """A data set of single pictures as still clips, `f c h w` with f equal frames."""

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


class VideoEncoder(nn.Module):
    """The encoder of clips for contrastive training; it is not exported.

    Frames are stacked as channels, because motion is a difference between them.
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
        """Map latents `n f c h w` to embeddings `n width`."""
        return self.projection(self.layers(clips.flatten(1, 2)).mean(dim=(2, 3)))


class SeenTokens:
    """The tokens that occur in a training set.

    Training keeps embeddings of these only, under compact ids. Embeddings of all other tokens stay zero in the file.
    """

    def __init__(self, tokens: Tensor) -> None:
        self.words = torch.unique(tokens.long())
        self.lookup = torch.zeros(TextConfig.vocab_size, dtype=torch.long)
        self.lookup[self.words] = torch.arange(len(self.words))

    def __len__(self) -> int:
        return len(self.words)

    def compact(self, tokens: Tensor) -> Tensor:
        """Return tokens as rows of the compact embedding, in the same shape."""
        return self.lookup[tokens.long()]

    def spread(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict with the full token embedding, zero for tokens that did not occur."""
        small = state_dict[EMBEDDING_KEY]
        whole = small.new_zeros(TextConfig.vocab_size, small.shape[1])
        whole[self.words] = small
        return {**state_dict, EMBEDDING_KEY: whole}

    def gather(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict with the compact token embedding; the inverse of `spread`."""
        return {**state_dict, EMBEDDING_KEY: state_dict[EMBEDDING_KEY][self.words]}


def all_tokens(dataset: ShardDataset) -> Tensor:
    """Return all tokens of a data set's captions and of the empty prompt, (n,), with repetitions."""
    shards = range(len(dataset.index["shards"]))
    words = [torch.unique(_tensor(dataset.path(number), "tokens")) for number in shards]
    return torch.cat([*words, dataset.empty_tokens])


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


class TextStage:
    """The text stage: symmetric cross-entropy between the clips and captions of a batch."""

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
        self.dataset: Items = ConcatDataset([clips, *(StillClips(held, frames) for held in pictures)])  # type: ignore[list-item]
        self.test, self.vae = test, load_vae(vae)
        self.seen_tokens = SeenTokens(torch.cat([all_tokens(held) for held in (clips, *pictures)]))
        self.config = from_table(TextConfig, model.text, "[model.text]")
        self.text = TextEncoder(
            from_table(TextConfig, {**model.text, "vocab_size": len(self.seen_tokens)}, "[model.text]")
        )
        self.clips = VideoEncoder(frames * channels, self.config.width)
        self.modules: Mapping[str, nn.Module] = {"text": self.text, "clips": self.clips}
        self.empty = clips.empty_tokens

    def prepare(self) -> None:
        """Initialise the embeddings with small values, as CLIP does."""
        embeddings = self.text.text_model.embeddings
        nn.init.normal_(embeddings.token_embedding.weight, std=0.3)
        nn.init.normal_(embeddings.position_embedding.weight, std=0.1)

    def group_of(self, name: str) -> str | None:
        """Return the learning-rate group of a parameter: "text" or "clips"."""
        return name.split(".")[0]

    def to(self, device: torch.device) -> None:
        """Move the frozen VAE and the constants to a device."""
        self.vae.to(device)
        self.empty = self.empty.to(device)
        self.seen_tokens.lookup = self.seen_tokens.lookup.to(device)

    def loss(self, batch: Batch, random: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the contrastive loss of a batch; logs the accuracy ("found") and the logits' scale."""
        tokens, _ = pick_captions(batch["tokens"], self.empty, 0.0, random)
        similarity_logits = self.similarity_logits(draw_latents(batch, random), tokens)
        right = torch.arange(len(tokens), device=tokens.device)
        loss = (F.cross_entropy(similarity_logits, right) + F.cross_entropy(similarity_logits.T, right)) / 2
        found = (similarity_logits.argmax(dim=1) == right).float().mean()
        return loss, {"found": found.detach(), "scale": self.clips.log_scale.detach().exp()}

    def similarity_logits(self, clips: Tensor, tokens: Tensor) -> Tensor:
        """Return logits `clips captions`: scaled cosine similarities of latents `n f c h w` and tokens `n 77`."""
        seen = self.clips(clips.to(self.clips.projection.weight.dtype)).float()
        scale = self.clips.log_scale.float().exp().clamp(max=100)
        return scale * F.normalize(seen, dim=-1) @ F.normalize(self.embed_captions(tokens), dim=-1).T

    def embed_captions(self, tokens: Tensor) -> Tensor:
        """Return embeddings `n width` of tokens `n 77`: the projected state at the end token, as in CLIP."""
        end = (tokens == END_TOKEN).int().argmax(dim=1)
        states = self.text(self.seen_tokens.compact(tokens[:, : int(end.max()) + 1]))
        return self.text.text_projection(states[torch.arange(len(end), device=end.device), end]).float()

    def sheet(self) -> Sheet:
        """Make a sample sheet of held-out captions, one per row.

        A row shows the centre frame of the caption's own clip, then those of the clips with the highest similarity.
        """
        step = max(1, len(self.test) // SHEET_CLIPS)
        items = [self.test[k] for k in range(0, len(self.test), step)]
        device = self.empty.device
        means = torch.stack([item["mean"] for item in items]).to(device)
        asked = torch.arange(SHEET_CAPTIONS) * len(items) // SHEET_CAPTIONS
        tokens = torch.stack([items[k]["tokens"][0] for k in asked.tolist()]).to(device)
        found = (
            self.similarity_logits(means, tokens).T.topk(min(SHEET_FOUND, len(items)), dim=1).indices.cpu()
        )
        shown = torch.cat([asked[:, None], found], dim=1)
        centre = means[shown.flatten().to(device), centre_index(means.shape[1])]
        return Sheet(grid(self.vae.decode(centre).cpu(), columns=shown.shape[1]))

    def export(self, path: Path, parts: Parts) -> None:
        """Write the text encoder alone; the image stage reads it as `model.text`."""
        write_checkpoint(
            path,
            {"text": self.seen_tokens.spread(parts["text"])},
            spec=ModelSpec("image"),
            configs={"text": self.config},
        )


def build(config: TrainConfig) -> TextStage:
    """Build the stage from its config; errors as for `from_table` and `read_export`."""
    model = from_table(TextModelTable, config.model, "[model]")
    pictures = [ShardDataset(home_folder() / "data" / model.pictures)] if model.pictures else []
    return TextStage(
        config,
        ShardDataset(config.data_folder),
        pictures,
        ShardDataset(config.test_folder),
        read_export(home_folder() / model.vae),
    )
