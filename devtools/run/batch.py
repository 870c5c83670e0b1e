"""Run a list of prompts through ComfyUI, with any workflow.

`python3 dev.py python -m devtools.run.batch OUT WORKFLOW [--url ADDRESS] [--centres FOLDER] ...`

The list is `OUT/metadata.jsonl`: your own, or written by `python -m microcinema_core.metrics.protocol ucf101|msrvtt
prompts OUT`. Each prompt and its seed are set in the workflow, and what the workflow saves is fetched: a video as
`OUT/00000.mp4`, a picture as the centre frame `OUT/centres/00000.png`. What is there already is kept: repeat the
command to continue. docs/batches.md explains it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from microcinema_core.messages import of_file, one_line
from microcinema_core.metrics.protocol import run_record
from microcinema_core.metrics.protocol.centres import CENTRES, pictures_of
from microcinema_core.metrics.protocol.options import check_fps, parse_part
from microcinema_core.metrics.protocol.prompts import Prompt as Sample
from microcinema_core.metrics.protocol.prompts import captions_of, read_prompts

from .batch_samples import Graph, Maker, drawn
from .client import ComfyClient
from .home import Problem, run_command, say
from .host import find_host
from .prompt_inputs import (
    SAVE_IMAGE,
    keep_only,
    picture_input,
    picture_is_prompt,
    save_node,
    seed_inputs,
    seed_numbers,
    text_inputs,
    title_of,
)
from .server import ComfyServer
from .workflow import WIDGET_TYPES, Prompt, read_workflow, to_prompt

KINDS = ("auto", "picture", "video")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command = argparse.ArgumentParser(
        prog="python -m devtools.run.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("out", metavar="OUT", type=Path, help="folder with the list of prompts")
    add("workflow", metavar="WORKFLOW", type=Path, help="a workflow file, as saved or in the API's format")
    add(
        "--url",
        metavar="ADDRESS",
        help="address of a running ComfyUI (default: one is started with this pack alone)",
    )
    add(
        "--comfyui",
        type=Path,
        metavar="PATH",
        help="the ComfyUI to start, with its models (default: $COMFYUI_PATH, else one of its own)",
    )
    add(
        "--prompt-node",
        action="append",
        default=[],
        metavar="TITLE",
        help="node that takes the prompt; repeatable (default: the text behind the positive conditioning)",
    )
    add(
        "--seed-node",
        action="append",
        default=[],
        metavar="TITLE",
        help="node that takes the seed; repeatable (default: all sampling nodes)",
    )
    add(
        "--picture-node",
        metavar="TITLE",
        help="node that takes the centre frame of --centres (default: Load Image, or what Centre Frame gets)",
    )
    add(
        "--save-node",
        metavar="TITLE",
        help="node that saves the result; others are left out (default: the only one)",
    )
    add(
        "--centres",
        type=Path,
        metavar="FOLDER",
        help="centre frames 00000.png ... for the workflow (default: it makes its own)",
    )
    add(
        "--captions",
        type=Path,
        metavar="FILE",
        help="file of captions that replace the prompts (default: the prompts)",
    )
    add(
        "--kind",
        choices=KINDS,
        default="auto",
        help="what the workflow is to make; with video, its pictures become one (default: %(default)s, by what saves)",
    )
    add(
        "--fps",
        type=float,
        default=8.0,
        help="rate of videos that are saved as pictures (default: %(default)g)",
    )
    add(
        "--part",
        default="1/1",
        metavar="K/N",
        help="every N-th sample from the K-th, for several ComfyUI instances (default: %(default)s)",
    )
    return command


def main(argv: list[str] | None = None) -> None:
    """Make all samples of the list that are missing.

    Raises:
        Problem: an option or the workflow does not fit, or a run fails; the samples that were made stay.
    """
    given = build_parser().parse_args(argv)
    refuse_idle(given)
    try:
        check_fps(given.fps)
        number, parts = parse_part(given.part)
        whole = read_prompts(given.out)
        samples = whole[number - 1 :: parts]
        centres = pictures_of(given.centres, samples) if given.centres is not None else {}
        texts = captions_of(given.captions, samples) if given.captions is not None else {}
    except ValueError as error:
        raise Problem(f"{error}.") from error
    except OSError as error:
        raise Problem(f"{of_file(error, given.out)}.") from error
    with connected(given) as client:
        graph = read_graph(given, client.object_info())
        describe(graph)
        try:
            record(given, graph, whole, texts)
            count = Maker(client, graph, given.out, given.fps, centres, texts).make_all(samples)
        except ValueError as error:
            raise Problem(f"{error}.") from error
        except OSError as error:
            raise Problem(
                f"{of_file(error, given.out)}; what was made is kept: run the same command again to continue."
            ) from error
    what = "centre frames are in" if graph.kind == "picture" else "samples are in"
    say(
        f"{count} of this part's {len(samples)} {what} {given.out / CENTRES if graph.kind == 'picture' else given.out}"
    )


def refuse_idle(given: argparse.Namespace) -> None:
    """Refuse options that would do nothing.

    Raises:
        Problem: there is one.
    """
    if given.picture_node is not None and given.centres is None:
        raise Problem("--picture-node does nothing without --centres: add it, or leave out both.")
    if given.comfyui is not None and given.url is not None:
        raise Problem(
            "--comfyui does nothing with --url, which names a running ComfyUI: give one of the two."
        )


def record(
    given: argparse.Namespace, graph: Graph, whole: Sequence[Sample], texts: Mapping[str, str]
) -> None:
    """Write how the samples are made into their folder.

    Raises:
        ValueError: it has samples that were made in another way.
    """
    folder = given.out / CENTRES if graph.kind == "picture" else given.out
    places = [
        path
        for one in whole
        for path in (drawn(given.out, one) if graph.kind == "picture" else [given.out / one.file_name])
    ]
    facts = {
        "workflow": graph.digest(),
        "prompts": run_record.digest_of_prompts(whole),
        "captions": run_record.digest(texts) if texts else None,
        "centre frames": run_record.describe_centres(given.centres, given.out),
        "fps": given.fps if graph.kind == "video" else None,
    }
    what = "centre frames" if graph.kind == "picture" else "videos"
    run_record.check_record(folder / run_record.RECORD, facts, places, f"{what} in {one_line(folder)}")


@contextlib.contextmanager
def connected(given: argparse.Namespace) -> Iterator[ComfyClient]:
    """Yield a client of the ComfyUI at --url, or of one that is started."""
    if given.url is None:
        host = find_host(given.comfyui)
        say(f"Starting ComfyUI {host.version} ({host.source}) ...")
        with ComfyServer(sys.executable, host, arguments=("--disable-metadata",)) as server:
            yield server
        return
    yield ComfyClient(given.url.rstrip("/"))


def read_graph(given: argparse.Namespace, info: Mapping[str, Any]) -> Graph:
    """Read the workflow and find its inputs.

    Raises:
        Problem: it cannot be read, or it is not clear where a value goes.
    """
    content = read_workflow(given.workflow)
    prompt = to_prompt(content, info) if "nodes" in content else content
    if not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        for node in prompt.values()
    ):
        raise Problem(f"{given.workflow} is no workflow: save it in ComfyUI with Save or Export (API).")
    save = save_node(prompt, info, given.save_node, given.kind)
    picture = picture_input(prompt, info, given.picture_node) if given.centres else None
    numbers = seed_numbers(prompt)
    keep_only(prompt, save)
    if "nodes" in content:
        refuse_cut_links(prompt, info)
    if picture is not None and picture[0] not in prompt:
        raise Problem(
            f"The centre frame does not reach {title_of(prompt, save)!r}: name another --picture-node."
        )
    texts = text_inputs(prompt, info, given.prompt_node)
    if not texts and (given.captions or picture is None or not picture_is_prompt(prompt, info)):
        raise Problem("No prompt was found behind a positive conditioning: name its node with --prompt-node.")
    kind = given.kind
    if kind == "auto":
        kind = "picture" if prompt[save]["class_type"] == SAVE_IMAGE else "video"
    seeds = {place: numbers[place] for place in seed_inputs(prompt, given.seed_node)}
    return Graph(prompt, save, texts, seeds, picture, kind)


def refuse_cut_links(prompt: Prompt, info: Mapping[str, Any]) -> None:
    """Refuse a saved workflow in which a needed connection leads through a muted or bypassed node to nowhere.

    Raises:
        Problem: there is one; ComfyUI itself may know how to resolve it.
    """
    for key, node in prompt.items():
        for name, (kind, *_) in (info[node["class_type"]]["input"].get("required") or {}).items():
            plain = isinstance(kind, str) and kind not in WIDGET_TYPES and not kind.startswith("COMFY_")
            if plain and name not in node["inputs"]:
                raise Problem(
                    f"{title_of(prompt, key)!r} has no {name}, or only through a bypassed or muted node: save the "
                    "workflow in ComfyUI with Export (API), and give that file."
                )


def describe(graph: Graph) -> None:
    """Say where the values go."""
    where = {
        "prompt": [title_of(graph.prompt, key) for key, _ in graph.texts]
        or ["nowhere: the workflow writes its own"],
        "seeds": [title_of(graph.prompt, key) for key, _ in graph.seeds],
        "centre frame": [title_of(graph.prompt, graph.picture[0])] if graph.picture else [],
        graph.kind: [title_of(graph.prompt, graph.save)],
    }
    say("; ".join(f"{name}: {', '.join(titles)}" for name, titles in where.items() if titles))


if __name__ == "__main__":
    run_command(main, "Stopped; what was made is kept: run the same command again to continue.")
