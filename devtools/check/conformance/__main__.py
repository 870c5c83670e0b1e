"""Run the conformance bench: `python3 dev.py python -m devtools.check.conformance [--write]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from devtools.release.files import write_section
from devtools.run.home import ROOT, say
from devtools.run.host import find_host

PAGE = ROOT / "devtools" / "check" / "conformance" / "RESULTS.md"


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; arguments after `--` go to ComfyUI."""
    parser = argparse.ArgumentParser(prog="python -m devtools.check.conformance", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer steps, and single nodes on two families only"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also run TorchCompileModel with its default backend"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows with this text in their name")
    parser.add_argument(
        "--family", default="", metavar="TEXT", help="only families with this text in their name"
    )
    parser.add_argument("--write", action="store_true", help=f"write the tables to {PAGE.relative_to(ROOT)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("host", nargs="*", help="ComfyUI's own arguments, after --")
    arguments = parser.parse_args(argv)
    if (arguments.only or arguments.family) and arguments.write:
        parser.error("--write needs all rows: leave out --only and --family")
    return arguments


def main(argv: list[str]) -> int:
    """Run the bench; return 1 if a row is unexplained, else 0."""
    arguments = parse(argv)
    from .boot import boot, host_version

    nodes = boot(find_host(os.environ.get("COMFYUI_PATH")).path, arguments.host)
    import torch

    from . import table
    from .runs import all_rows

    torch.set_num_threads(1)
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options = {"quick": arguments.quick, "compile_too": arguments.compile}
        some = {"only": arguments.only, "family": arguments.family}
        for row in all_rows(nodes, Path(folder), **options, **some):
            rows.append(row)
            if table.unexplained([row]):
                say(
                    f"{row.outcome}: {row.name} ({row.family}): {row.why} {row.first} {row.last} {row.random}"
                )
    version = host_version()
    took = f"in {time.monotonic() - started:.0f} s"
    say(f"ComfyUI {version}: {table.summary(rows)}. {table.worst(rows)}, {took}")
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    if arguments.write:
        words = ["--quick"] * arguments.quick + ["--compile"] * arguments.compile
        host = ["--", *arguments.host] if arguments.host else []
        command = " ".join(["python3 dev.py python -m devtools.check.conformance --write", *words, *host])
        text = table.section(rows, version=version, arguments=arguments.host, command=command)
        write_section(PAGE, table.mark(version, arguments.host), text)
    return 1 if table.unexplained(rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
