"""Studies `anchor` and `motion`: what centre-trained weights do with a picture elsewhere, and at other gammas.

Both use clips of the train split, because they are there to choose an option of the nodes. `anchor` samples more
frames than are kept: the picture stands at the centre of what the model sees, and at the first or the last frame of
what is kept. `motion` varies gamma, the share of the picture in the starting noise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean, weighted_median
from microcinema_core.metrics.distance import KernelDistance
from microcinema_core.networks.appearance_input import Anchor, anchor_index
from microcinema_core.train.sheets import grid, save_picture

from ..world.render import BASE_TIMES, CENTRE_INDEX, CENTRE_TIME, Clip
from .evaluation_context import EvaluationContext
from .measures import box_psnr, colour_histograms, object_masks
from .mini_pipeline import FRAMES, DDIMSettings, slices
from .protocol import CaptionedClip, backgrounds, evaluation_clips, frames, motion_clips, silhouettes
from .results import Estimate
from .text import CLASSES, TRAIN_SUBJECTS, MotionClassifier, extent_slopes

BATCH = 8
ORDER_SEED = 11
REPEATED = "repeated frame"
CENTRE: Anchor = "centre"
ANCHORS: tuple[Anchor, ...] = (CENTRE, "first", "last")
FACTORS = (2.0, 1.5, 1.0, 0.5, 0.25)
"""Gammas of the study `motion`, in units of the recommended one."""
NEAR, FAR = slice(0, CENTRE_INDEX), slice(CENTRE_INDEX, None)
"""Distances 1 to 4 from the picture, as in training, and beyond."""


def centred_window(index: int, count: int) -> tuple[int, slice]:
    """Return how many frames to sample around a picture, and which to keep.

    The picture is the centre of the sampled frames, and has this index among the kept ones.

    Args:
        index: index of the picture among the frames that are kept.
        count: number of frames that are kept.

    Raises:
        ValueError: the index is outside the video.
    """
    if not 0 <= index < count:
        raise ValueError(f"a video of {count} frames has no frame {index}")
    reach = max(index, count - 1 - index)
    return 2 * reach + 1, slice(reach - index, reach - index + count)


def anchored(clip: Clip, index: int) -> Clip:
    """Return the same movement, with the clip's centre frame at index `index` of `BASE_TIMES`.

    Args:
        clip: a clip whose loop closes.
        index: 0 to 8.
    """
    later = CENTRE_TIME - BASE_TIMES[index]
    (centre,), (side,) = clip.placements([CENTRE_TIME + later])
    x, y = centre.tolist()
    return replace(clip, phase=clip.phase + later, centre=(x, y), side=float(side))


def by_distance(values: Tensor, index: int, *, steps: bool = False) -> Tensor:
    """Average values of frames that are equally far from the picture, (n, d), from distance 1 on.

    Args:
        values: one value for each frame, (n, f), or, with `steps`, for each pair of neighbours, (n, f - 1).
        index: the picture's index.
        steps: a pair counts at the distance of its outer frame.
    """
    distances = [
        max(abs(i - index), abs(i + 1 - index)) if steps else abs(i - index) for i in range(values.shape[1])
    ]
    columns = []
    for distance in range(1, max(distances) + 1):
        at = [i for i, d in enumerate(distances) if d == distance]
        columns.append(values[:, at].mean(1))
    return torch.stack(columns, dim=1)


def frame_steps(videos: Tensor, index: int) -> Tensor:
    """Return the mean absolute difference of neighbours by distance from the picture, (n, d), of `n f c h w`."""
    return by_distance(videos.diff(dim=1).abs().mean((2, 3, 4)), index, steps=True)


def colour_drift(videos: Tensor, grounds: Tensor, index: int) -> Tensor:
    """Return how far the object's colours are from the picture's, by distance from it, (n, d).

    This is `histogram_drift` with the picture at any index, frame by frame.

    Args:
        videos: pictures `n f c h w`.
        grounds: their backgrounds `n c h w`.
        index: the picture's index.
    """
    roots = colour_histograms(videos, object_masks(videos, grounds)).sqrt()
    distance = (1 - (roots * roots[:, index : index + 1]).sum(2)).clamp(min=0).sqrt()
    return by_distance(distance, index)


@dataclass(frozen=True)
class Take:
    """One way to make a video of nine frames from a picture.

    Attributes:
        index: the picture's index.
        gamma: share of the picture in the starting noise.
    """

    index: int
    gamma: float


@dataclass(frozen=True)
class Measured:
    """Numbers of one take: a row for each clip and seed (n), a column for each distance from the picture (d).

    Attributes:
        lost: PSNR in dB of the given frame, in the object's box, that sampling loses against the VAE (n,).
        steps, real_steps: differences of neighbouring frames (n, d), sampled and real.
        drift, real_drift: drift of the object's colours (n, d), sampled and real.
        features, real, still: I3D logits (n, 400) of the sampled video, the real one and the repeated picture.
        far, real_far, far_still: the same of the last five frames of an outer picture, each shown twice.
    """

    lost: Tensor
    steps: Tensor
    real_steps: Tensor
    drift: Tensor
    real_drift: Tensor
    features: Tensor
    real: Tensor
    still: Tensor
    far: Tensor
    real_far: Tensor
    far_still: Tensor


@dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes:
        keys: motion keys of the rows.
        takes: measurements by name of the take.
        sheets: real and sampled videos `n f c h w` of the first clips, by name of the take.
    """

    keys: tuple[str, ...]
    takes: dict[str, Measured]
    sheets: dict[str, tuple[Tensor, Tensor]]


