"""The Crafter family in the host: noise levels, the picture through CLIP vision, frames between key frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.check import tiny
from devtools.check.crafter_files import CLIP_WIDTH, LDM, UNET, write_crafter

FRAMES = 16
SMALL = replace(UNET, channel_mult=(1, 2), transformer_depth=(1, 1))
SCALE = 0.18215
"""Factor of Stable Diffusion's latents in model space."""
Maker = Callable[..., Any]


class Vision:
    """A stand-in for CLIP vision: features that depend on the picture's mean."""

    def encode_image(self, image: Tensor, crop: bool) -> dict[str, Tensor]:
        assert not crop
        return {"last_hidden_state": torch.cat([vision(float(picture.mean())) for picture in image])}


def vision(value: float) -> Tensor:
    generator = torch.Generator().manual_seed(int(value * 1000))
    return torch.randn(1, 9, CLIP_WIDTH, generator=generator)


VISION = Vision()


@pytest.fixture
def load(comfy_in_process: Path, tmp_path: Path) -> Maker:
    """Return a loader of small random files by their published names."""

    def make(name: str = "dynamicrafter_512", *, clip: Any = VISION, use: str = "auto", **file: Any) -> Any:
        from microcinema_core.adapter.crafter import load_crafter

        path = write_crafter(tmp_path / f"{name}.safetensors", file.pop("unet", SMALL), **file)
        return load_crafter(path, use=use, clip_vision=clip)

    return make


def picture(seed: int, count: int = 1) -> dict[str, Tensor]:
    return {"samples": torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(seed))}


def texts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(1, 8, SMALL.context_dim, generator=generator) for _ in range(2))
    return first, second


def sampled(model: Any, frames: int = FRAMES, *, cfg: float = 3.0, steps: int = 2) -> Tensor:
    """Sample with the stock KSampler's function."""
    import comfy.sample

    text, negative = texts()
    noise = torch.randn(frames, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    return comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        "euler",
        "simple",
        [[text, {}]],
        [[negative, {}]],
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=0,
    )


def settings(**changes: Any) -> Any:
    from microcinema_core import adapter

    text, negative = texts()
    run = adapter.SamplerSettings([[text, {}]], [[negative, {}]], 0, 2, 3.0, "euler", "simple")
    return replace(run, **changes)


