"""Preview sheets decoded by Stable Diffusion's own VAE, and training that starts from a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from devtools.check.stable_diffusion import write_stable_diffusion
from devtools.check.tiny import unet_weights
from microcinema_core.data.videos.stable_diffusion import decode_latents, load_decoder, load_encoder_networks
from microcinema_core.files.stable_diffusion import from_diffusers
from microcinema_core.train.config import parse
from microcinema_core.train.preview import LinearPreview
from microcinema_core.train.stages import build_stage
from microcinema_core.train.tsr import TSRStage
from microcinema_core.train.video import VideoStage
from tests.train.sd_world import ALL, SD, config, write_sd_home

UNET_OF_DIFFUSERS = {
    "block_out_channels": (64, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": (1, 2),
    "use_linear_projection": True,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    write_sd_home(tmp_path)
    return tmp_path


def whole_checkpoint(home: Path) -> Path:
    """Write a checkpoint that also has a VAE and a text encoder, and return its path."""
    return write_stable_diffusion(home / "whole.safetensors", "sd2", unet=unet_weights(SD))


def test_sheets_are_decoded_by_the_checkpoints_own_vae(home: Path) -> None:
    """Base takes the VAE from the file it starts from, TSR from `image_file`; it does not stay in memory."""
    pytest.importorskip("diffusers")
    path = whole_checkpoint(home)
    base = build_stage(parse(config(ALL, init_from="whole.safetensors")))
    tsr = TSRStage(
        parse(config(ALL, stage="tsr", init_from=export_of(home, base), model={"image_file": path.name}))
    )
    for stage in (base, tsr):
        assert isinstance(stage, VideoStage)
        z = stage.dataset[0]["mean"].float()
        pictures = stage.vae.decode(z)
        torch.testing.assert_close(pictures, decode_latents(load_decoder(path), z), rtol=1e-4, atol=1e-4)
        assert pictures.shape == (3, 3, 64, 64) and not list(stage.vae.parameters())
    assert isinstance(build_stage(parse(config(ALL))).vae, LinearPreview)  # type: ignore[attr-defined]


def export_of(home: Path, stage: Any) -> str:
    stage.prepare()
    stage.export(home / "inflated.safetensors", {name: m.state_dict() for name, m in stage.modules.items()})
    return "inflated.safetensors"


def test_a_diffusers_folder_is_the_same_start(home: Path) -> None:
    """Its inflated tensors equal those of the single file, and its VAE decodes alike."""
    diffusers = pytest.importorskip("diffusers")
    path = whole_checkpoint(home)
    folder = home / "folder"
    unet = diffusers.UNet2DConditionModel(**UNET_OF_DIFFUSERS)
    theirs = from_diffusers({key: torch.empty(0) for key in unet.state_dict()})
    assert len(theirs) == len(unet_weights(SD))
    names = {key: name for name, key in zip(theirs, unet.state_dict(), strict=True)}
    weights = unet_weights(SD)
    unet.load_state_dict({key: weights[name] for key, name in names.items()})
    unet.half().save_pretrained(folder / "unet")
    vae = diffusers.AutoencoderKL.from_config((whole := load_encoder_networks(path)).vae.config)
    vae.load_state_dict({**whole.vae.state_dict(), **load_decoder(path).state_dict()})
    vae.save_pretrained(folder / "vae")
    one, other = (build_stage(parse(config(ALL, init_from=name))) for name in ("whole.safetensors", "folder"))
    for stage in (one, other):
        stage.prepare()
    for part, module in one.modules.items():
        again = other.modules[part].state_dict()
        assert all(torch.equal(tensor, again[key]) for key, tensor in module.state_dict().items()), part
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    pictures = [stage.vae.decode(z) for stage in (one, other)]  # type: ignore[attr-defined]
    torch.testing.assert_close(*pictures, rtol=1e-4, atol=1e-4)