def validation_clips(folder: Path, count: int) -> list[CaptionedClip]:
    """Choose clips of `count` different train motions at random, in their second placement."""
    chosen = evaluation_clips(folder, clips_per_key=2, split="train")[1::2]
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(ORDER_SEED))
    return [chosen[i] for i in order[:count].tolist()]


def sample_takes(
    evaluation: EvaluationContext,
    takes: Mapping[str, Take],
    pictures: Tensor,
    captions: Sequence[str],
    seed: int,
) -> dict[str, Tensor]:
    """Sample the videos `n f c h w` of each take; takes that keep parts of the same frames share them.

    Args:
        evaluation: models and settings.
        takes: what to sample.
        pictures: latents `n c h w`.
        captions: one for each picture.
        seed: seed of the noise.
    """
    text, empty = evaluation.pipeline.encode_text(captions), evaluation.pipeline.encode_text([""])
    sampled: dict[tuple[int, float], Tensor] = {}
    videos = {}
    for name, take in takes.items():
        length, kept = centred_window(take.index, FRAMES)
        if (length, take.gamma) not in sampled:
            settings: DDIMSettings = replace(evaluation.base_settings, gamma=take.gamma).seeded(seed)
            latents = evaluation.base.sample(pictures, text, empty, frames=length, **asdict(settings))
            sampled[length, take.gamma] = evaluation.pipeline.decode(latents)
        videos[name] = sampled[length, take.gamma][:, kept]
    return videos


def measure(
    evaluation: EvaluationContext, chosen: Sequence[CaptionedClip], takes: Mapping[str, Take], seeds: int
) -> Study:
    """Render, sample and measure batch by batch.

    Args:
        evaluation: models, data and settings.
        chosen: the clips; their centre frames are the pictures.
        takes: what to sample.
        seeds: samples of each clip and take.
    """
    rows: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
    keys: list[str] = []
    sheets: dict[str, tuple[Tensor, Tensor]] = {}
    for part in slices(len(chosen), BATCH):
        batch = chosen[part]
        truth = _Truth.of(evaluation, [one.clip for one in batch], takes)
        for seed in range(seeds):
            videos = sample_takes(
                evaluation, takes, truth.latents, [one.caption for one in batch], 1000 * seed + part.start
            )
            for name, take in takes.items():
                rows[name].append(truth.measure(evaluation, videos[name], take.index))
                sheets.setdefault(name, (truth.real[take.index], videos[name]))
            keys += [one.key for one in batch]
            evaluation.log(f"{min(part.stop, len(chosen))} of {len(chosen)} clips, seed {seed}")
    joined = {
        name: Measured(**{field: torch.cat([row[field] for row in each]) for field in each[0]})
        for name, each in rows.items()
    }
    return Study(tuple(keys), joined, sheets)


