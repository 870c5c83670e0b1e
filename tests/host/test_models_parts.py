"""Text encoder, VAE, and the MODEL that a file's metadata describes: in process, with small random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from devtools.check import tiny
from microcinema_core.diffusion.schedule import NoiseSchedule, alphas_cumprod
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.model_spec import ModelSpec
from tests.host.tiny_family import ksampler


def test_the_text_encoder_is_the_one_that_was_trained(family: Any) -> None:
    import nodes
    from microcinema_core.networks.text import TextEncoder

    with torch.inference_mode():
        ((context, _),) = nodes.CLIPTextEncode().encode(family.image.clip, "a galloping horse")[0]
        tokens = family.image.clip.tokenize("a galloping horse")["l"][0]
        ours = TextEncoder(tiny.TEXT)
        ours.load_state_dict(tiny.text_weights())
        expected = ours(torch.tensor([[token for token, _ in tokens]]))
    assert_close(context, expected, rtol=2e-3, atol=2e-3)


def test_the_vae_in_stock_nodes(family: Any) -> None:
    import nodes
    from microcinema_core.networks.vae import FoldedVAE

    picture = torch.rand(2, 72, 64, 3)
    ours = FoldedVAE(tiny.VAE)
    ours.load_state_dict(tiny.vae_weights())
    with torch.inference_mode():
        latent = nodes.VAEEncode().encode(family.image.vae, picture)[0]
        assert_close(latent["samples"], ours.encode(picture.movedim(-1, 1) * 2 - 1), rtol=1e-4, atol=1e-4)
        frames = nodes.VAEDecode().decode(family.image.vae, latent)[0]
        expected = ((ours.decode(latent["samples"]) + 1) / 2).clamp(0, 1).movedim(1, -1)
        assert_close(frames, expected, rtol=1e-4, atol=1e-4)
        tiled = nodes.VAEDecodeTiled().decode(family.image.vae, latent, 64, 16)[0]
        assert tiled.shape == frames.shape == picture.shape
        grown = nodes.VAEEncodeTiled().encode(family.image.vae, picture, 64, 16)[0]
        assert grown["samples"].shape == latent["samples"].shape


def test_previews_come_from_the_vaes_own_colours(family: Any) -> None:
    from latent_preview import Latent2RGBPreviewer

    form = family.base.model.model.latent_format
    previewer = Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    assert previewer.decode_latent_to_preview(family.centre["samples"]).size == (8, 8)


def v_model(folder: Path, terminal: str = "sd") -> Path:
    return write_checkpoint(
        folder / f"v_{terminal}.safetensors",
        {"unet": tiny.unet_weights(tiny.UNET)},
        spec=ModelSpec("unet", fps=2, frames=9, prediction="v", zero_terminal_snr=terminal == "zero"),
        configs={"unet": tiny.UNET},
    )


@pytest.mark.parametrize("terminal", ["sd", "zero"])
def test_the_noise_schedule_is_the_files_word(family: Any, tmp_path: Path, terminal: Any) -> None:
    """The host's sigmas equal those that the file was trained with, including the last."""
    sampling = family.adapter.load_unet(v_model(tmp_path, terminal)).get_model_object("model_sampling")
    spec = ModelSpec("unet", prediction="v", zero_terminal_snr=terminal == "zero")
    torch.testing.assert_close(sampling.sigmas, NoiseSchedule.from_spec(spec).sigmas, rtol=2e-3, atol=0)


@pytest.mark.parametrize(("betas", "sigma_max"), [("scaled_linear", 14.615), ("linear", 25.146)])
def test_the_betas_are_the_files_word(family: Any, tmp_path: Path, betas: Any, sigma_max: float) -> None:
    """The host has other names for them: its "linear" is Stable Diffusion's, "sqrt_linear" the plain ramp."""
    file = write_checkpoint(
        tmp_path / f"{betas}.safetensors",
        {"unet": tiny.unet_weights(tiny.UNET)},
        spec=ModelSpec("unet", fps=2, frames=9, betas=betas),
        configs={"unet": tiny.UNET},
    )
    sampling = family.adapter.load_unet(file).get_model_object("model_sampling")
    expected = NoiseSchedule(alphas_cumprod(betas=betas)).sigmas
    assert_close(sampling.sigmas, expected, rtol=1e-4, atol=0)
    assert float(sampling.sigma_max) == pytest.approx(sigma_max, abs=1e-3)


def test_prediction_is_the_files_word(family: Any, tmp_path: Path) -> None:
    import comfy.model_base

    model = family.adapter.load_unet(v_model(tmp_path))
    assert model.model.model_type == comfy.model_base.ModelType.V_PREDICTION
    assert not torch.equal(ksampler(family, model), ksampler(family, family.base.model))


def test_an_absent_part_is_named_where_it_is_used(family: Any) -> None:
    import nodes

    with pytest.raises(ValueError, match=r"tiny_base\.safetensors holds appearnet, unet, but not the VAE"):
        nodes.VAEDecode().decode(family.base.vae, family.centre)
    with pytest.raises(ValueError, match="but not the AppearNet"):
        family.adapter.apply_appearance(family.base.model, family.image.appearnet, family.centre)
    assert not hasattr(family.base.vae, "get_ram_usage")


def test_weights_are_used_as_they_were_read(family: Any, tmp_path: Path) -> None:
    """Those of the network's dtype are not copied once more."""
    from microcinema_core.adapter.loading import build_model
    from microcinema_core.files.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(v_model(tmp_path))
    own = next(
        iter(family.adapter.load_checkpoint(v_model(tmp_path)).model.model.diffusion_model.parameters())
    )
    parts = checkpoint.parts["unet"] = {k: v.to(own.dtype) for k, v in checkpoint.part("unet").items()}
    read = {tensor.data_ptr() for tensor in parts.values()}
    network = build_model(checkpoint).model.diffusion_model
    assert all(parameter.data_ptr() in read for parameter in network.parameters())


def test_only_the_shipped_files_stay_mapped(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that others may overwrite is read; `--disable-mmap` has all files read."""
    import comfy.utils

    from microcinema_core.adapter import loading

    asked: list[bool] = []
    read = loading.read_checkpoint
    monkeypatch.setattr(
        loading, "read_checkpoint", lambda *a, mapped, **k: (asked.append(mapped), read(*a, **k))[1]
    )
    path = v_model(tmp_path)
    for shipped, disabled in ((tmp_path, False), (tmp_path / "other", False), (tmp_path, True)):
        monkeypatch.setattr(loading, "SHIPPED_WEIGHTS", shipped)
        monkeypatch.setattr(comfy.utils, "DISABLE_MMAP", disabled)
        loading.load_unet(path)
    assert asked == [True, False, False]
