"""The mini world on a device: draws subjects, motions, places and captions as `world.clips` does, and renders them.

Sprites are placed by the same separable resampling as on the CPU (`world.compose`), two batched products for each
frame; backgrounds are drawn and cropped there too. Nothing waits for the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ..world.archive import STRIDE, Archive, Entry
from ..world.backgrounds import KINDS, PICTURE_KINDS
from ..world.caption_bank import COLOUR_NAMED, GRADIENT, GRADIENT_NAMED, HEADS, PLAIN, WORDINGS, CaptionBank
from ..world.clips import (
    FRAMES,
    NAMED_SHARE,
    RIGID_CENTRED,
    RIGID_GROWTH,
    RIGID_MOVED_SHARE,
    RIGID_SPEED,
    STILL_SHARE,
    SetRole,
)
from ..world.compose import over, place
from ..world.pictures import PICTURE_CENTRE, PICTURE_SIDE, PICTURE_SIZE, SCALES, SLACK
from ..world.render import BASE_STRIDE, BASE_TIMES, CENTRE_TIME, GROWTH, MOTIONS, PLAY_FPS, STEPS
from .backgrounds import ORDER, Backgrounds
from .draws import DeviceRandom

CHUNK = 1024
"""Frames that are rendered at once; a thousand take about 1.5 GB."""
SMALLEST = 0.25
"""No subject is shown smaller, in fractions of the picture's edge."""


@dataclass(frozen=True)
class Group:
    """Subjects to choose from, motion keys being equally likely.

    Attributes:
        subjects: numbers of the subjects, sorted by motion key, (n,).
        first, count: where each motion key's subjects begin among them, and how many there are, (keys,).
    """

    subjects: Tensor
    first: Tensor
    count: Tensor

    @classmethod
    def of(cls, entries: Sequence[Entry], numbers: Sequence[int], device: torch.device) -> Group:
        """Group the entries with these numbers."""
        by_key: dict[str, list[int]] = {}
        for number in numbers:
            by_key.setdefault(entries[number].motion_key, []).append(number)
        counts = [len(group) for group in by_key.values()]
        if not counts:
            raise ValueError(
                "the archive has no subjects of a kind that is trained: it needs stills and closed loops"
            )
        first = list(accumulate(counts, initial=0))[:-1]
        flat = [number for group in by_key.values() for number in group]
        return cls(*(torch.tensor(values, device=device) for values in (flat, first, counts)))

    def draw(self, count: int, random: DeviceRandom) -> Tensor:
        """Draw (count,) numbers of subjects."""
        key = random.integers(len(self.count), (count,))
        variant = (random.uniform(count) * self.count[key]).long().clamp(max=self.count[key] - 1)
        return self.subjects[self.first[key] + variant]


@dataclass(frozen=True)
class Drawn:
    """A batch of clips before it is rendered.

    Attributes:
        subjects: number of each clip's subject, (n,).
        phase: place in its animation at time 0, (n,).
        centre, side: place and size at the centre frame, in fractions of the picture's edge, `n 2` and (n,).
        motion: added motion, 0 for none, else its number in `MOTIONS` from 1, (n,). Its animation stands still.
        speed: its speed per second, (n,); 0 for pictures, whose captions name a motion all the same.
    """

    subjects: Tensor
    phase: Tensor
    centre: Tensor
    side: Tensor
    motion: Tensor
    speed: Tensor


