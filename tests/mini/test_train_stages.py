"""The mini stages at tiny size on synthetic data: one run each, up to an exported file that can be loaded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from microcinema_core.config import TextConfig, UNetConfig, VAEConfig
from microcinema_core.files.checkpoint import load_strict, read_checkpoint
from microcinema_core.files.load_networks import load_vae
from microcinema_core.networks.text import EMBEDDING_KEY, TextEncoder
from microcinema_core.networks.unet import UNet3D
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.train import loop
from microcinema_core.train.batches import band_losses, pick_captions
from microcinema_core.train.config import load, parse
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.stages import build_stage
from microcinema_core.train.trainer import Trainer, select_trainable
from mini.evaluate.vae import reconstruction_psnr
from mini.stages.image import ImageStage
from mini.stages.text import TextStage
from mini.stages.vae import VAEStage, start_from_components, uneven_noise
from mini.train import MINI_STAGES

TINY_VAE = {"latent_channels": 4, "widths": [8, 8], "res_blocks": 1, "decoder_blocks": 1, "norm_groups": 4}
QUIET = {"every": 2, "sheet_minutes": 0, "export_minutes": 0, "checkpoint_minutes": 0}


class Blobs:
    """Smooth pictures (3, 32, 32), functions of their index."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index)
        small = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
        return torch.nn.functional.interpolate(small, size=32, mode="bilinear")[0]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    torch.manual_seed(0)
    return tmp_path


def vae_run(
    steps: int = 4, *, name: str = "v", groups: dict[str, float] | None = None, **table: object
) -> Trainer:
    optim = {"lr": 1e-3, "max_steps": steps, "warmup_steps": 1, "groups": groups or {}}
    config = parse(
        {"stage": "vae", "name": name, "data": {"batch": 4}, "optim": optim, "log": QUIET, "model": TINY_VAE}
        | table
    )
    return loop.run(config, stage=VAEStage(config, Blobs(), Blobs()))


def test_vae_stage_starts_at_the_linear_code_and_exports_normal_latents(home: Path) -> None:
    vae_run()
    file = read_checkpoint(home / "runs/v/v.safetensors")
    vae = load_vae(file)
    figures = reconstruction_psnr(vae, torch.stack([Blobs()[k] for k in range(24)]))
    assert figures["psnr_mean"] > 20
    assert figures["latent_mean_largest"] < 0.02
    assert figures["latent_std_smallest"] == pytest.approx(1, abs=0.02)
    rgb = torch.tensor(file.configs["vae"]["latent_rgb"])
    assert rgb.shape == (3, 5)
    z = vae.encode(Blobs()[0][None])[0]
    colour = torch.einsum("chw,oc->ohw", z, rgb[:, :4]) + rgb[:, 4, None, None]
    wanted = torch.nn.functional.avg_pool2d(Blobs()[0], 8)
    assert (colour - wanted).square().mean() < 0.2 * wanted.var()


def test_a_decoder_is_trained_on_under_an_encoder_that_stays(home: Path) -> None:
    vae_run()
    frozen = {"groups": {"encoder": 0.0, "decoder": 1.0}, "loss": {"latent_noise": 0.4}}
    vae_run(name="d", init_from="runs/v/v.safetensors", **frozen)
    before, after = (read_checkpoint(home / f"runs/{n}/{n}.safetensors").part("vae") for n in ("v", "d"))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder"}


def test_noise_on_latents_needs_an_encoder_that_stays() -> None:
    with pytest.raises(ValueError, match="an encoder that is trained, which could outgrow it"):
        vae_run(loss={"latent_noise": 0.4})
    with pytest.raises(ValueError, match=r"latent_noise"):
        vae_run(groups={"encoder": 0.0, "decoder": 1.0}, loss={"latent_noise": -1.0})


def test_the_shipped_config_trains_the_decoder_alone() -> None:
    config = load(Path(__file__).parents[2] / "mini" / "configs" / "mini_vae_decoder.toml")
    trained, groups = select_trainable(VAEStage(config, Blobs(), Blobs()), config.optim)
    assert {name.split(".")[1] for name in trained} == set(groups.values()) == {"decoder"}


