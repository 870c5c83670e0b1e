"""A part of an encoded set: `python -m mini.world.subset base base-oneway --motions left up towards`.

The clips to which one of these motions was added, with their latents and captions as they are. A model that first sees
one direction of each line learns what time's direction does; which of the two a caption asks for it can learn after.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from microcinema_core.data.shards import INDEX, ShardDataset, write_json, write_shard
from microcinema_core.files.paths import home_folder

from .render import MOTIONS


def select(source: Path, target: Path, motions: list[str]) -> int:
    """Write the set; returns how many clips it has.

    Raises:
        ValueError: the source is no set, the target is there already, or no clip has such a motion.
    """
    held = ShardDataset(source)
    if (target / INDEX).exists():
        raise ValueError(f"{target} holds a set already; delete it, or choose another name")
    kept = [_matching(held.path(number), motions) for number in range(len(held.index["shards"]))]
    if not any(kept):
        raise ValueError(f"no clip of {source} has one of the added motions {', '.join(motions)}")
    target.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(kept):
        path = held.path(number)
        write_shard(target / path.name, {key: value[rows] for key, value in load_file(str(path)).items()})
    lengths = [len(rows) for rows in kept]
    write_json(target / INDEX, {**held.index, "shards": lengths, "count": sum(lengths), "motions": motions})
    return sum(lengths)


def _matching(shard: Path, motions: list[str]) -> list[int]:
    recipes = json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))
    return [row for row, recipe in enumerate(recipes) if recipe["motion"] in motions]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.subset",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="name of a set of $MICROCINEMA_HOME/data")
    parser.add_argument("target", help="name of the new one")
    parser.add_argument("--motions", nargs="+", required=True, choices=MOTIONS)
    options = parser.parse_args(arguments)
    data = home_folder() / "data"
    try:
        count = select(data / options.source, data / options.target, options.motions)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(f"{count} clips in {data / options.target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
