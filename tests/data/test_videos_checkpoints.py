"""Checkpoints to encode clips with: files, folders, and other files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from devtools.check.stable_diffusion import write_stable_diffusion
from microcinema_core.data.videos.stable_diffusion import load_encoder_networks

for library in ("diffusers", "transformers"):
    pytest.importorskip(library)


def test_folder_and_file_of_one_checkpoint_are_the_same(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    for kind in ("sd1", "sd2"):
        path = write_stable_diffusion(tmp_path / f"{kind}.safetensors", kind)
        networks = load_encoder_networks(path)
        folder = tmp_path / kind
        whole = AutoencoderKL.from_config(networks.vae.config)  # type: ignore[union-attr]
        whole.load_state_dict(networks.vae.state_dict(), strict=False)
        whole.save_pretrained(folder / "vae")
        networks.text.save_pretrained(folder / "text_encoder")  # type: ignore[operator]
        again = load_encoder_networks(folder)
        assert again.digest() == networks.digest() and again.padding == networks.padding
        assert networks.padding == (49407 if kind == "sd1" else 0)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"model.diffusion_model.x": torch.zeros(1)}, r"holds no VAE .* and no text encoder"),
        ({"lora_unet.up": torch.zeros(1)}, "this is a LoRA; a whole Stable Diffusion"),
    ],
)
def test_another_kind_of_checkpoint(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    from safetensors.torch import save_file

    save_file(tensors, str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match=message):
        load_encoder_networks(tmp_path / "x.safetensors")
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02pickle---")
    with pytest.raises(ValueError, match="PyTorch pickle"):
        load_encoder_networks(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="no such file"):
        load_encoder_networks(tmp_path / "absent.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"no vae/config\.json"):
        load_encoder_networks(tmp_path / "folder")
