"""The second job: encode the windows that are kept, as latents and text contexts in shards."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ... import json_text
from ...config import CONTEXT_LENGTH, centre_index
from ...messages import one_line
from ..shards import write_json, write_shard
from ..tokens import load_tokenizer, pad_tokens, text_tokens
from .attempt import ProcessUnit
from .decode import frames_at
from .plan import WorkUnit, content_key, parse_sizes, split_position
from .report import ReportEntry, Unusable, write_report
from .score_job import VERSION, ScoreJob
from .score_table import ScoreLimits, ScoreRow, is_kept, read_rows
from .sources import Video
from .stable_diffusion import AUTOCAST, LATENT_SCALE, EncoderNetworks, load_encoder_networks
from .vision import PictureEncoder

logger = logging.getLogger(__name__)

TEXT_BATCH = 16
"""Captions that the text encoder takes at a time."""
ENCODED = ("mean", "std", "vision")
"""What a clip is encoded to; the last only where CLIP vision is given."""
Encoded = dict[str, Tensor]


class Encoders:
    """A checkpoint's VAE encoder and text encoder on a device, with the host's conventions, and any CLIP vision."""

    def __init__(
        self,
        networks: EncoderNetworks,
        tokenizer: Path,
        *,
        device: str = "cpu",
        dtype: str = "fp32",
        vision: PictureEncoder | None = None,
    ) -> None:
        self.vision = vision
        self.device = torch.device(device)
        self.low = AUTOCAST[dtype]
        self.vae, self.text = networks.vae.to(self.device), networks.text.to(self.device)
        self.padding = networks.padding
        self._clip = load_tokenizer(tokenizer)

    @torch.inference_mode()
    def latents(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode uint8 frames `n 3 h w` to mean and std in model space, float32 `n c h/8 w/8`."""
        pictures = frames.to(self.device).float() / 127.5 - 1
        with torch.autocast(self.device.type, self.low, enabled=self.low is not None):
            posterior = self.vae.encode(pictures).latent_dist  # type: ignore[operator]
        return LATENT_SCALE * posterior.mean.float().cpu(), LATENT_SCALE * posterior.std.float().cpu()

    @torch.inference_mode()
    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Encode captions to float32 `n 77 d`; text beyond 75 tokens is cut off."""
        tokens = self.tokens(captions).to(self.device)
        parts = tokens.split(TEXT_BATCH)
        return torch.cat([self.text(part).last_hidden_state.float().cpu() for part in parts])

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Tokenize captions to int64 `n 77`. They are plain text: parentheses are no weights."""
        rows = [pad_tokens(text_tokens(self._clip, text), padding=self.padding) for text in captions]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(captions), CONTEXT_LENGTH)


@dataclass(frozen=True)
class EncodeJob:
    """Encode what is kept: one shard for each unit in each set's folder, `ROLE[-test]/WIDTHxHEIGHT`.

    Attributes:
        out: folder of the sets.
        scores: the job whose scores choose the clips.
        limits: the range of each score that is kept.
        checkpoint: Stable Diffusion file or diffusers folder.
        digest: hash of the checkpoint's content.
        tokenizer: folder of CLIP's tokenizer.
        captions: contexts stored for each clip.
        test: bound below which groups are for testing, see `plan.split_bound`.
        device: device of the encoders.
        dtype: precision of the encoders: "fp32", "bf16" or "fp16".
        batch_frames: frames that the VAE takes at a time.
        vision, vision_digest: file of CLIP vision, and a hash of its weights; None stores no features of pictures.
    """

    out: Path
    scores: ScoreJob
    limits: ScoreLimits
    checkpoint: Path
    digest: str
    tokenizer: Path
    captions: int = 1
    test: float = 0.0
    device: str = "cpu"
    dtype: str = "fp32"
    batch_frames: int = 16
    vision: Path | None = None
    vision_digest: str = ""

    def key(self, name: str) -> str:
        """Return a hash of all that a set's shards depend on, besides the clips themselves."""
        seen = [self.vision_digest] if self.vision_digest and name.startswith("base") else []
        geometry = self.scores.geometry
        return content_key([VERSION, self.digest, self.captions, self.dtype, asdict(geometry), *seen])

    def kept_rows(self, unit: WorkUnit) -> dict[str, list[ScoreRow]]:
        """Return the kept clips of a unit by set; a set's name is its folder below `out`."""
        sets: dict[str, list[ScoreRow]] = {}
        for row in read_rows(self.scores.path(unit)):
            if is_kept(row, self.limits):
                split = "-test" if split_position(row["group"]) < self.test else ""
                sets.setdefault(f"{row['role']}{split}/{row['bucket']}", []).append(row)
        return sets

    def path(self, unit: WorkUnit, name: str) -> Path:
        """Return the path of a unit's shard in a set."""
        return self.out / name / f"{unit.name}.safetensors"

    def report(self, unit: WorkUnit) -> Path:
        """Return the path of a unit's report."""
        return self.out / "encoded" / f"{unit.name}.jsonl"

    def done(self, unit: WorkUnit) -> bool:
        """Return whether all of a unit's kept clips are encoded."""
        return all(self._holds(unit, name, rows) for name, rows in self.kept_rows(unit).items())

    def _holds(self, unit: WorkUnit, name: str, rows: Sequence[ScoreRow]) -> bool:
        return stored_clip_ids(self.path(unit, name), self.key(name)) == [row["clip_id"] for row in rows]

    def start(self) -> ProcessUnit:
        """Load the encoders, and return the function that encodes a unit."""
        made_with = {"device": self.device, "dtype": self.dtype}
        vision = None if self.vision is None else PictureEncoder(self.vision, **made_with)
        networks = load_encoder_networks(self.checkpoint)
        encoders = Encoders(networks, self.tokenizer, vision=vision, **made_with)

        def process(unit: WorkUnit) -> None:
            entries: list[ReportEntry] = []
            for name, rows in self.kept_rows(unit).items():
                if not self._holds(unit, name, rows):
                    self.path(unit, name).parent.mkdir(parents=True, exist_ok=True)
                    entries += self._write(name, rows, unit, encoders)
            write_report(self.report(unit), entries)

        return process

    def _write(
        self, name: str, rows: Sequence[ScoreRow], unit: WorkUnit, encoders: Encoders
    ) -> list[ReportEntry]:
        """Write a shard of the clips that can be encoded; return an entry for each that cannot."""
        path, key = self.path(unit, name), self.key(name)
        videos, stored = {video.id: video for video in unit.videos}, stored_latents(path, key)
        latents: dict[str, Encoded] = {}
        entries = []
        for row in rows:
            clip = row["clip_id"]
            try:
                latents[clip] = stored.get(clip) or encode_clip(
                    videos[row["video"]], row, encoders, self.batch_frames
                )
            except Unusable as error:
                entries.append(ReportEntry(row["video"], f"scored, but not encoded: {error}", skipped=False))
        encoded = [row for row in rows if row["clip_id"] in latents]
        if encoded:
            tensors = shard_tensors(encoded, latents, encoders, self.captions)
            write_json(path.with_suffix(".json"), encoded)
            write_shard(path, tensors, {"key": key, "clips": json.dumps(list(latents))})
        return entries


