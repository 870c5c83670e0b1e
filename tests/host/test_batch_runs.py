"""A prompt list of the paper's protocols through the real ComfyUI: centre frames, videos, and their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from devtools.run.batch import main
from devtools.run.batch_samples import FOLDER
from devtools.run.edit import set_everywhere
from devtools.run.home import Problem
from devtools.run.server import ComfyServer
from microcinema_core.metrics.protocol import __main__ as protocol
from tests.core.metric_world import TinyI3D, no_processes, write_script, write_set
from tests.host.quick import script
from tests.host.weight_files import write_what_workflows_name

TEXT = "11 Text to video (mini)"
SAVE_PICTURE = {"class_type": "SaveImage", "_meta": {"title": "Save Image"}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a list of three prompts."""
    assert protocol.main(["ucf101", "prompts", str(tmp_path / "out"), "--count", "3"]) == 0
    return tmp_path / "out"


def workflow(folder: Path) -> Path:
    """Write text to video by two steps a stage, nine frames; the decoded centre frame is saved too."""
    prompt = script(TEXT)
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
    (tsr,) = (key for key, node in prompt.items() if node["class_type"] == "MicroCinemaTSR")
    (sampler,) = (key for key, node in prompt.items() if node["class_type"] == "MicroCinemaSampler")
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == tsr:
                node["inputs"][name] = [sampler, value[1]]
    (drawn,) = (
        node["inputs"]["image"] for node in prompt.values() if node["class_type"] == "MicroCinemaCentreFrame"
    )
    prompt["picture"] = {**SAVE_PICTURE, "inputs": {"images": drawn, "filename_prefix": "x"}}
    path = folder / "graph.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return path


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_from_the_list_to_the_papers_table(
    host: ComfyServer, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_what_workflows_name(host.models_dir)
    run = [str(out), str(workflow(tmp_path)), "--url", host.url]
    with pytest.raises(Problem, match=r"Several nodes save: .* name one with --save-node"):
        main(run)
    film = [*run, "--save-node", "Save Video"]
    main([*film, "--part", "1/2"])
    assert sorted(path.name for path in out.glob("*.mp4")) == ["00000.mp4", "00002.mp4"]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    main(film)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is there is kept"
    assert [frames(path).shape for path in sorted(out.glob("*.mp4"))] == [(9, 128, 128, 3)] * 3
    assert "2 of 3 are there already" in capsys.readouterr().err

    write_set(tmp_path / "real", 3, frames=9)
    networks = ["--i3d", str(write_script(TinyI3D(), tmp_path / "i3d.pt")), "--kvd", "--frames", "9"]
    scored = [
        str(tmp_path / "real"),
        str(out),
        *networks,
        "--cache",
        str(tmp_path / "cache"),
        "--resamples",
        "2",
    ]
    with no_processes():
        assert protocol.main(["ucf101", "score", *scored]) == 0
    assert "| KVD " in capsys.readouterr().out


def test_centre_frames_first_and_videos_of_them_later(host: ComfyServer, out: Path, tmp_path: Path) -> None:
    """The second run draws no picture of its own: the first stage is cut off, and its prompt is not needed."""
    write_what_workflows_name(host.models_dir)
    run = [str(out), str(workflow(tmp_path)), "--url", host.url]
    main([*run, "--save-node", "Save Image", "--part", "1/3"])
    drawn = out / "centres" / "00000.png"
    assert Image.open(drawn).size == (128, 128) and not list(out.glob("*.mp4"))

    red = tmp_path / "red"
    red.mkdir()
    for number in range(3):
        Image.new("RGB", (96, 64), "red").save(red / f"{number:05d}.png")
    prompt = json.loads((tmp_path / "graph.json").read_text("utf-8"))
    centre = put_centre_frame(prompt)
    (tmp_path / "graph.json").write_text(json.dumps(prompt), encoding="utf-8")
    film = [*run, "--save-node", "Save Video", "--part", "1/3"]
    main([*film, "--centres", str(red), "--picture-node", centre])
    made = frames(out / "00000.mp4").astype(float).mean((0, 1, 2))
    assert made[0] > made[1] + 30 and made[0] > made[2] + 30, "a red picture becomes a reddish video"
    with pytest.raises(Problem, match=r"has no picture 00001\.png, and 2 of 3 are missing"):
        main([*run, "--save-node", "Save Video", "--centres", str(out / "centres")])


def put_centre_frame(prompt: dict[str, Any]) -> str:
    """Put a Centre Frame node between the drawn picture and the samplers; return its title."""
    (drawn,) = (
        node["inputs"]["image"] for node in prompt.values() if node["class_type"] == "MicroCinemaCentreFrame"
    )
    (vae,) = (node["inputs"]["vae"] for key, node in prompt.items() if key == drawn[0])
    inputs = {"image": drawn, "vae": vae, "width": 0, "height": 0, "fit": "crop"}
    prompt["centre"] = {
        "class_type": "MicroCinemaCentreFrame",
        "inputs": inputs,
        "_meta": {"title": "Centre"},
    }
    for node in prompt.values():
        if "centre_frame" in node["inputs"]:
            node["inputs"]["centre_frame"] = ["centre", 0]
    return "Centre"


def test_several_pictures_become_a_video_without_loss(host: ComfyServer, out: Path, tmp_path: Path) -> None:
    write_what_workflows_name(host.models_dir)
    path = workflow(tmp_path)
    prompt = json.loads(path.read_text("utf-8"))
    set_everywhere(prompt, ("batch_size",), 9)
    path.write_text(json.dumps(prompt), encoding="utf-8")
    run = [str(out), str(path), "--url", host.url, "--part", "1/3", "--save-node", "Save Image"]
    with pytest.raises(Problem, match="9 pictures were saved for one prompt: --kind video makes a video"):
        main(run)
    main([*run, "--kind", "video"])
    saved = sorted((host.output_dir / FOLDER).glob("00000-*.png"), key=lambda file: file.stat().st_mtime_ns)[
        -9:
    ]
    pictures = np.stack([np.asarray(Image.open(file)) for file in saved])
    np.testing.assert_array_equal(frames(out / "00000.mp4"), pictures)


def test_what_is_no_workflow_or_list_is_said(host: ComfyServer, out: Path, tmp_path: Path) -> None:
    path = workflow(tmp_path)
    with pytest.raises(Problem, match=r"metadata\.jsonl is missing"):
        main([str(tmp_path), str(path), "--url", host.url])
    with pytest.raises(Problem, match=r"ComfyUI does not respond at http://127\.0\.0\.1:1"):
        main([str(out), str(path), "--url", "http://127.0.0.1:1"])
    path.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(Problem, match="is no workflow: save it in ComfyUI"):
        main([str(out), str(path), "--url", host.url])
