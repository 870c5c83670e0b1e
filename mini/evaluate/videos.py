"""A split of the mini world as videos: `python -m mini.evaluate.videos OUT [--split test]`.

They are for the metrics and protocols that serve anybody's model (docs/evaluation.md). OUT/real has an animation of
each motion as a video without loss, nine frames at 2 fps, with its caption. OUT/made has the list of samples to make,
and OUT/made/given the true centre frames as pictures. A list that is there is kept as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from microcinema_core.files.paths import home_folder
from microcinema_core.guarded import guarded
from microcinema_core.metrics.protocol.prompts import Prompt, write_prompts
from microcinema_core.metrics.protocol.sample import write_picture, write_video

from ..world.clips import FPS
from ..world.emoji import emoji_folder
from ..world.encode import HELD_OUT
from ..world.render import BASE_TIMES, CENTRE_INDEX
from .protocol import EvaluationClip, evaluation_clips, frames

REAL, MADE, CENTRES = "real", "made", "given"


def write(out: Path, chosen: Sequence[EvaluationClip], emoji: Path) -> None:
    """Write the clips as videos with their captions, and what is needed to sample them.

    Args:
        out: the folder; `REAL` and `MADE` are made in it.
        chosen: the clips.
        emoji: the folder of prepared emoji.

    Raises:
        ValueError: the folder has another split's list.
        OSError: a file cannot be written.
    """
    prompts = [Prompt(f"{i:05d}.mp4", one.caption, i, one.key) for i, one in enumerate(chosen)]
    for folder in (out / REAL, out / MADE / CENTRES):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (out / REAL, out / MADE):
        write_prompts(folder, prompts)  # the videos' captions, and the list of samples
    [fps] = FPS["base"]
    for prompt, one in zip(prompts, chosen, strict=True):
        pictures = frames(emoji, [one.clip], BASE_TIMES)[0]
        write_video(out / REAL / prompt.file_name, pictures, fps)
        write_picture(out / MADE / CENTRES / f"{prompt.stem}.png", pictures[CENTRE_INDEX])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit codes as for `guarded`."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate.videos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the videos and lists")
    parser.add_argument("--split", choices=HELD_OUT, default="validation", help="default: %(default)s")
    given = parser.parse_args(arguments)

    def run() -> int:
        emoji = emoji_folder(home_folder())
        chosen = evaluation_clips(emoji, clips_per_key=1, split=given.split)
        write(given.out, chosen, emoji)
        sys.stdout.write(f"{len(chosen)} videos are in {given.out / REAL}\n")
        return 0

    return guarded(run, extra="train")


if __name__ == "__main__":
    sys.exit(main())