@torch.no_grad()
def test_a_run_is_the_cores_own_ddim(load: Maker, tmp_path: Path) -> None:
    """Guidance, tokens of the picture and of grey, the frame rate, scaled latents: KSampler against the core."""
    import comfy.samplers

    from microcinema_core import adapter
    from microcinema_core.diffusion.ddim import classifier_free_guidance, ddim_steps
    from microcinema_core.diffusion.schedule import NoiseSchedule, denoiser
    from microcinema_core.files.checkpoint import load_strict
    from microcinema_core.files.crafter import read_crafter
    from microcinema_core.networks.appearnet import AppearNet
    from microcinema_core.networks.layers import ImageContext
    from microcinema_core.networks.unet import UNet3D

    loaded = load()
    model = adapter.apply_appearance(
        loaded.model, loaded.appearnet, picture(3), features=vision(0.7), motion="large"
    )
    sampling = model.get_model_object("model_sampling")
    assert float(sampling.sigma_max) == pytest.approx(6455.4, abs=0.1)
    made = sampled(model, steps=4) * SCALE

    read = read_crafter(tmp_path / "dynamicrafter_512.safetensors")
    assert read.appearnet_config is not None and read.appearnet is not None
    unet, net = UNet3D(read.config).eval(), AppearNet(read.appearnet_config).eval()
    load_strict(unet, read.unet, "the U-Net")
    load_strict(net, read.appearnet, "the AppearNet")
    z_c = picture(3)["samples"].expand(FRAMES, -1, -1, -1) * SCALE
    concat = net.inject([z_c], frames=FRAMES)

    def branch(text: Tensor, features: Tensor) -> Any:
        injection = replace(concat, image=ImageContext(net.resampler(features)))

        def network(x: Tensor, t: Tensor) -> Tensor:
            each = text.expand(FRAMES, -1, -1)
            return unet(x, t, each, frames=FRAMES, injection=injection, fps=15.0)

        return denoiser(network, NoiseSchedule.from_spec(read.spec), "v")

    text, negative = texts()
    guided = classifier_free_guidance(branch(text, vision(0.7)), branch(negative, vision(0.5)), 3.0)
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 4)
    noise = torch.randn(FRAMES, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    *_, expected = ddim_steps(guided, noise * (1 + sigmas[0] ** 2).sqrt(), sigmas)
    assert float((made - expected).abs().max() / expected.abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["dynamicrafter_512", "dynamicrafter_256", "videocrafter"])
def test_without_motion_it_is_the_stock_model(name: str, load: Maker, comfy_in_process: Path) -> None:
    """Zeros in the last projections leave Stable Diffusion 2.1, with the same noise levels."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    from microcinema_core import adapter
    from microcinema_core.adapter.network import host_unet_config

    unet = SMALL if name != "videocrafter" else replace(SMALL, image_context=0)
    gate = f"{LDM}input_blocks.1.1.transformer_blocks.0.attn2.alpha"
    extra = {gate: torch.tensor(0.3)} if name == "dynamicrafter_256" else {}
    loaded = load(name, unet=unet, still=True, extra=extra)
    still = loaded.model
    if unet.image_context:
        still = adapter.apply_appearance(still, loaded.appearnet, picture(3), features=vision(0.7))
    shape = host_unet_config(SMALL.as_2d())
    shape |= {"image_size": 32, "use_spatial_transformer": True, "legacy": False, "dtype": torch.float32}
    del shape["microcinema"]
    config = comfy.supported_models.SD20({})
    config.unet_config = shape
    stock = comfy.model_base.BaseModel(config)
    names = set(stock.diffusion_model.state_dict())
    weights = {
        key: value for key, value in loaded.model.model.diffusion_model.state_dict().items() if key in names
    }
    assert weights.keys() == names
    stock.load_model_weights(weights)
    device = torch.device("cpu")
    plain = comfy.model_patcher.ModelPatcher(stock, load_device=device, offload_device=device)
    plain.add_object_patch("model_sampling", still.model.model_sampling)
    expected, made = sampled(plain), sampled(still)
    assert float((made - expected).norm() / expected.norm()) < 1e-4


def test_the_picture_acts_also_where_the_host_replaces_attention(load: Maker) -> None:
    from microcinema_core import adapter
    from microcinema_core.adapter.network import host_attention

    loaded = load()
    model = adapter.apply_appearance(loaded.model, loaded.appearnet, picture(3), features=vision(0.7))
    made = sampled(model)
    replaced = model.clone()
    for block in (("input", 1), ("middle", 0), ("output", 3)):
        replaced.set_model_attn2_replace(
            lambda q, k, v, extra: host_attention(
                q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"]
            ),
            *block,
        )
    torch.testing.assert_close(sampled(replaced), made, rtol=1e-4, atol=1e-4)
    other = adapter.apply_appearance(loaded.model, loaded.appearnet, picture(3), features=vision(0.2))
    assert not torch.allclose(sampled(other), made, atol=1e-2)
    without = adapter.apply_appearance(
        loaded.model, loaded.appearnet, picture(3), features=vision(0.7), strength=0.0
    )
    torch.testing.assert_close(sampled(without), sampled(loaded.model))


def test_the_amount_of_motion_is_a_frame_rate(load: Maker) -> None:
    from microcinema_core import adapter

    loaded = load()

    def made(motion: str) -> Tensor:
        return sampled(
            adapter.apply_appearance(
                loaded.model, loaded.appearnet, picture(3), features=vision(0.7), motion=motion
            )
        )

    assert torch.equal(made("auto"), made("medium"))
    assert not torch.allclose(made("small"), made("large"), atol=1e-3)
    between = load("dynamicrafter_512_interp")
    given = {"last_frame": picture(4), "anchor": "first", "features": vision(0.7)}
    with pytest.raises(ValueError, match="has no setting for the amount of motion"):
        adapter.apply_appearance(between.model, between.appearnet, picture(3), motion="large", **given)


def test_what_is_missing_is_said_in_a_sentence(load: Maker) -> None:
    from microcinema_core import adapter

    loaded, text = load(), load("videocrafter", unet=replace(SMALL, image_context=0), clip=None)

    def applied(given: Any = loaded, **changes: Any) -> Any:
        return adapter.apply_appearance(
            given.model, given.appearnet, picture(3), **{"features": vision(0.7), **changes}
        )

    for changes, says in (
        ({"features": None}, "connect clip_vision_output, from the stock CLIP Vision Encode with crop none"),
        ({"features": torch.zeros(1, 9, 1024)}, r"shape \(1, 9, 1024\), 1280 channels were expected"),
        ({"features": vision(0.7).repeat(2, 1, 1)}, "holds 2 pictures, 1 expected"),
        ({"features": vision(0.7) * torch.nan}, "NaN or infinite"),
        ({"last_frame": picture(4)}, "takes one picture"),
        ({"lambda_": 0.03}, "trained without the noise prior: use 0 or -1"),
    ):
        with pytest.raises(ValueError, match=says):
            applied(**changes)
    with pytest.raises(ValueError, match="connect clip_vision of MicroCinema Crafter Loader"):
        applied(load(clip=None))
    between = load("dynamicrafter_512_interp")
    for changes in ({}, {"anchor": "first"}, {"last_frame": picture(4)}):
        with pytest.raises(ValueError, match="set anchor to first and connect last_frame"):
            applied(between, **changes)
    with pytest.raises(ValueError, match="makes videos from text and has no AppearNet"):
        text.appearnet.config  # noqa: B018
    with pytest.raises(ValueError, match="no VAE that ComfyUI can use"):
        text.vae.decode  # noqa: B018
    with pytest.raises(ValueError, match="role is 'base', MicroCinema Interpolate Frames expected"):
        adapter.interpolate_video(loaded.model, loaded.appearnet, picture(3, 2), settings(), rounds=1)


@pytest.mark.parametrize("anchor", ["centre", "first", "last"])
def test_a_held_picture_is_that_frame(anchor: str, load: Maker) -> None:
    from microcinema_core import adapter

    loaded = load()

    def made(**changes: Any) -> Tensor:
        latent, fps = adapter.sample_video(
            loaded.model,
            loaded.appearnet,
            picture(3),
            settings(),
            anchor=anchor,
            features=vision(0.7),
            **changes,
        )
        assert fps == 8.0 and latent["samples"].shape[0] == FRAMES
        return latent["samples"]

    frame = {"centre": 8, "first": 0, "last": 15}[anchor]
    held = made(hold=True)
    assert torch.equal(held[frame], picture(3)["samples"][0])
    assert not torch.allclose(made()[frame], held[frame], atol=1e-2)
    assert bool(torch.isfinite(held).all())


@pytest.mark.parametrize("keys", [2, 3])
@pytest.mark.parametrize("pictures", ["one", "each"])
def test_frames_between_key_frames(
    keys: int, pictures: str, load: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window starts at each key frame and sees the picture of that one."""
    from microcinema_core import adapter

    loaded = load("tooncrafter_512_interp")
    net, seen = loaded.appearnet.patcher.model, []
    resampler = net.resampler.forward
    monkeypatch.setattr(net.resampler, "forward", lambda x: (seen.append(x), resampler(x))[1])
    each = [0.1, 0.2, 0.3][:keys]
    features = vision(0.1) if pictures == "one" else torch.cat([vision(value) for value in each])
    made = [
        adapter.interpolate_video(
            loaded.model,
            loaded.appearnet,
            picture(5, keys),
            settings(),
            rounds=1,
            chunk=chunk,
            features=features,
        )["samples"]
        for chunk in (1, 2)
    ]
    assert made[0].shape[0] == 15 * (keys - 1) + 1
    assert torch.equal(made[0][::15], picture(5, keys)["samples"])
    assert float((made[0] - made[1]).norm() / made[1].norm()) < 1e-3
    guided, unguided = seen[0], seen[1]
    firsts = [vision(0.1 if pictures == "one" else value) for value in each[:-1]]
    assert torch.equal(guided, firsts[0]) and torch.equal(unguided, vision(0.5))
    if keys == 3:
        assert any(torch.equal(given, torch.cat(firsts)) for given in seen), "both windows at once"
    with pytest.raises(ValueError, match=f"holds 4 pictures and key_frames {keys}"):
        adapter.interpolate_video(
            loaded.model,
            loaded.appearnet,
            picture(5, keys),
            settings(),
            rounds=1,
            features=vision(0.1).repeat(4, 1, 1),
        )


def test_nine_key_frames_become_121(load: Maker) -> None:
    """Nearly the paper's cascade, 9 frames at 2 fps to 129 at 32, in one round; the count needs no steps of quality."""
    from microcinema_core import adapter
    from microcinema_core.diffusion.tsr import fps_after

    loaded = load("dynamicrafter_512_interp")
    made = adapter.interpolate_video(
        loaded.model,
        loaded.appearnet,
        picture(5, 9),
        settings(steps=1, cfg=1.0),
        rounds=1,
        features=vision(0.1),
    )["samples"]
    assert made.shape[0] == 121 and torch.equal(made[::15], picture(5, 9)["samples"])
    assert fps_after(2.0, 1, loaded.appearnet.spec.window.factor) == 30.0


def test_a_saved_model_is_the_same(load: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    from comfy_extras.nodes_model_merging import ModelSave

    from microcinema_core import adapter

    loaded = load(spatial=tiny.unet_weights(SMALL.as_2d()))
    made = sampled(loaded.model)
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    ModelSave().save(loaded.model, "saved")
    (path,) = (tmp_path / "out").glob("saved*.safetensors")
    again = adapter.load_unet(path)
    assert again.model.spec == loaded.model.model.spec and again.model.info.config == SMALL
    assert torch.equal(sampled(again), made)
