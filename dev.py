#!/usr/bin/env python3
"""One command for everything: the demo, the tests, a ComfyUI with this pack, and the Python of all that.

    python3 dev.py demo [--prompt TEXT] [--image FILE] ...     a video, by the real ComfyUI
    python3 dev.py test [--quick] [TEST ...]                   lint, types, all tests
    python3 dev.py serve                                       open ComfyUI with this pack
    python3 dev.py python ARGS                                 run the environment's Python

Needs Python 3.10 or newer and nothing else: the environment, ComfyUI and all data go to $MICROCINEMA_HOME.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (before anything that an old Python cannot read)
    sys.stderr.write("Python 3.10 or newer is needed; this is %s.\n" % sys.version.split()[0])  # noqa: UP031
    sys.exit(1)

import argparse
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).absolute().parent))

from devtools.check import suite as check
from devtools.run import demo, serve
from devtools.run.env import BECAME, find_environment
from devtools.run.home import Problem, replace_process, say
from devtools.run.host import find_host

COMMANDS = {
    "demo": (demo, "make a video with the shipped models, by the real ComfyUI"),
    "test": (check, "run the linter, the type checker and all tests"),
    "serve": (serve, "open ComfyUI with this pack"),
}


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; all after the command `python` is left as it is."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--venv", metavar="PATH", help="the Python environment to use, as it is")
    common.add_argument("--comfyui", metavar="PATH", help="the ComfyUI to use (also: COMFYUI_PATH)")
    summary, usage = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=usage,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, parents=[common], help=text, description=text))
    commands.add_parser("python", help="run the environment's Python", add_help=False)
    own, rest = argv, []
    cut = 0
    while cut < len(argv) and argv[cut].split("=")[0] in ("--venv", "--comfyui"):
        cut += 1 if "=" in argv[cut] else 2
    if argv[cut : cut + 1] == ["python"]:
        own, rest = argv[: cut + 1], argv[cut + 1 :]
    arguments = parser.parse_args(own, argparse.Namespace(venv=None, comfyui=None))
    arguments.rest = rest
    return arguments


def run(argv: list[str]) -> None:
    """Find host and environment, become that environment's Python, and run the command in it."""
    arguments = parse(argv)
    if arguments.command == "demo":
        demo.check_arguments(arguments)
    became = os.environ.pop(BECAME, None)
    host = find_host(arguments.comfyui)
    environment = find_environment(host, arguments.venv)
    if arguments.command == "python":
        environ = {**environment.environ(), "COMFYUI_PATH": str(host.path)}
        replace_process([str(environment.python), *arguments.rest], environ)
    if not (became or environment.is_current()):
        environment.become([str(Path(__file__).absolute()), *argv])
    COMMANDS[arguments.command][0].main(arguments)


def _end(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line; 0, or another code after one clear sentence."""
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
    ):  # a shell in the background starts its children deaf to the first
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    try:
        run(sys.argv[1:])
    except Problem as problem:
        say(f"\n{problem}")
        return 1
    except KeyboardInterrupt:
        say("\nStopped.")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        say(f"\nThis could not be done: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
