"""A classifier of known subjects, trained on real pictures: the judge of text to image.

It has to tell the subjects apart in unseen pictures of them (other frames, places and backgrounds), and must not do so
by a blur of 8x8 colours. So it is trained on blurred pictures too, as a class of their own, and with colours shifted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from microcinema_core.files.safetensors_io import write_tensors

from ..world.backgrounds import random_background
from ..world.compose import over, place
from ..world.emoji import Emoji, read_catalogue
from ..world.encode import subjects_hash
from ..world.pictures import PICTURE_CENTRE, PICTURE_SIDE, PICTURE_SIZE, load_sprites, random_placement

SUBJECTS = 100
SEED = 2026
PICTURES = 40
"""Training pictures of each subject; they are augmented at random."""
CHECKS = 10
"""Unseen pictures of each subject that the classifier is checked on."""
SEEN = 64
"""Edge of the pictures that the classifier sees, in pixels."""
BLUR = 8
"""Edge of the pictures of colours alone."""
STEPS, BATCH, RATE = 1200, 48, 2e-3
NEAR_SCALES, NEAR_SLACK = (0.72, 0.9), -0.02
"""Places of subjects that are not centred: near the middle, as the first generation drew them."""
_KINDS = {"flat": 0.6, "gradient": 0.3, "photo": 0.05, "blurred": 0.05}


@dataclass(frozen=True)
class Subject:
    """A known subject: a motion key of the train split, and its variants."""

    key: str
    variants: tuple[Emoji, ...]

    def picture(self, folder: Path, rng: np.random.Generator, *, centred: bool) -> Tensor:
        """Render a picture `3 s s` in [-1, 1]: any variant and frame, in the middle or near it."""
        entry = self.variants[rng.integers(len(self.variants))]
        sprites = load_sprites(folder, entry.id, [int(rng.integers(entry.frames))])
        centre, side = (
            (PICTURE_CENTRE, PICTURE_SIDE)
            if centred
            else random_placement(rng, scales=NEAR_SCALES, slack=NEAR_SLACK)
        )
        background = random_background(rng, size=PICTURE_SIZE, kinds=_KINDS)
        placed = place(sprites, torch.tensor([centre]), torch.tensor([side]), size=PICTURE_SIZE)
        return over(placed, background.pixels)[0] * 2 - 1


def known_subjects(folder: Path, *, count: int = SUBJECTS) -> list[Subject]:
    """Draw subjects of the train split, at random but always the same."""
    groups: dict[str, list[Emoji]] = defaultdict(list)
    for entry in read_catalogue(folder, "train"):
        groups[entry.motion_key].append(entry)
    keys = sorted(groups)
    drawn = np.random.default_rng(SEED).permutation(len(keys))[:count]
    return [Subject(keys[i], tuple(groups[keys[i]])) for i in drawn]


def pictures_of(folder: Path, subjects: Sequence[Subject], *, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Render `count` pictures of each subject, half of them centred: `n 3 s s` in [-1, 1], and their labels (n,)."""
    rng = np.random.default_rng((SEED, seed))
    pictures = [one.picture(folder, rng, centred=k % 2 == 0) for one in subjects for k in range(count)]
    return torch.stack(pictures), torch.arange(len(subjects)).repeat_interleave(count)


def as_seen(pictures: Tensor) -> Tensor:
    """Shrink pictures `n 3 s s` to what the classifier sees."""
    return F.interpolate(pictures, size=(SEEN, SEEN), mode="area")


def blurred(pictures: Tensor, edge: int = BLUR) -> Tensor:
    """Return pictures `n c s s` as `edge` by `edge` colours, enlarged smoothly."""
    small = F.interpolate(pictures, size=(edge, edge), mode="area")
    return F.interpolate(small, size=pictures.shape[-2:], mode="bicubic", antialias=False).clamp(-1, 1)


class SubjectClassifier(nn.Module):
    """A small convolutional network; its last class means that no subject is recognised."""

    def __init__(self, classes: int, width: int = 40) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out, stride in ((width, 2), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 2)):
            convolution = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels * 16, classes + 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures `n 3 s s` in [-1, 1] to logits (n, classes + 1)."""
        return self.head(self.layers(as_seen(pictures)).flatten(1))

    @torch.no_grad()
    def recognise(self, pictures: Tensor) -> Tensor:
        """Return the most likely class of each picture, (n,); the number of subjects where there is none."""
        return torch.cat([self(part).argmax(1) for part in pictures.split(BATCH)])


def _augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Shift pictures by up to four pixels, scale and shift each channel's colours, soften some, add noise."""
    count = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    rows, columns = (torch.randint(-2, 3, (2,), generator=generator)).tolist()
    x = torch.roll(pictures, (rows, columns), (2, 3))
    soft = F.interpolate(
        F.interpolate(x, size=(SEEN // 2,) * 2, mode="area"), size=x.shape[-2:], mode="bilinear"
    )
    x = torch.lerp(x, soft, uniform(0, 1, 1, 1, 1) ** 2)
    x = x * uniform(0.7, 1.2, 3, 1, 1) + uniform(-0.25, 0.25, 3, 1, 1)
    return (x + uniform(0, 0.1, 1, 1, 1) * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


def train_classifier(folder: Path, subjects: Sequence[Subject]) -> SubjectClassifier:
    """Train on real pictures; the same seeds give the same classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = SubjectClassifier(len(subjects)).to(memory_format=torch.channels_last)
    pictures, labels = pictures_of(folder, subjects, count=PICTURES, seed=0)
    pictures = as_seen(pictures)
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    spare = BATCH // 8
    for _ in range(STEPS):
        picked = torch.randint(len(pictures), (BATCH,), generator=generator)
        x, wanted = _augmented(pictures[picked], generator), labels[picked].clone()
        edge = int(torch.randint(4, 13, (1,), generator=generator))
        x[:spare], wanted[:spare] = blurred(x[:spare], edge), len(subjects)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), wanted, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def get_classifier(folder: Path, subjects: Sequence[Subject], cache: Path) -> SubjectClassifier:
    """Return the classifier of these subjects, trained at its first use and kept in the folder `cache`."""
    path = cache / f"classifier-{subjects_hash(folder, 'train')}.safetensors"
    if not path.exists():
        trained = train_classifier(folder, subjects).state_dict()
        write_tensors(path, {name: tensor.contiguous() for name, tensor in trained.items()}, {})
    network = SubjectClassifier(len(subjects))
    network.load_state_dict(load_file(path))
    return network.eval()
