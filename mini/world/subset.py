"""A subset of an encoded set: `python -m mini.world.subset base base-oneway --motions left up towards`.

It holds the clips with one of these added motions; latents and captions are copied. A model that first sees one
direction of each axis learns how a motion runs in time. It can learn later which direction a caption names.
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
    """Write the clips of `source` with one of these added motions to `target`, and return their number.

    Raises:
        ValueError: `source` is not a set, `target` holds one already, or no clip has such a motion.
    """
    whole = ShardDataset(source)
    if (target / INDEX).exists():
        raise ValueError(f"{target} holds a set already; delete it, or choose another name")
    kept = [_matching(whole.path(number), motions) for number in range(len(whole.index["shards"]))]
    if not any(kept):
        raise ValueError(f"no clip of {source} has one of the added motions {', '.join(motions)}")
    target.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(kept):
        path = whole.path(number)
        write_shard(target / path.name, {key: value[rows] for key, value in load_file(str(path)).items()})
    lengths = [len(rows) for rows in kept]
    write_json(target / INDEX, {**whole.index, "shards": lengths, "count": sum(lengths), "motions": motions})
    return sum(lengths)


def _matching(shard: Path, motions: list[str]) -> list[int]:
    recipes = json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))
    return [row for row, recipe in enumerate(recipes) if recipe["motion"] in motions]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.subset",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="name of a set in $MICROCINEMA_HOME/data")
    parser.add_argument("target", help="name of the new set")
    parser.add_argument("--motions", nargs="+", required=True, choices=MOTIONS, help="added motions to keep")
    options = parser.parse_args(arguments)
    data = home_folder() / "data"
    try:
        count = select(data / options.source, data / options.target, options.motions)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(f"wrote {count} clips to {data / options.target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
