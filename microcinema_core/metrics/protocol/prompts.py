"""The prompt lists of the two benchmarks, with a file name and a seed for each sample.

A list is `metadata.jsonl` in the folder of the samples, so that every command finds the captions there.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import json_text
from ...data.videos.sources import UCF_NAME, class_caption
from ...files.atomic import atomic_write
from ...messages import one_line, reason
from .classes import UCF101

LIST = "metadata.jsonl"
EXAMPLE = '{"file_name": "00000.mp4", "text": "a video of surfing", "seed": 0}'
"""A line of a list."""
TEMPLATE = "a video of {}"
"""Table 3's *Simple* prompt: "a video of" and the class."""
SPLITS = ("test", "validate", "train", "all")
SEEDS = 2**64
"""Seeds are below this, as in ComfyUI."""


@dataclass(frozen=True)
class Prompt:
    """One sample to make.

    Attributes:
        file_name: name of its video.
        text: the prompt.
        seed: seed of all its noise.
        source: the class, or the video of the caption; a list of your own needs none.
    """

    file_name: str
    text: str
    seed: int
    source: str = ""

    @property
    def stem(self) -> str:
        """Its name without suffix, which its centre frame has too."""
        return Path(self.file_name).stem


def ucf101_prompts(
    count: int, *, template: str = TEMPLATE, videos: Mapping[str, int] | None = None, seed: int = 0
) -> list[Prompt]:
    """Return `count` prompts, the classes taking turns.

    Args:
        count: number of samples: 10,000 in Table 1, 2,000 in the ablations.
        template: text with {} for the class in words.
        videos: number of reference clips by class; classes then get as many samples, in proportion. None: all equal.
        seed: seed of the first sample; the others count up.

    Raises:
        ValueError: the template has no {}, `videos` names no class of UCF-101, or a seed is out of range.
    """
    if "{}" not in template:
        raise ValueError(f"the template {template!r} has no {{}} for the class")
    shares = _shares(count, dict.fromkeys(UCF101, 1) if videos is None else videos)
    kinds = [
        kind for turn in range(max(shares.values(), default=0)) for kind in UCF101 if shares[kind] > turn
    ]
    texts = [template.replace("{}", class_caption(kind)) for kind in kinds]
    return _numbered(list(zip(texts, kinds, strict=True)), seed)


def _shares(count: int, videos: Mapping[str, int]) -> Counter[str]:
    """Divide `count` among classes in proportion to their videos; the largest remainders are rounded up."""
    total = sum(videos.get(kind, 0) for kind in UCF101)
    if not total:
        raise ValueError("no clip of a class of UCF-101 was counted; at least one is needed")
    exact = {kind: count * videos.get(kind, 0) / total for kind in UCF101}
    shares = Counter({kind: int(share) for kind, share in exact.items()})
    by_remainder = sorted(
        UCF101, key=lambda kind: int(exact[kind]) - exact[kind]
    )  # stable, so ties keep their order
    shares.update(by_remainder[: count - shares.total()])
    return shares


def count_classes(folder: Path) -> Counter[str]:
    """Count the videos of each class in a folder of UCF-101.

    Raises:
        ValueError: it has none.
    """
    matches = (UCF_NAME.match(path.stem) for path in folder.rglob("*") if path.is_file())
    counts = Counter(match["kind"] for match in matches if match and match["kind"] in UCF101)
    if not counts:
        raise ValueError(
            f"--balance {one_line(folder)} has no file named as in UCF-101, such as v_Archery_g01_c01.avi; name the "
            "folder of its videos, or leave out --balance to have all classes equally often"
        )
    return counts


def msrvtt_prompts(
    path: Path, *, split: str = "test", caption: str = "random", count: int | None = None, seed: int = 0
) -> list[Prompt]:
    """Return one prompt for each video of a split of MSR-VTT, from its own JSON file.

    Args:
        path: `videodatainfo.json` with its lists `videos` and `sentences`, or a part of it.
        split: "test" has 2,990 videos, the number that the paper calls the validation set; "validate" has 497.
        caption: which of a video's 20 captions: the "first", or a "random" one, drawn by `seed`.
        count: so many videos, drawn uniformly by `seed`; None takes all.
        seed: seed of the first sample; the others count up.

    Raises:
        ValueError: the file is no such JSON, has too few videos of the split, or a seed is out of range.
    """
    captions = _captions_of(path, split)
    if not captions:
        raise ValueError(f"{one_line(path.name)} has no captioned video of the split {split!r}")
    names = sorted(captions, key=_by_number)
    if count is not None:
        if count > len(names):
            raise ValueError(
                f"--count is {count}, and {one_line(path.name)} has {len(names)} captioned videos of the split "
                f"{split!r}; ask for at most that many"
            )
        names = sorted(random.Random(seed).sample(names, count), key=_by_number)
    rows = []
    for name in names:
        texts = captions[name]
        rows.append((texts[0] if caption == "first" else random.Random(f"{seed} {name}").choice(texts), name))
    return _numbered(rows, seed)