def test_noise_on_latents_is_uneven_and_bounded() -> None:
    noise = uneven_noise(torch.zeros(400, 2, 16, 16), 0.4, SharedRandom(torch.Generator().manual_seed(0)))
    by_picture = noise.std(dim=(1, 2, 3))
    assert by_picture.min() < 0.02 and 0.2 < by_picture.max() < 0.4
    corner, opposite = (noise[:, :, rows, rows].std(dim=(1, 2, 3)) for rows in (slice(4), slice(-4, None)))
    assert ((corner / opposite).log().abs() > 0.7).float().mean() > 0.1


def test_linear_start_is_the_best_linear_code() -> None:
    vae = FoldedVAE(VAEConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in TINY_VAE.items()}))
    pictures = torch.stack([Blobs()[k] for k in range(24)])
    start_from_components(vae, pictures)
    patches = torch.nn.functional.pixel_unshuffle(pictures, 8).movedim(1, -1).flatten(0, -2)
    centred = patches - patches.mean(0)
    values = torch.linalg.svdvals(centred)
    best = values[4:].square().sum() / patches.numel()
    with torch.no_grad():
        torch.testing.assert_close((vae(pictures) - pictures).square().mean(), best, atol=1e-5, rtol=1e-3)


def write_set(folder: Path, count: int, *, frames: int = 1) -> None:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(count + frames)
    words = torch.randint(300, 320, (count, 2, 77), generator=generator, dtype=torch.int32)
    words[..., 0], words[..., 5:] = 49406, 49407
    shape = (count, frames, 4, 4, 4)
    save_file(
        {
            "mean": torch.randn(shape, generator=generator).half(),
            "std": torch.full(shape, 0.01).half(),
            "tokens": words,
            "fps": torch.full((count,), 2.0),
            "group": torch.zeros(count, dtype=torch.int32),
        },
        folder / "00000.safetensors",
    )
    index = {"shards": [count], "motion_keys": ["x"], "empty_tokens": [49406] + [49407] * 76}
    (folder / "index.json").write_text(json.dumps(index))


def text_config(steps: int):
    return parse(
        {
            "stage": "text",
            "name": "t",
            "precision": "fp32",
            "data": {"folder": "base", "test_folder": "base-test", "batch": 12},
            "optim": {"lr": 3e-3, "max_steps": steps, "warmup_steps": 1, "decay": "none"},
            "log": QUIET,
            "model": {
                "vae": "runs/v/v.safetensors",
                "pictures": "image",
                "text": {"width": 16, "layers": 1, "heads": 2},
            },
        }
    )


def write_sets(home: Path) -> None:
    for name, count, frames in (
        ("base", 24, 3),
        ("base-test", 12, 3),
        ("image", 24, 1),
        ("image-test", 12, 1),
    ):
        write_set(home / "data" / name, count, frames=frames)


def test_text_stage_learns_which_caption_is_whose(home: Path) -> None:
    vae_run(1)
    write_sets(home)
    trainer = loop.run(text_config(100), stages=MINI_STAGES)
    stage = trainer.stage
    assert isinstance(stage, TextStage)
    items = [stage.dataset[k] for k in range(12)]
    clips, tokens = (torch.stack([item[name] for item in items]) for name in ("mean", "tokens"))
    with torch.no_grad():
        similarity_logits = stage.similarity_logits(clips, tokens[:, 0])
        after_the_end = tokens[:, 0].clone()
        after_the_end[:, 20:] = 49406
        torch.testing.assert_close(stage.similarity_logits(clips, after_the_end), similarity_logits)
    found = (similarity_logits.argmax(dim=1) == torch.arange(12)).float().mean()
    assert found >= 0.6  # chance is 1 / 12


def test_text_stage_takes_pictures_as_clips_that_stand_still(home: Path) -> None:
    vae_run(1)
    write_sets(home)
    stage = build_stage(text_config(1), MINI_STAGES)
    still, moving = torch.as_tensor(stage.dataset[30]["mean"]), torch.as_tensor(stage.dataset[3]["mean"])
    assert still.shape == moving.shape == (3, 4, 4, 4)
    assert still[0].equal(still[2]) and not moving[0].equal(moving[2])