@dataclass(frozen=True)
class _Truth:
    """A batch's pictures, and the real videos around them by the picture's index.

    Attributes:
        pictures, latents, coded: the given pictures `n c h w`, their latents, and those decoded.
        silhouettes: alpha of the objects in them, `n h w`.
        grounds: backgrounds `n c h w`.
        real: real videos `n f c h w`, by the picture's index.
        features: I3D logits of each real video and of its last frames, by the picture's index.
        still: I3D logits of the repeated picture, and of five of its frames.
    """

    pictures: Tensor
    latents: Tensor
    coded: Tensor
    silhouettes: Tensor
    grounds: Tensor
    real: dict[int, Tensor]
    features: dict[int, tuple[Tensor, Tensor]]
    still: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, evaluation: EvaluationContext, clips: Sequence[Clip], takes: Mapping[str, Take]) -> _Truth:
        pictures = frames(evaluation.emoji, clips, [CENTRE_TIME])
        latents = evaluation.pipeline.encode(pictures)
        coded = evaluation.pipeline.decode(latents)
        real = {
            index: frames(evaluation.emoji, [anchored(clip, index) for clip in clips], BASE_TIMES)
            for index in sorted({take.index for take in takes.values()})
        }
        return cls(
            pictures=pictures[:, 0],
            latents=latents[:, 0],
            coded=coded[:, 0],
            silhouettes=silhouettes(evaluation.emoji, clips, CENTRE_TIME),
            grounds=backgrounds(clips),
            real=real,
            features={index: _features(evaluation, videos, index) for index, videos in real.items()},
            still=_features(evaluation, coded.expand(-1, FRAMES, -1, -1, -1), 0),
        )

    def measure(self, evaluation: EvaluationContext, videos: Tensor, index: int) -> dict[str, Tensor]:
        """Return the fields of `Measured` for one batch."""
        features, far = _features(evaluation, videos, index)
        vae = box_psnr(self.coded, self.pictures, self.silhouettes)
        return {
            "lost": vae - box_psnr(videos[:, index], self.pictures, self.silhouettes),
            "steps": frame_steps(videos, index),
            "real_steps": frame_steps(self.real[index], index),
            "drift": colour_drift(videos, self.grounds, index),
            "real_drift": colour_drift(self.real[index], self.grounds, index),
            "features": features,
            "real": self.features[index][0],
            "still": self.still[0],
            "far": far,
            "real_far": self.features[index][1],
            "far_still": self.still[1],
        }