def _captions_of(path: Path, split: str) -> dict[str, list[str]]:
    """Return the captions by video of a split; a file without a list of videos is taken for the split itself."""
    try:
        data: dict[str, Any] = json_text.loads(path.read_text(encoding="utf-8-sig"))
        wanted = {
            str(video["video_id"])
            for video in data.get("videos", [])
            if split in ("all", video.get("split", split))
        }
        captions: dict[str, list[str]] = defaultdict(list)
        for row in data["sentences"]:
            if not data.get("videos") or row["video_id"] in wanted:
                captions[str(row["video_id"])].append(" ".join(str(row["caption"]).split()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{one_line(path.name)} is not MSR-VTT's JSON; expected an object with `videos` and `sentences`"
        ) from error
    return dict(captions)


def _by_number(name: str) -> tuple[int, str]:
    """Sort `video9` before `video10`."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits or 0), name


def _numbered(rows: Sequence[tuple[str, str]], seed: int) -> list[Prompt]:
    last = SEEDS - len(rows)
    if not 0 <= seed <= last:
        raise ValueError(f"the seed of the first sample is {seed}; expected a whole number from 0 to {last}")
    return [Prompt(f"{i:05d}.mp4", text, seed + i, source) for i, (text, source) in enumerate(rows)]


def write_prompts(folder: Path, prompts: Sequence[Prompt]) -> Path:
    """Write the list into the folder of the samples.

    Raises:
        ValueError: another list is there.
    """
    path = folder / LIST
    if path.exists() and read_prompts(folder) != list(prompts):
        raise ValueError(
            f"{one_line(path)} holds another list; give another OUT, or delete that file to write a new list"
        )
    with atomic_write(path) as part:
        part.write_text("".join(json.dumps(asdict(prompt)) + "\n" for prompt in prompts), encoding="utf-8")
    return path


def read_prompts(folder: Path) -> list[Prompt]:
    """Read the list of a folder of samples.

    Raises:
        ValueError: there is none, or it is no such list, is empty, or names a sample twice.
    """
    path = folder / LIST
    if not path.is_file():
        raise ValueError(f"{one_line(path)} is missing; write it first with the action `prompts`")
    refusal = ValueError(f"{one_line(path)} is no prompt list; every line should be like {EXAMPLE}")
    try:
        rows = [json_text.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        prompts = [Prompt(**row) for row in rows]
        whole = all(_is_whole(prompt) for prompt in prompts)
    except (ValueError, TypeError) as error:
        raise refusal from error
    if not whole:
        raise refusal
    if not prompts:
        raise ValueError(f"{one_line(path)} is empty; write it again with the action `prompts`")
    name, count = Counter(prompt.stem for prompt in prompts).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{one_line(path)} names {one_line(name)} {count} times; each sample needs a name of its own"
        )
    return prompts


def _is_whole(prompt: Prompt) -> bool:
    """Return whether a prompt's fields are usable, and its file lies in the folder itself."""
    if not all(isinstance(text, str) for text in (prompt.file_name, prompt.text, prompt.source)):
        return False
    file = Path(prompt.file_name)
    return (
        type(prompt.seed) is int and 0 <= prompt.seed < SEEDS and file.name == prompt.file_name != file.stem
    )


def read_texts(path: Path) -> dict[str, str]:
    """Read captions by stem from a JSONL file of `file_name` and `text`, as the action `captions` writes it.

    Raises:
        ValueError: it is no such file, or cannot be read.
    """
    try:
        rows = [json_text.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        return {Path(row["file_name"]).stem: str(row["text"]) for row in rows}
    except OSError as error:
        raise ValueError(
            f"{one_line(path)} cannot be read ({reason(error)}); name a file of captions, as `captions` writes it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{one_line(path)} is no list of captions; expected lines of file_name and text"
        ) from error


def captions_of(path: Path, prompts: Sequence[Prompt]) -> dict[str, str]:
    """Return the captions of a file by stem, among them one of each prompt.

    Raises:
        ValueError: errors of `read_texts`, or some are missing; the message names the first and counts them.
    """
    texts = read_texts(path)
    if lacking := [prompt.file_name for prompt in prompts if prompt.stem not in texts]:
        raise ValueError(
            f"--captions {one_line(path)} has no caption of {one_line(lacking[0])}, and {len(lacking)} of "
            f"{len(prompts)} are missing; run `captions` on all their centre frames, which adds what is missing"
        )
    return texts
