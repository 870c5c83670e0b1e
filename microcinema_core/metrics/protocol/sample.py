"""Make the samples of a prompt list, without ComfyUI: centre frame, key frames, interpolation, one video at a time.

All noise of a sample comes from its own seed, so the videos do not depend on which process made them. Existing files
are kept: repeat the command to continue. Several processes may share a list (`--part`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ...data.tokens import MAX_TEXT_TOKENS
from ...diffusion import tsr
from ...diffusion.ddim import KnownFrames
from ...diffusion.image_model import ImageModel
from ...diffusion.video_model import VideoModel
from ...files.atomic import atomic_write
from ...files.checkpoint import read_checkpoint
from ...files.load_networks import load_video_model
from ...messages import counted, one_line
from ...model_spec import ModelSpec, SamplerDefaults
from ..video_output import write_frames
from .centres import CENTRES, PICTURE_SUFFIXES, pictures_of, read_picture
from .encoders import Surroundings, count_cut, drawn_size, load_centre_model, load_surroundings
from .prompts import SEEDS, Prompt, captions_of, read_prompts
from .run_record import (
    RECORD,
    TEXT_FILES,
    check_record,
    describe_centres,
    digest,
    digest_of_files,
    digest_of_prompts,
)

logger = logging.getLogger(__name__)

IMAGE_SEED = 1 << 40
"""Added to a sample's seed for its centre frame, so that both stages have noise of their own."""