class World:
    """The sprites, photographs and captions of one split and role on a device.

    Args:
        archive: the world.
        split: whose subjects are shown.
        role: "image" for single pictures, "base" for clips of nine frames.
        device: where it lives.
        sprites: the archive's sprites on that device, which several worlds may share; None copies them.
    """

    def __init__(
        self, archive: Archive, split: str, role: SetRole, device: torch.device, sprites: Tensor | None = None
    ) -> None:
        self.role, self.device = role, device
        self.sprites = archive.sprites.to(device) if sprites is None else sprites
        entries = archive.entries
        longest = max(len(entry.order) for entry in entries)
        starts = accumulate((entry.stored for entry in entries), initial=0)
        order = [
            [start + number for number in entry.order] + [0] * (longest - len(entry.order))
            for start, entry in zip(starts, entries, strict=False)
        ]
        self.order = torch.tensor(order, device=device)
        self.length = torch.tensor([len(entry.order) for entry in entries], device=device)
        ours = [number for number, entry in enumerate(entries) if entry.split == split]
        moving = [number for number in ours if len(entries[number].order) > 1 and entries[number].closes]
        self.any = Group.of(entries, ours, device)
        if role == "base":
            self.moving = Group.of(entries, moving, device)
        kinds: Mapping[str, float] = PICTURE_KINDS if role == "image" else KINDS
        self.backgrounds = Backgrounds(archive.photos[split].to(device), PICTURE_SIZE, kinds)
        self.captions = CaptionBank.of(archive.captions, device)
        self.steps = torch.tensor([(0, 0), *(STEPS.get(motion, (0, 0)) for motion in MOTIONS)], device=device)
        self.growth = torch.tensor([0, *(GROWTH.get(motion, 0) for motion in MOTIONS)], device=device)
        self.middle = torch.tensor([PICTURE_CENTRE], device=device)
        times = BASE_TIMES if role == "base" else (CENTRE_TIME,)
        self.seconds = (torch.tensor(times, device=device) - CENTRE_TIME) / PLAY_FPS
        self.offsets = torch.arange(FRAMES[role], device=device) * (BASE_STRIDE // STRIDE)

    def draw(self, count: int, random: DeviceRandom) -> Drawn:
        """Draw clips as `ClipSampler` draws rigid ones, or pictures of which some are named a motion."""
        subjects, middle = self.any.draw(count, random), self.middle.expand(count, -1)
        single = self.role == "image"
        moved = random.uniform(count) < (NAMED_SHARE if single else STILL_SHARE + RIGID_MOVED_SHARE)
        motion = torch.where(moved, 1 + random.integers(len(MOTIONS), (count,)), 0)
        side = torch.full((count,), PICTURE_SIDE, device=self.device)
        if single:
            still = torch.zeros_like(side)
            return Drawn(subjects, self._phase(subjects, random), middle, side, motion, still)
        subjects = torch.where(moved, subjects, self.moving.draw(count, random))
        in_middle = random.uniform(count) < RIGID_CENTRED
        side = torch.where(in_middle, side, random.between(*SCALES, count))
        room = (1 - side) / 2 + SLACK
        centre = 0.5 + torch.stack([room * random.between(-1, 1, count) for _ in range(2)], dim=1)
        centre = torch.where(in_middle[:, None], middle, centre)
        speed = torch.where(self.growth[motion] != 0, RIGID_GROWTH, RIGID_SPEED)
        return Drawn(subjects, self._phase(subjects, random), centre, side, motion, speed)

    def _phase(self, subjects: Tensor, random: DeviceRandom) -> Tensor:
        length = self.length[subjects]
        return (random.uniform(len(subjects)) * length).long().clamp(max=length - 1)

    def frames(self, drawn: Drawn, backgrounds: Tensor) -> Tensor:
        """Render clips over backgrounds `n 3 s s`: RGB `(n f) 3 s s` in [-1, 1]."""
        frames = len(self.offsets)
        offsets = torch.where(drawn.motion[:, None] > 0, self.offsets[frames // 2], self.offsets)
        at = (drawn.phase[:, None] + offsets) % self.length[drawn.subjects, None]
        sprites = self.order[drawn.subjects[:, None], at].flatten()
        moved = (drawn.speed * (drawn.motion > 0))[:, None] * self.seconds
        centres = drawn.centre[:, None] + moved[..., None] * self.steps[drawn.motion][:, None]
        sides = drawn.side[:, None] * torch.exp(self.growth[drawn.motion][:, None] * moved)
        behind = torch.arange(len(at), device=self.device).repeat_interleave(frames)
        made = []
        for some, centre, side, clip in zip(
            *(x.split(CHUNK) for x in (sprites, centres.flatten(0, 1), sides.flatten(), behind)), strict=True
        ):
            pixels = self.sprites[some].float() / 255
            placed = place(pixels, centre, side, size=PICTURE_SIZE, smallest=SMALLEST)
            made.append(over(placed, backgrounds[clip]) * 2 - 1)
        return torch.cat(made)

    def tokens(self, drawn: Drawn, kind: Tensor, colour: Tensor, random: DeviceRandom) -> Tensor:
        """Draw a caption for each clip, int32 `n 77`, given its background's kind and colour."""
        count = len(drawn.subjects)
        phrase = 1 + (drawn.motion - 1) * WORDINGS + random.integers(WORDINGS, (count,))
        phrase = torch.where(drawn.motion > 0, phrase, 0)
        chance = random.uniform(count)
        flat = (kind == ORDER.index("flat")) & (chance < COLOUR_NAMED)
        graded = (kind == ORDER.index("gradient")) & (chance < GRADIENT_NAMED)
        named = torch.where(flat, 1 + colour, torch.where(graded, GRADIENT, PLAIN))
        return self.captions.compose(drawn.subjects, random.integers(HEADS, (count,)), phrase, named)

    def batch(self, count: int, random: DeviceRandom) -> tuple[Tensor, Tensor]:
        """Draw and render clips: RGB `(n f) 3 s s` in [-1, 1], and captions, int32 `n 77`."""
        drawn = self.draw(count, random)
        backgrounds, kind, colour = self.backgrounds.draw(count, random)
        return self.frames(drawn, backgrounds), self.tokens(drawn, kind, colour, random)
