"""`dev.py serve`: start ComfyUI with this pack installed and open it in a browser."""

from __future__ import annotations

import argparse
import sys
import webbrowser

from .base import kept_base
from .example_pictures import add_example_pictures
from .home import say
from .host import find_host
from .server import LIVE_PREVIEWS, ComfyServer, HostError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dev.py serve`."""
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="-- OPTION",
        help="after --, options for ComfyUI, such as --lowvram or --preview-method none",
    )


def main(arguments: argparse.Namespace) -> None:
    """Run the server until Ctrl-C; its files and settings are kept in $MICROCINEMA_HOME/serve.

    Raises:
        HostError: one runs there already, this one does not start, or it ends by itself.
    """
    host = find_host(arguments.comfyui)
    say(f"Starting ComfyUI {host.version} ({host.source}) ...")
    options = (*LIVE_PREVIEWS, *arguments.options)
    server = ComfyServer(sys.executable, host, base=kept_base(), arguments=options)
    with server:
        add_example_pictures(server.input_dir)
        say(f"ComfyUI is running at {server.url} (its folders: {server.base}). Press Ctrl-C to stop it.")
        if not arguments.no_browser:
            webbrowser.open(server.url)
        assert server.process is not None
        if code := server.process.wait():
            raise HostError(server.explain(ChildProcessError(f"exit code {code}")))