@dataclass(frozen=True)
class Settings:
    """Settings of DDIM that were given; None takes those of the model's file."""

    steps: int | None = None
    cfg: float | None = None
    gamma: float | None = None

    def completed(self, spec: ModelSpec) -> SamplerDefaults:
        """Return all settings."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(spec.sampling, **given)


@dataclass(frozen=True)
class SampleOptions:
    """The checked options of the action `sample`; its `--help` describes them."""

    out: Path
    base: Path | None
    encoders: Path
    tokenizer: Path
    tsr: Path | None = None
    rounds: int = 0
    centres: Path | None = None
    captions: Path | None = None
    frames: int = 17
    size: tuple[int, int] = (320, 320)
    image_size: tuple[int, int] | None = None
    """Width and height of drawn centre frames; None: those that the image model was trained at."""
    base_settings: Settings = Settings()
    image_settings: Settings = Settings()
    tsr_settings: Settings = Settings()
    fps: float | None = None
    part: tuple[int, int] = (1, 1)
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


def sample(options: SampleOptions) -> int:
    """Make all samples of this part that are missing, and return how many there are to make in this part.

    Without a base model only the centre frames are drawn.

    Raises:
        ValueError: an input is not what was expected; the message names it.
        OSError: the folder cannot be written to.
    """
    number, parts = options.part
    whole = read_prompts(options.out)
    prompts = whole[number - 1 :: parts]
    captions = captions_of(options.captions, prompts) if options.captions is not None else {}
    if options.centres is not None:
        pictures_of(options.centres, prompts)
    texts = {prompt.stem: captions.get(prompt.stem, prompt.text) for prompt in prompts}
    sampler = Sampler(options)
    record(options, whole, captions)
    note_cut_texts(options, prompts, texts)
    for prompt in _watched(prompts):
        sampler.make(prompt, texts[prompt.stem])
    return len(prompts)


def note_cut_texts(options: SampleOptions, prompts: Sequence[Prompt], texts: Mapping[str, str]) -> None:
    """Log how many of the texts that this run reads are longer than the text encoder takes."""
    drawn = [prompt.text for prompt in prompts] if options.centres is None else []
    read = {*drawn, *(texts.values() if options.base is not None else ())}
    if cut := count_cut(options.tokenizer, read):
        logger.info("%s longer than %d tokens: the rest is cut off", counted(cut, "text"), MAX_TEXT_TOKENS)


def record(options: SampleOptions, whole: Sequence[Prompt], captions: Mapping[str, str]) -> None:
    """Write how the samples are made into their folders; errors as for `check_record`."""
    shared = {
        "prompts": digest_of_prompts(whole),
        "encoders": digest_of_files(options.encoders),
        "tokenizer": digest_of_files(options.tokenizer, TEXT_FILES),
        "dtype": str(options.dtype).removeprefix("torch."),
    }
    centres = options.out / CENTRES
    if options.centres is None:
        drawn = [centres / f"{prompt.stem}{suffix}" for prompt in whole for suffix in PICTURE_SUFFIXES]
        settings = {
            "image size": list(options.image_size) if options.image_size else "the model's own",
            "image settings": asdict(options.image_settings),
        }
        check_record(centres / RECORD, {**shared, **settings}, drawn, f"centre frames in {one_line(centres)}")
    if options.base is None:
        return
    rounds = options.rounds if options.tsr else 0
    facts = {
        **shared,
        "base": digest_of_files(options.base),
        "tsr": digest_of_files(options.tsr) if rounds else None,
        "rounds": rounds,
        "size": list(options.size),
        "frames": options.frames,
        "captions": digest(captions) if captions else None,
        "centre frames": describe_centres(options.centres or centres, options.out),
        "base settings": asdict(options.base_settings),
        "tsr settings": asdict(options.tsr_settings) if rounds else None,
        "fps": options.fps,
    }
    videos = [options.out / prompt.file_name for prompt in whole]
    check_record(options.out / RECORD, facts, videos, f"videos in {one_line(options.out)}")


def _watched(prompts: Sequence[Prompt]) -> Any:
    from tqdm import tqdm

    return tqdm(prompts, desc="samples", unit="video", disable=not sys.stderr.isatty())


class Sampler:
    """The networks, and the three stages of a sample."""

    def __init__(self, options: SampleOptions) -> None:
        self.options = options
        self.around: Surroundings = load_surroundings(options.encoders, options.tokenizer, options.device)
        self.image: ImageModel | None = None
        self.base = self._video_model(options.base, "base") if options.base else None
        if self.base is not None:
            self.base.unet.require_numbered(options.frames)
        self.tsr = self._video_model(options.tsr, "tsr") if options.tsr and options.rounds else None
        self.empty = self.around.contexts([""])

    def _video_model(self, path: Path, role: str) -> VideoModel:
        model = load_video_model(read_checkpoint(path, expect_roles=(role,)), dtype=self.options.dtype)
        if model.appearnet.config.resampler is not None:
            raise ValueError(
                f"{one_line(path.name)} also looks at pictures through CLIP vision: make its samples with ComfyUI "
                "(devtools.run.batch)"
            )
        for network in (model.unet, model.appearnet):
            network.to(self.options.device)
        return model

    def make(self, prompt: Prompt, text: str) -> None:
        """Make one video, unless it is there; `text` is what the video model reads."""
        target = self.options.out / prompt.file_name
        if target.exists() or (self.base is None and self._drawn(prompt).exists()):
            return
        centre = self.centre_frame(prompt)
        if self.base is None:
            return
        context = self.around.contexts([text])
        keys = self.key_frames(self.around.encode(centre), context, prompt.seed)
        frames = self.interpolated(keys, context, prompt.seed)
        rate = self.options.fps or tsr.fps_after(self.base.spec.fps, self.options.rounds if self.tsr else 0)
        write_video(target, self.around.decode(frames), rate)

    def _drawn(self, prompt: Prompt) -> Path:
        return self.options.out / CENTRES / f"{prompt.stem}.png"

    def centre_frame(self, prompt: Prompt) -> Tensor:
        """Return the centre frame `1 3 h w` in [-1, 1]: that of the folder, or one that the image model draws.

        Raises:
            ValueError: the picture cannot be read.
        """
        width, height = self.options.size
        if self.options.centres is not None:
            return read_picture(self.options.centres, prompt.stem, width=width, height=height)
        path = self._drawn(prompt)
        if not path.exists():
            self._draw(prompt, path)
        return read_picture(path.parent, path.stem, width=width, height=height)

    def _draw(self, prompt: Prompt, path: Path) -> None:
        if self.image is None:
            self.image = load_centre_model(self.options.encoders, self.options.device, self.options.dtype)
        width, height = self.options.image_size or drawn_size(self.options.encoders, self.image)
        seed = (prompt.seed + IMAGE_SEED) % SEEDS
        noise = _noise((1, self.around.channels, height // 8, width // 8), seed)
        settings = self.options.image_settings.completed(self.image.spec)
        context = self.around.contexts([prompt.text])
        latents = self.image.sample(
            context, self.empty, noise, steps=settings.steps, guidance_scale=settings.cfg
        )
        write_picture(path, self.around.decode(latents)[0])

    def key_frames(self, z_c: Tensor, context: Tensor, seed: int) -> Tensor:
        """Sample the key frames `f c h w` around a centre frame's latents `1 c h w`."""
        assert self.base is not None
        frames, settings = self.options.frames, self.options.base_settings.completed(self.base.spec)
        noise = _noise((1, frames, *z_c.shape[1:]), seed)
        return self.base.sample(
            z_c, context, self.empty, frames=frames, steps=settings.steps, guidance_scale=settings.cfg,
            gamma=settings.gamma, noise=noise,
        )[0].float()  # fmt: skip

    def interpolated(self, keys: Tensor, context: Tensor, seed: int) -> Tensor:
        """Interpolate key frames `k c h w` by TSR; without it they are returned as they are."""
        model = self.tsr
        if model is None:
            return keys
        settings = self.options.tsr_settings.completed(model.spec)

        def windows(batch: tsr.Windows) -> Tensor:
            count = len(batch.noise) // batch.frames
            split = lambda x: rearrange(x, "(p f) c h w -> p f c h w", p=count).to(keys)  # noqa: E731
            known = KnownFrames(split(batch.latents), split(batch.mask))
            made = model.sample(
                batch.appearance.to(keys), context.expand(count, -1, -1), self.empty, frames=batch.frames,
                steps=settings.steps, guidance_scale=settings.cfg, gamma=settings.gamma,
                given=known, noise=split(batch.noise),
            )  # fmt: skip
            return rearrange(made, "p f c h w -> (p f) c h w").float()

        return tsr.interpolate(keys, windows, shape=model.spec.window, rounds=self.options.rounds, seed=seed)


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_bytes(pictures: Tensor) -> np.ndarray:
    """Convert pictures `n 3 h w` in [-1, 1] to uint8 `n h w 3`."""
    levels = ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "n c h w -> n h w c").cpu().numpy()


def write_picture(path: Path, picture: Tensor) -> None:
    """Write a picture `3 h w` in [-1, 1] as a PNG that is there as a whole or not at all."""
    [pixels] = to_bytes(picture[None])
    with atomic_write(path, suffix=".png") as part:
        Image.fromarray(pixels).save(part)


def write_video(path: Path, pictures: Tensor, fps: float) -> None:
    """Write pictures `f 3 h w` in [-1, 1] as a video without loss, so that the codec changes no score."""
    options = {"qp": "0", "preset": "veryfast"}
    write_frames(path, to_bytes(pictures), fps, codec="libx264rgb", pixels="rgb24", options=options)
