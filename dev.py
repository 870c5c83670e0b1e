#!/usr/bin/env python3
"""One command for developers: the demo, the tests, and a ComfyUI with this pack installed.

    python3 dev.py demo [--prompt TEXT] [--image FILE] ...     make a video with the shipped models in ComfyUI
    python3 dev.py test [--quick] [TEST ...]                   run the linter, the type checker and all tests
    python3 dev.py serve [-- OPTION ...]                       start ComfyUI with this pack installed
    python3 dev.py stop                                        end the ComfyUI of `demo --keep` or `serve`
    python3 dev.py models                                      list the model files that the workflows need
    python3 dev.py python ARGS                                 run the environment's Python

It needs Python 3.10 or newer and nothing else. The environment, ComfyUI and all data go to $MICROCINEMA_HOME.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (before any syntax that an older Python cannot parse)
    sys.stderr.write("Python 3.10 or newer is needed; this is %s.\n" % sys.version.split()[0])  # noqa: UP031
    sys.exit(1)

import argparse
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).absolute().parent))

from devtools.check import suite
from devtools.run import demo, models, serve, stop
from devtools.run.env import RESTARTED, find_environment
from devtools.run.home import Problem, replace_process, say
from devtools.run.host import find_host

COMMANDS = {
    "demo": (demo, "make a video with the shipped models in ComfyUI"),
    "test": (suite, "run the linter, the type checker and all tests"),
    "serve": (serve, "start ComfyUI with this pack installed"),
    "stop": (stop, "end the ComfyUI of `demo --keep` or `serve`"),
    "models": (models, "list the model files that the workflows need, and which of them you have"),
}


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; everything after the command `python` goes to `rest` unparsed."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--venv", metavar="PATH", help="the Python environment to use; it is not changed")
    common.add_argument(
        "--comfyui", metavar="PATH", help="the folder of the ComfyUI to use (also: COMFYUI_PATH)"
    )
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
    """Find host and environment, restart in that environment if needed, and run the command."""
    arguments = parse(argv)
    if arguments.command == "demo":
        demo.check_arguments(arguments)
    if arguments.command in ("models", "stop"):  # neither ComfyUI nor an environment is fetched for these
        COMMANDS[arguments.command][0].main(arguments)
        return
    restarted = os.environ.pop(RESTARTED, None)
    host = find_host(arguments.comfyui)
    environment = find_environment(host, arguments.venv)
    if arguments.command == "python":
        environ = {**environment.environ(), "COMFYUI_PATH": str(host.path)}
        replace_process([str(environment.python), *arguments.rest], environ)
    if not (restarted or environment.is_current()):
        environment.restart_in([str(Path(__file__).absolute()), *argv])
    COMMANDS[arguments.command][0].main(arguments)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line and return the exit code; errors are one sentence on stderr."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a background shell starts its children with SIGINT ignored
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
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
        say(f"\nFailed: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
