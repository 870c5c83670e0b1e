"""The command that makes samples with ComfyUI, and its client, against a stub of ComfyUI's server."""

from __future__ import annotations

import io
import json
import runpy
import sys
import threading
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devtools.run import batch
from devtools.run import client as client_module
from devtools.run.batch import build_parser, read_graph
from devtools.run.batch_samples import SEED_STRIDE, Maker
from devtools.run.client import ComfyClient, HostError
from devtools.run.home import Problem
from devtools.run.workflow import read_workflow
from microcinema_core.metrics.protocol.prompts import Prompt, write_prompts
from tests.core.protocol_world import options_without_default
from tests.tools.test_prompt_inputs import INFO, graph, node

Answer = Callable[[str, str, Any], Any]


class Stub:
    """A server whose answers are a function of method, path and body; it keeps all requests."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_json = self.headers.get("Content-Type") == "application/json"
                asked = (self.command, self.path, json.loads(content) if is_json else content)
                stub.asked.append(asked)
                given = answer(*asked)
                data = given if isinstance(given, bytes) else json.dumps(given).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = reply  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def posted(self, path: str) -> list[Any]:
        return [body for method, asked, body in self.asked if (method, asked) == ("POST", path)]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Stub]]:
    monkeypatch.setattr(client_module, "POLL", 0.01)
    monkeypatch.setattr(client_module, "LOOK", 0.02)
    stubs: list[Stub] = []

    def start(answer: Answer) -> Stub:
        stubs.append(Stub(answer))
        return stubs[-1]

    yield start
    for stub in stubs:
        stub.server.shutdown()
        stub.server.server_close()


def queue_of(*ids: str) -> dict[str, Any]:
    return {
        "queue_running": [[0, one, {}, {}, []] for one in ids[:1]],
        "queue_pending": [[1, one] for one in ids[1:]],
    }


DONE = {"status": {"status_str": "success", "messages": []}, "outputs": {"save": {"images": []}}}


def test_a_run_that_comfyui_forgot_ends_and_one_that_waits_does_not(serve: Any) -> None:
    looks: list[str] = []

    def answer(_: str, path: str, body: Any) -> Any:
        if path != "/queue":
            return {"mine": DONE} if len(looks) > 5 and body is None else {}
        looks.append(path)
        return queue_of("other", "mine") if kept else queue_of("other")

    kept = False
    with pytest.raises(
        HostError, match="ComfyUI no longer knows this run: it was restarted, or its queue was cleared"
    ):
        ComfyClient(serve(answer).url).wait("mine", 30)
    assert len(looks) == 2, "absent once may be between queue and history"

    looks.clear()
    order = [[], ["mine"], [], ["mine"], ["other", "mine"]]

    def waiting(_: str, path: str, body: Any) -> Any:
        if path == "/queue":
            looks.append(path)
            return queue_of(*order[len(looks) - 1])
        return {"mine": DONE} if len(looks) == len(order) else {}

    assert ComfyClient(serve(waiting).url).wait("mine", 30) == DONE["outputs"]


def test_ctrl_c_cancels_this_run_and_no_other(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: str, path: str, body: Any) -> Any:
        return {"prompt_id": body["prompt_id"], "node_errors": {}} if path == "/prompt" else {}

    stub = serve(answer)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client_module.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        ComfyClient(stub.url).run({"1": {}})
    (sent,) = (body["prompt_id"] for body in stub.posted("/prompt"))
    assert stub.posted("/queue") == [{"delete": [sent]}] and stub.posted("/interrupt") == [
        {"prompt_id": sent}
    ]


@pytest.mark.parametrize("command", ["gammas", "batch"])
def test_ctrl_c_is_no_traceback(command: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: ComfyClient) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ComfyClient, "object_info", stop)
    file = out.parent / "graph.json"
    file.write_text(json.dumps({"nodes": []}), encoding="utf-8")
    arguments = [str(file)] if command == "gammas" else [str(out), str(file)]
    monkeypatch.setattr(sys, "argv", [command, *arguments, "--url", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runpy's, that the module is imported already
        runpy.run_module(f"devtools.run.{command}", run_name="__main__")
    assert ended.value.code == 130


def test_uploads_have_the_name_that_was_given(serve: Any, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "00000.png")
    stub = serve(lambda *_: {"name": "a.png", "subfolder": "folder"})
    assert ComfyClient(stub.url).upload(tmp_path / "00000.png", "folder", "00000-x.png") == "folder/a.png"
    (sent,) = stub.posted("/upload/image")
    assert b'filename="00000-x.png"' in sent and b'name="subfolder"\r\n\r\nfolder\r\n' in sent


def encoded(frames: list[Image.Image], kind: str) -> bytes:
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=len(frames) > 1, append_images=frames[1:], lossless=True)
    return file.getvalue()


FRAMES = [Image.fromarray(np.full((16, 24, 3), shade, np.uint8)) for shade in (20, 120, 220)]


def host(*files: tuple[str, bytes]) -> Answer:
    """A ComfyUI that saves these files for every prompt."""
    contents = dict(files)

    def answer(_: str, path: str, body: Any) -> Any:
        if path == "/prompt":
            return {"prompt_id": body["prompt_id"], "node_errors": {}}
        if path == "/upload/image":
            return {"name": body.split(b'filename="')[1].split(b'"')[0].decode(), "subfolder": "sub"}
        if path.startswith("/object_info"):
            return INFO
        if path.startswith("/history/"):
            saved = [{"filename": name, "subfolder": "", "type": "output"} for name in contents]
            return {
                path.rpartition("/")[2]: {
                    **DONE,
                    "outputs": {key: {"images": saved} for key in ("save", "film")},
                }
            }
        return contents[path.split("filename=")[1].split("&")[0]]

    return answer


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_prompts(tmp_path / "out", [Prompt(f"{i:05d}.mp4", f"text {i}", 100 + i, "") for i in range(2)])
    (tmp_path / "graph.json").write_text(json.dumps(graph()), encoding="utf-8")
    return tmp_path / "out"


def make(out: Path, stub: Stub, *more: str) -> None:
    batch.main([str(out), str(out.parent / "graph.json"), "--url", stub.url, *more])


def test_an_animated_picture_is_a_video_of_all_its_frames_and_no_centre_frame(serve: Any, out: Path) -> None:
    stub = serve(host(("a.webp", encoded(FRAMES, "WEBP"))))
    with pytest.raises(Problem, match="3 pictures were saved for one prompt: --kind video"):
        make(out, stub)
    assert not list(out.glob("centres/*.webp"))
    make(out, stub, "--kind", "video")
    import av

    with av.open(str(out / "00001.mp4")) as video:
        shades = [frame.to_ndarray(format="rgb24").mean() for frame in video.decode(video=0)]
    assert shades == pytest.approx([20, 120, 220], abs=1)


def test_one_frame_is_no_video_and_a_broken_file_no_traceback(serve: Any, out: Path) -> None:
    with pytest.raises(Problem, match="saves one frame, and a video has at least two"):
        make(out, serve(host(("a.png", encoded(FRAMES[:1], "PNG")))), "--kind", "video")
    with pytest.raises(Problem, match="picture that the workflow saved cannot be read"):
        make(out, serve(host(("a.png", b"no picture"))))
    with pytest.raises(Problem, match="video that the workflow saved cannot be read"):
        make(out, serve(host(("a.mp4", b"no video"))), "--kind", "video")
    assert not list(out.glob("*.mp4"))


def test_a_full_disk_is_one_sentence(serve: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Maker, "write_picture", full)
    with pytest.raises(Problem, match="No space left on device; what was made is kept"):
        make(out, serve(host(("a.png", encoded(FRAMES[:1], "PNG")))))


def test_pictures_of_another_workflow_are_not_taken_for_these(serve: Any, out: Path) -> None:
    stub = serve(host(("a.png", encoded(FRAMES[:1], "PNG"))))
    make(out, stub, "--part", "1/2")
    changed = graph()
    changed["yes"]["inputs"]["text"] = "the list's prompt comes here anyway"
    changed["sample"]["_meta"]["title"] = "Another title"
    (out.parent / "graph.json").write_text(json.dumps(changed), encoding="utf-8")
    make(out, stub, "--part", "1/2")
    changed["sample"]["inputs"]["steps"] = 9
    (out.parent / "graph.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(
        Problem, match=r"centre frames in .* were made otherwise \(workflow was .*give another OUT"
    ):
        make(out, stub)
    captions = out.parent / "captions.jsonl"
    captions.write_text(
        "".join(json.dumps({"file_name": f"{i:05d}.png", "text": "x"}) + "\n" for i in range(2))
    )
    (out.parent / "graph.json").write_text(json.dumps(graph()), encoding="utf-8")
    with pytest.raises(Problem, match=r"captions was None and is "):
        make(out, stub, "--captions", str(captions))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--captions", "absent"],
            "absent cannot be read (No such file or directory); name a file of captions",
        ),
        (["--captions", "."], "cannot be read (Is a directory); name a file of captions"),
        (
            ["--captions", "empty.jsonl"],
            "has no caption of 00000.mp4, and 2 of 2 are missing; run `captions`",
        ),
        (["--centres", "given"], "has no picture 00001.png, and 1 of 2 are missing; add them, or leave out"),
        (["--picture-node", "Load Image"], "--picture-node does nothing without --centres"),
        (["--comfyui", "."], "--comfyui does nothing with --url"),
        (["--fps", "0"], "--fps is 0.0; expected"),
        (["--part", "²/3"], "expected K/N"),
    ],
)
def test_wrong_options_are_one_sentence_before_comfyui_is_asked(
    options: list[str], told: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out.parent)
    Path("empty.jsonl").touch()
    Path("given").mkdir()
    FRAMES[0].save("given/00000.webp")
    with pytest.raises(Problem) as error:
        batch.main([str(out), "graph.json", "--url", "http://127.0.0.1:1", *options])
    assert told in str(error.value) and "Errno" not in str(error.value)
    assert not (out / "run.json").exists()


def test_the_help_says_what_holds_without_an_option() -> None:
    assert options_without_default(build_parser()) == set()


def test_two_commands_on_one_comfyui_upload_under_names_of_their_own(serve: Any, out: Path) -> None:
    stub, names = serve(host(("a.png", encoded(FRAMES[:1], "PNG")))), []
    centred = graph(
        centre=node("MicroCinemaCentreFrame", image=["decode", 0], vae=["0", 2]),
        film=node("SaveImage", "Film", images=["centre", 1], filename_prefix="x"),
        seeded=node("Noise", noise_seed=1),
    )
    centred["film"]["inputs"]["noise"] = ["seeded", 0]
    centred["film"]["inputs"]["text"] = ["yes", 0]
    (out.parent / "graph.json").write_text(json.dumps(centred), encoding="utf-8")
    given = out.parent / "given"
    given.mkdir()
    for number in range(2):
        FRAMES[number].save(given / f"{number:05d}.png")
    for place in ("a", "b"):
        copy = out.parent / place
        write_prompts(copy, [Prompt("00000.mp4", "x", 1, "")])
        options = ["--centres", str(given), "--save-node", "Film", "--prompt-node", "Words"]
        batch.main([str(copy), str(out.parent / "graph.json"), "--url", stub.url, *options])
    for body in stub.posted("/upload/image"):
        names.append(body.split(b'filename="')[1].split(b'"')[0].decode())
    assert len(names) == 2 and names[0] != names[1] and all(name.startswith("00000-") for name in names)
    loaded = [body["prompt"]["protocol-picture"]["inputs"]["image"] for body in stub.posted("/prompt")]
    assert loaded == [f"sub/{name}" for name in names]


def options(tmp_path: Path, prompt: dict[str, Any], *more: str) -> Namespace:
    (tmp_path / "graph.json").write_text(json.dumps(prompt), encoding="utf-8")
    return build_parser().parse_args(["out", str(tmp_path / "graph.json"), *more])


def cascade() -> dict[str, Any]:
    """A picture, then a video of it, each with a seed of its own."""
    return graph(
        loader=node("LoadImage", image="a.png"),
        second=node("KSampler", positive=["yes", 0], negative=["no", 0], seed=3, latent=["centre", 0]),
        centre=node("MicroCinemaCentreFrame", image=["decode", 0], vae=["0", 2]),
        frames=node("Decode", samples=["second", 0]),
        film=node("SaveVideo", video=["frames", 0], filename_prefix="x"),
    )


def test_stages_share_noise_with_the_whole_and_not_with_each_other(tmp_path: Path) -> None:
    prompt = cascade()
    del prompt["loader"]
    whole = read_graph(options(tmp_path, prompt, "--kind", "video"), INFO)
    first = read_graph(options(tmp_path, prompt, "--kind", "picture"), INFO)
    second = read_graph(options(tmp_path, prompt, "--kind", "video", "--centres", "folder"), INFO)
    seeds = [
        {key: one["inputs"]["seed"] for key, one in made.filled("", 7).items() if "seed" in one["inputs"]}
        for made in (whole, first, second)
    ]
    assert seeds == [{"sample": 7, "second": 7 + SEED_STRIDE}, {"sample": 7}, {"second": 7 + SEED_STRIDE}]


def test_centre_frames_alone_do_not_replace_the_prompt(tmp_path: Path) -> None:
    prompt = cascade()
    del prompt["loader"]
    prompt["second"]["inputs"]["positive"] = ["0", 0]
    prompt["0"] = node("Mystery")
    info = {**INFO, "Mystery": {"input": {"required": {}}, "output": ["CONDITIONING"], "output_node": False}}
    centred = ["--kind", "video", "--centres", "folder"]
    with pytest.raises(Problem, match="No prompt was found behind a positive conditioning"):
        read_graph(options(tmp_path, prompt, *centred), info)
    prompt["0"] = node("CLIPTextEncode", text=["who", 0], clip=["1", 0])
    prompt["1"] = node("Mystery")
    prompt["who"] = node("Captioner", prompt="what?", image=["centre", 1])
    assert read_graph(options(tmp_path, prompt, *centred), info).texts == []
    with pytest.raises(Problem, match="No prompt was found"):
        read_graph(options(tmp_path, prompt, *centred, "--captions", "file"), info)


def test_what_only_comfyui_resolves_is_said(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"has subgraphs.* Export \(API\)"):
        read_graph(options(tmp_path, {"nodes": [], "definitions": {"subgraphs": [{}]}}), INFO)
    nodes = [
        {"id": 1, "type": "Noise", "widgets_values": [3], "outputs": [{"type": "NOISE"}], "mode": 4},
        {
            "id": 2,
            "type": "SaveImage",
            "widgets_values": ["x"],
            "inputs": [{"name": "images", "type": "IMAGE", "link": 9}],
        },
    ]
    with pytest.raises(
        Problem, match=r"'SaveImage' has no images, or only through a bypassed .*Export \(API\)"
    ):
        read_graph(options(tmp_path, {"nodes": nodes, "links": [[9, 1, 0, 2, 0, "IMAGE"]]}), INFO)


@pytest.mark.parametrize("content", ["[1]", '"text"', "null"])
def test_json_of_another_kind_is_no_workflow(content: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(Problem, match="is no workflow"):
        read_workflow(tmp_path / "list.json")