def stored_clip_ids(path: Path, key: str) -> list[str] | None:
    """Return the ids of a shard's clips in order, or None where there is no readable shard of this key."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return json_text.loads(metadata["clips"]) if metadata.get("key") == key else None
    except (SafetensorError, KeyError, ValueError):
        logger.warning("%s is damaged; its clips are encoded again", one_line(path))
        return None


def stored_latents(path: Path, key: str) -> dict[str, Encoded]:
    """Return what an older shard of this key holds by clip, so that other thresholds encode only new clips."""
    ids = stored_clip_ids(path, key)
    if ids is None:
        return {}
    with safe_open(path, "pt") as file:
        held = {part: file.get_tensor(part) for part in ENCODED if part in file.keys()}  # noqa: SIM118
    return {name: {part: tensor[place] for part, tensor in held.items()} for place, name in enumerate(ids)}


def shard_tensors(
    rows: Sequence[ScoreRow], latents: Mapping[str, Encoded], encoders: Encoders, captions: int
) -> dict[str, Tensor]:
    """Return the tensors of a shard, as `ShardDataset` reads them; each distinct context is stored once."""
    clips = [latents[row["clip_id"]] for row in rows]
    texts = [_spread_captions(row["captions"], captions) for row in rows]
    distinct = list(dict.fromkeys(text for row in texts for text in row))
    return {
        **{part: torch.stack([clip[part] for clip in clips]).contiguous() for part in clips[0]},
        "text": encoders.contexts(distinct).half(),
        "caption": torch.tensor([[distinct.index(text) for text in row] for row in texts], dtype=torch.int32),
        "fps": torch.tensor([row["fps"] for row in rows], dtype=torch.float32),
        "group": torch.tensor([int(split_position(row["group"]) * 2**32) for row in rows], dtype=torch.int64),
    }


def encode_clip(video: Video, row: ScoreRow, encoders: Encoders, batch: int) -> Encoded:
    """Encode a clip to mean and std, float16 `frames c h w`, and a base clip's picture by CLIP vision to `l d`.

    Raises:
        Unusable: the video has changed since it was scored, or its latents are not finite.
    """
    [size] = parse_sizes(row["bucket"])
    frames = frames_at(video, row["pts"], size=size)
    moments = [encoders.latents(part) for part in frames.split(batch)]
    encoded = {part: torch.cat([pair[place] for pair in moments]) for place, part in enumerate(ENCODED[:2])}
    if encoders.vision is not None and row["role"] == "base":
        encoded["vision"] = encoders.vision.features(frames[centre_index(len(frames))][None])[0]
    encoded = {part: tensor.half() for part, tensor in encoded.items()}
    if not all(tensor.isfinite().all() for tensor in encoded.values()):
        raise Unusable("its latents are not finite; with --dtype fp32 or bf16 they may be")
    return encoded


def _spread_captions(captions: Sequence[str], count: int) -> list[str]:
    """Pick `count` captions evenly; fewer are repeated, and without any the empty prompt is used."""
    texts = list(captions) or [""]
    if len(texts) > count:
        return [texts[place * len(texts) // count] for place in range(count)]
    return [texts[place % len(texts)] for place in range(count)]
