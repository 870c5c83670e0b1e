"""The models that links bring, of several families, and what the next node does with one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from devtools.check import tiny

STEPS, FRAMES = 1, 3


def host_nodes() -> Any:
    """Return the host's own module of nodes, which has the name of the pack's."""
    return importlib.import_module("nodes")


def _loaded(node: str, **inputs: Any) -> tuple[Any, ...]:
    """Return the outputs of one of the pack's nodes."""
    return tuple(host_nodes().NODE_CLASS_MAPPINGS[node].execute(**inputs).args)


@functools.cache
def own(role: str) -> tuple[Any, ...]:
    """Return MODEL, CLIP, VAE and APPEARNET of a file of the tiny family."""
    return _loaded("MicroCinemaCheckpointLoader", file=f"tiny_{role}.safetensors")


@functools.cache
def stock() -> Any:
    """Return a small Stable Diffusion 1.x MODEL of the host's."""
    return host_nodes().UNETLoader().load_unet("sd_unet.safetensors", "default")[0]


@functools.cache
def moving(file: str, appearance: str = "of the motion file") -> tuple[Any, ...]:
    """Return MODEL and APPEARNET of published motion weights."""
    return _loaded(
        "MicroCinemaMotionLoader",
        model=stock(),
        motion_file=f"{file}.safetensors",
        appearance_file=appearance,
    )


@functools.cache
def crafter(file: str) -> tuple[Any, ...]:
    """Return MODEL, VAE and APPEARNET of a small file of the Crafter family."""
    return _loaded("MicroCinemaCrafterLoader", file=f"{file}.safetensors", use="base", resolution="512")


@functools.cache
def inflated() -> tuple[Any, ...]:
    """Return MODEL and APPEARNET of the inflated Stable Diffusion."""
    return _loaded(
        "MicroCinemaInflate", file="sd_checkpoint.safetensors", injection="spade", temporal_layout="paper"
    )


@functools.cache
def applied() -> Any:
    """Return the base MODEL with a centre frame."""
    latent = {"samples": torch.zeros(1, 8, 8, 8)}
    return _loaded(
        "MicroCinemaApplyAppearNet", model=own("base")[0], appearnet=own("base")[3], centre_frame=latent,
        strength=1.0, start_percent=0.0, end_percent=1.0,
    )[0]  # fmt: skip


@functools.cache
def small_vae() -> Any:
    """Return the host's smallest VAE, of Stable Diffusion's four channels."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    return comfy.sd.VAE(sd=dict(tiny.random_weights(TAESD(latent_channels=4), 9)))


def _frames(
    count: int,
    height: int = 64,
    width: int = 64,
    *,
    channels: int = 3,
    factor: float = 1.0,
    loudness: Any = None,
) -> Any:
    """Return a VIDEO of the host's, made of random frames times a factor, with noise of a loudness as its sound."""
    from comfy_api.latest import InputImpl, Types

    generator = torch.Generator().manual_seed(7)
    images = factor * torch.rand((count, height, width, channels), generator=generator)
    audio = None
    if loudness is not None:
        audio = {"waveform": loudness * torch.rand((1, 2, 22050), generator=generator), "sample_rate": 44100}
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(8))
    )


def _film_file(content: bytes | None = None) -> Any:
    """Return a VIDEO of a file, with this content in place of a film's."""
    import folder_paths
    from comfy_api.latest import InputImpl

    path = Path(folder_paths.get_temp_directory()) / f"given {content is None}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        _frames(3).save_to(str(path))
    else:
        path.write_bytes(content)
    return InputImpl.VideoFromFile(str(path))


SOURCES: dict[str, dict[str, Callable[[], Any]]] = {
    "MODEL": {
        "base": lambda: own("base")[0],
        "tsr": lambda: own("tsr")[0],
        "image": lambda: own("image")[0],
        "unet": lambda: own("unet")[0],
        "Stable Diffusion": stock,
        "inflated": lambda: inflated()[0],
        "AnimateDiff": lambda: moving("v3")[0],
        "PIA": lambda: moving("pia")[0],
        "VideoCrafter": lambda: crafter("videocrafter")[0],
        "DynamiCrafter": lambda: crafter("dynamicrafter")[0],
        "base with a centre frame": applied,
        "not in the file": lambda: own("appearnet")[0],
        "None": lambda: None,
    },
    "APPEARNET": {
        "base": lambda: own("base")[3],
        "tsr": lambda: own("tsr")[3],
        "appearnet": lambda: own("appearnet")[3],
        "inflated": lambda: inflated()[1],
        "PIA": lambda: moving("pia")[1],
        "DynamiCrafter": lambda: crafter("dynamicrafter")[2],
        "SparseCtrl": lambda: moving("v3", "sparsectrl.safetensors")[1],
        "not in the file": lambda: own("image")[3],
        "not in the motion file": lambda: moving("v3")[1],
        "None": lambda: None,
    },
    "CLIP": {
        "own": lambda: own("image")[1],
        "not in the file": lambda: own("base")[1],
        "None": lambda: None,
    },
    "VAE": {
        "own": lambda: own("image")[2],
        "Stable Diffusion": small_vae,
        "not in the file": lambda: own("base")[2],
        "None": lambda: None,
    },
    "VIDEO": {
        "a file": _film_file,
        "frames": lambda: _frames(3),
        "one frame": lambda: _frames(1),
        "long and thin": lambda: _frames(2, 2, 2000),
        "odd size": lambda: _frames(3, 65, 67),
        "with alpha": lambda: _frames(3, channels=4),
        "with sound": lambda: _frames(3, loudness=0.1),
        "sound of NaN": lambda: _frames(3, loudness=float("nan")),
        "NaN": lambda: _frames(3, factor=float("nan")),
        "a MODEL": lambda: own("base")[0],
        "an object": object,
        "no video": lambda: _film_file(b"no video" * 100),
        "None": lambda: None,
    },
}


def _absent(value: Any) -> bool:
    """Return whether a value stands for a network that a file does not hold: to use it is an error by design."""
    return type(value).__name__ == "MissingPart"


def _sample(model: Any) -> Tensor | None:
    """Sample with the stock KSampler, with a text and an empty latent of the model's own family."""
    if _absent(model):
        return None
    channels = model.get_model_object("latent_format").latent_channels
    width = model.model.model_config.unet_config["context_dim"]
    text = [[torch.zeros(1, 7, width), {}]]
    empty = {"samples": torch.zeros(FRAMES, channels, 8, 8)}
    made = host_nodes().common_ksampler(model, 3, STEPS, 1.0, "euler", "normal", text, text, empty)
    return made[0]["samples"]


def _encode(clip: Any) -> Any:
    return None if _absent(clip) else clip.encode_from_tokens(clip.tokenize("a horse"))


def _decode(vae: Any) -> Any:
    return None if _absent(vae) else vae.decode(torch.zeros(1, vae.latent_channels, 2, 2))


def _film(video: Any) -> Any:
    """Save a VIDEO as Save Video does."""
    import folder_paths

    video.save_to(str(Path(folder_paths.get_temp_directory()) / "used.mp4"))
    return list(video.get_dimensions())


USES: dict[str, Callable[[Any], Any]] = {
    "MODEL": _sample,
    "CLIP": _encode,
    "VAE": _decode,
    "VIDEO": _film,
    "APPEARNET": lambda net: None if _absent(net) else list(net.patcher.model.parameters()),
}
"""What is done with a value of a socket type; of others it is only looked whether they are finite."""