def image_config(steps: int):
    unet = {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "channel_mult": [1, 1],
        "context_dim": 16,
    }
    return parse(
        {
            "stage": "image",
            "name": "i",
            "data": {"folder": "image", "test_folder": "image-test", "batch": 4},
            "optim": {
                "lr": 1e-3,
                "max_steps": steps,
                "warmup_steps": 1,
                "groups": {"unet": 1.0},
            },
            "log": QUIET,
            "model": {
                "vae": "runs/v/v.safetensors",
                "text": "runs/t/t.safetensors",
                "unet": unet,
            },
            "loss": {"steps": 2},
        }
    )


def test_image_stage_trains_resumes_and_exports(home: Path) -> None:
    vae_run(1)
    write_sets(home)
    loop.run(text_config(1), stages=MINI_STAGES)
    loop.run(image_config(3), stages=MINI_STAGES)
    resumed = loop.run(image_config(5), resume=True, stages=MINI_STAGES)
    assert resumed.step == 5
    file = read_checkpoint(home / "runs/i/i.safetensors", expect_roles=["image"])
    unet = UNet3D(UNetConfig.from_dict(file.configs["unet"]))
    load_strict(unet, file.part("unet"), "the U-Net")
    text = TextEncoder(TextConfig.from_dict(file.configs["text"]))
    load_strict(text, file.part("text"), "the text encoder")
    used = text.state_dict()[EMBEDDING_KEY].abs().sum(dim=1) > 0
    assert used[[49406, 49407]].all() and used[300:320].any() and not used[:300].any()
    load_vae(file)


class Knowing(torch.nn.Module):
    """A U-Net that predicts v exactly, as it knows the pictures and the schedule that it was trained with."""

    def __init__(self, z_0: torch.Tensor, alpha_bar: torch.Tensor) -> None:
        super().__init__()
        self.z_0, self.alpha_bar = torch.nn.Parameter(z_0), alpha_bar.float()

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        alpha_bar = self.alpha_bar[t.round().long(), None, None, None]
        return (alpha_bar.sqrt() * x - self.z_0) / (1 - alpha_bar).sqrt()


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_a_sheet_is_sampled_by_the_models_own_schedule(home: Path, zero_terminal_snr: bool) -> None:
    """It then shows the pictures; the schedules are written out here (Lin et al. 2023 for the one that ends at 0)."""
    vae_run(1)
    write_sets(home)
    loop.run(text_config(1), stages=MINI_STAGES)
    config = image_config(1)
    model = {**config.model, "prediction": "v", "zero_terminal_snr": zero_terminal_snr}
    stage = build_stage(replace(config, model=model, loss={"steps": 7}), MINI_STAGES)
    assert isinstance(stage, ImageStage)
    alpha_bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0)
    if zero_terminal_snr:
        root = alpha_bar.sqrt()
        alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    z_0 = torch.cat([stage.test[k]["mean"] for k in range(12)])
    stage.model.unet = Knowing(z_0, alpha_bar)  # type: ignore[assignment]
    real, made = stage._row(stage.test).chunk(2)
    torch.testing.assert_close(made, real, atol=2e-2, rtol=0)
    stage.model.unet = Knowing(z_0, alpha_bar.flip(0))  # type: ignore[assignment]
    assert (stage._row(stage.test).chunk(2)[1] - real).abs().max() > 0.1


def test_missing_vae_is_told(home: Path) -> None:
    with pytest.raises(ValueError, match="train the stage that exports it first"):
        loop.run(image_config(1), stages=MINI_STAGES)


def test_captions_are_picked_and_dropped() -> None:
    tokens = torch.arange(2).repeat(500, 1)[..., None].expand(500, 2, 3).int() + 1
    empty = torch.zeros(3, dtype=torch.int32)
    chosen, dropped = pick_captions(tokens, empty, 0.1, SharedRandom(torch.Generator().manual_seed(0)))
    chosen = chosen[:, 0]
    assert torch.equal(dropped, chosen == 0)
    counts = torch.bincount(chosen, minlength=3) / 500
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.45, 0.45]), atol=0.07, rtol=0)


def test_bands_split_the_schedule() -> None:
    bands = band_losses(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 249, 999]), 1000)
    assert list(bands) == [f"loss/band{k}" for k in range(4)]
    assert (bands["loss/band0"], bands["loss/band3"]) == (2, 5)
    assert bands["loss/band1"].isnan() and bands["loss/band2"].isnan()