def _features(evaluation: EvaluationContext, videos: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """Return I3D logits of the videos, and of the five frames from the outermost one on, each shown twice."""
    outer = videos[:, : CENTRE_INDEX + 1] if index == FRAMES - 1 else videos[:, CENTRE_INDEX:]
    return evaluation.features(videos), evaluation.features(outer.repeat_interleave(2, dim=1))


def motion_ratio(measured: Measured, distances: slice) -> Callable[[Tensor], float]:
    """Return the statistic of clip weights: median of the motion relative to the real clip's."""
    ratio = measured.steps[:, distances].mean(1) / measured.real_steps[:, distances].mean(1).clamp(min=1e-6)
    return partial(weighted_median, ratio)


def drift_ratio(measured: Measured, distances: slice) -> Callable[[Tensor], float]:
    """Return the statistic of clip weights: drift of the colours relative to the real clips'."""
    ours, real = measured.drift[:, distances].mean(1), measured.real_drift[:, distances].mean(1)
    return lambda w: weighted_mean(ours, w) / weighted_mean(real, w)


def gap_closed(
    keys: Sequence[str], real: Tensor, still: Tensor, made: Tensor
) -> tuple[KernelDistance, Callable[[Tensor], float]]:
    """Return the kernel distance, and the share of the repeated picture's distance that is closed."""
    ours, repeated = KernelDistance(real, made, keys), KernelDistance(real, still, keys)
    return ours, lambda w: 1 - ours.value(w) / repeated.value(w)


def prompted_motion(
    evaluation: EvaluationContext, subjects: int, takes: Mapping[str, Take]
) -> dict[str, tuple[Tensor, Tensor, tuple[str, ...]]]:
    """Find which clips show the motion of their prompt.

    Args:
        evaluation: models, data and settings.
        subjects: train subjects that the classifiers were not trained on; each gets all six motions.
        takes: what to sample.

    Returns:
        By take: whether each sampled clip is right (n,), the same for real clips, and the clips' motion keys.
    """
    pool = motion_clips(evaluation.emoji, subjects=TRAIN_SUBJECTS + subjects, split="train")
    learnt, chosen = pool[: TRAIN_SUBJECTS * CLASSES], pool[TRAIN_SUBJECTS * CLASSES :]
    indices = sorted({take.index for take in takes.values()})
    classify = {index: _classifier(evaluation, learnt, index) for index in indices}
    right: dict[str, list[Tensor]] = defaultdict(list)
    right_real: dict[int, list[Tensor]] = defaultdict(list)
    wanted = torch.arange(CLASSES)
    for part in slices(len(chosen), CLASSES):
        clips, captions = [one.clip for one in chosen[part]], [one.caption for one in chosen[part]]
        grounds = backgrounds(clips)
        latents = evaluation.pipeline.encode(frames(evaluation.emoji, clips, [CENTRE_TIME]))[:, 0]
        videos = sample_takes(evaluation, takes, latents, captions, part.start)
        for name, take in takes.items():
            right[name].append((classify[take.index](videos[name], grounds) == wanted).float())
        for index in indices:
            real = frames(evaluation.emoji, [anchored(clip, index) for clip in clips], BASE_TIMES)
            right_real[index].append((classify[index](real, grounds) == wanted).float())
        evaluation.log(f"prompted motion: {part.stop} of {len(chosen)} clips")
    keys = tuple(one.key for one in chosen)
    return {
        name: (torch.cat(right[name]), torch.cat(right_real[take.index]), keys)
        for name, take in takes.items()
    }


def _classifier(
    evaluation: EvaluationContext, learnt: Sequence[CaptionedClip], index: int
) -> MotionClassifier:
    """Train a classifier of motions on real clips with the picture at this index."""
    features = []
    for part in slices(len(learnt), 10 * CLASSES):
        clips = [anchored(one.clip, index) for one in learnt[part]]
        features.append(extent_slopes(frames(evaluation.emoji, clips, BASE_TIMES), backgrounds(clips)))
    return MotionClassifier(torch.cat(features), torch.arange(len(learnt)) % CLASSES)


def study_anchor(evaluation: EvaluationContext, clips: int, seeds: int, out: Path) -> str:
    """Measure the picture at the centre, first and last of nine frames; return Markdown tables.

    Args:
        evaluation: models, data and settings.
        clips: number of train clips. `evaluation.subjects` others are animated with the six motions.
        seeds: samples of each clip.
        out: folder of the contact sheets.
    """
    gamma = evaluation.base_settings.gamma
    takes: dict[str, Take] = {name: Take(anchor_index(name, FRAMES), gamma) for name in ANCHORS}
    return _study(evaluation, "anchor", takes, CENTRE, clips, seeds, out)


def study_motion(evaluation: EvaluationContext, clips: int, seeds: int, out: Path) -> str:
    """Measure multiples of the recommended gamma; return Markdown tables. The arguments are `study_anchor`'s."""
    gamma = evaluation.base_settings.gamma
    takes = {f"{factor:g} gamma": Take(CENTRE_INDEX, factor * gamma) for factor in FACTORS}
    return _study(evaluation, "motion", takes, "1 gamma", clips, seeds, out)


STUDIES: dict[str, Callable[[EvaluationContext, int, int, Path], str]] = {
    "anchor": study_anchor,
    "motion": study_motion,
}


def _study(
    evaluation: EvaluationContext,
    study: str,
    takes: Mapping[str, Take],
    base: str,
    clips: int,
    seeds: int,
    out: Path,
) -> str:
    found = measure(evaluation, validation_clips(evaluation.emoji, clips), takes, seeds)
    for name, (real, videos) in found.sheets.items():
        write_sheet(out / f"{study}_{name.replace(' ', '_')}.png", real, videos)
    said = prompted_motion(evaluation, evaluation.subjects, takes) if evaluation.subjects else {}
    return "\n\n".join(
        [
            summary(evaluation, found, said),
            differences(evaluation, found, said, base),
            distances(evaluation, found, base),
        ]
    )


def write_sheet(path: Path, real: Tensor, videos: Tensor) -> None:
    """Write two rows for each clip `n f c h w`, the real frames and the sampled ones."""
    tiles = torch.stack([real, videos], dim=1).flatten(0, 2)
    save_picture(path, grid(tiles, real.shape[1]))


Said = Mapping[str, tuple[Tensor, Tensor, tuple[str, ...]]]
COLUMNS = (
    "given frame, PSNR lost",
    "motion at distances 1 to 4",
    "beyond",
    "drift at 1 to 4",
    "beyond",
    "kernel distance",
    "gap closed",
    "gap closed, outer five frames",
    "motion of the prompt",
)


def statistics(keys: Sequence[str], measured: Measured) -> list[Callable[[Tensor], float] | None]:
    """Return the statistics of clip weights behind all columns but the last; None where there is no such frame."""
    beyond = measured.steps.shape[1] > CENTRE_INDEX
    kernel, closed = gap_closed(keys, measured.real, measured.still, measured.features)
    _, closed_far = gap_closed(keys, measured.real_far, measured.far_still, measured.far)
    return [
        partial(weighted_mean, measured.lost),
        motion_ratio(measured, NEAR),
        motion_ratio(measured, FAR) if beyond else None,
        drift_ratio(measured, NEAR),
        drift_ratio(measured, FAR) if beyond else None,
        kernel.value,
        closed,
        closed_far,
    ]


def summary(evaluation: EvaluationContext, found: Study, said: Said) -> str:
    """Return a table with one row for each take, and one for the repeated picture."""
    weights = evaluation.resamples(found.keys)
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, measured in found.takes.items():
        cells = [Estimate.of(one, weights).show() if one else "" for one in statistics(found.keys, measured)]
        if name in said:
            right, real, keys = said[name]
            share = Estimate.of(partial(weighted_mean, right), evaluation.resamples(keys))
            cells.append(f"{share.show()}, real {float(real.mean()):.2f}")
        lines.append(_row(name, cells))
    repeated: dict[str, list[str]] = defaultdict(list)
    for name, measured in found.takes.items():
        distance = KernelDistance(measured.real, measured.still, found.keys)
        repeated[Estimate.of(distance.value, weights).show()].append(name)
    for kernel, names in repeated.items():
        lines.append(_row(f"{REPEATED}, beside {', '.join(names)}", [*"00000", kernel, *"00"]))
    return "\n".join(lines)


def differences(evaluation: EvaluationContext, found: Study, said: Said, base: str) -> str:
    """Return a table of each take's difference from the take `base`, paired by clip and seed.

    What lies beyond the distances of `base` is compared with its outermost distances.
    """
    weights = evaluation.resamples(found.keys)
    lines = [f"| minus {base} | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    reference = statistics(found.keys, found.takes[base])
    reference = [own or reference[i - 1] for i, own in enumerate(reference)]
    for name, measured in found.takes.items():
        if name == base:
            continue
        cells = [
            Estimate.of(partial(_minus, one, other), weights).show() if one and other else ""
            for one, other in zip(statistics(found.keys, measured), reference, strict=True)
        ]
        if name in said:
            right = said[name][0] - said[base][0]
            share = Estimate.of(partial(weighted_mean, right), evaluation.resamples(said[name][2]))
            cells.append(share.show())
        lines.append(_row(name, cells))
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str], columns: int = len(COLUMNS)) -> str:
    """Format a row of a Markdown table; missing cells are empty."""
    return f"| {name} | {' | '.join([*cells, *[''] * (columns - len(cells))])} |"


def _minus(one: Callable[[Tensor], float], other: Callable[[Tensor], float], w: Tensor) -> float:
    return one(w) - other(w)


def distances(evaluation: EvaluationContext, found: Study, base: str) -> str:
    """Return a table of motion and drift at each distance from the picture, relative to the real clips'.

    Takes that reach further than `base` also have a row of their differences from its outermost distance.
    """
    weights = evaluation.resamples(found.keys)
    reach = {name: measured.steps.shape[1] for name, measured in found.takes.items()}
    count = max(reach.values())
    lines = [f"| distance | {' | '.join(map(str, range(1, count + 1)))} |", "|---" * (count + 1) + "|"]
    for what, statistic in (("motion", motion_ratio), ("drift", drift_ratio)):
        end = statistic(found.takes[base], slice(reach[base] - 1, None))
        for name, measured in found.takes.items():
            each = [statistic(measured, slice(d, d + 1)) for d in range(reach[name])]
            lines.append(_row(f"{what}, {name}", [Estimate.of(one, weights).show() for one in each], count))
            if reach[name] > reach[base]:
                less = [Estimate.of(partial(_minus, one, end), weights).show() for one in each]
                lines.append(_row(f"the same minus {base} at {reach[base]}", less, count))
    return "\n".join(lines)
