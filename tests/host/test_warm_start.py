"""A model that was trained on top of published motion weights, in the host: KSampler gives what the core does."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.check.crafter_files import CLIP_WIDTH
from tests.train.clip_world import write_clips
from tests.train.warm_world import CONTEXT, FRAMES, config, write_video_models, write_warm_home

SCALE = 0.18215
"""Factor of Stable Diffusion's latents in model space."""


@pytest.mark.parametrize(
    ("motion", "injection", "image", "noisiest"),
    [
        # linear betas; those of Stable Diffusion over the scale of clean latents; zero terminal SNR
        ("motion.safetensors", "spade", "sd.safetensors", 25.146),
        ("pia.safetensors", "concat", "sd.safetensors", 25.146),
        ("videocrafter2.safetensors", "spade", "sd2.safetensors", 14.615 / 0.7),
        ("dynamicrafter_512.safetensors", "spade", "sd2.safetensors", 6455.4),
        ("dynamicrafter_512.safetensors", "concat", "sd2.safetensors", 6455.4),
    ],
)
def test_the_exported_file_runs_in_the_host(
    motion: str,
    injection: str,
    image: str,
    noisiest: float,
    family: types.SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import nodes
    from microcinema_core.train import loop, video
    from microcinema_core.train.config import parse

    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    monkeypatch.setattr(video, "SHEET_STEPS", 1)
    monkeypatch.setattr(video, "SHEET_CLIPS", 1)
    write_warm_home(tmp_path)
    write_video_models(tmp_path)
    looks = motion.startswith("dynamicrafter") and injection == "concat"
    write_clips(
        tmp_path / "data" / "seen", FRAMES, [2.0], channels=4, contexts=CONTEXT, side=(16, 8),
        vision=(5, CLIP_WIDTH),
    )  # fmt: skip
    data = {"folder": "seen", "batch": 2}
    loop.run(parse(config(motion, model={"injection": injection}, init_from=image, data=data)))
    made = family.adapter.load_checkpoint(tmp_path / "runs/my_base/my_base.safetensors")
    centre = {"samples": torch.randn(1, 4, 16, 8, generator=torch.Generator().manual_seed(1))}
    features = torch.randn(1, 5, CLIP_WIDTH, generator=torch.Generator().manual_seed(5)) if looks else None
    model = family.adapter.apply_appearance(
        made.model, made.appearnet, centre, lambda_=0.03, gamma=0.0, features=features
    )
    sampling = model.get_model_object("model_sampling")
    assert float(sampling.sigma_max) == pytest.approx(noisiest, rel=1e-3), "as the motion was trained"
    text, negative = torch.randn(2, 1, 77, CONTEXT, generator=torch.Generator().manual_seed(2)).unbind()
    with torch.inference_mode():
        frames = nodes.KSampler().sample(
            model, seed=1, steps=4, cfg=2.0, sampler_name="euler", scheduler="simple",
            positive=[[text, {}]], negative=[[negative, {}]],
            latent_image={"samples": torch.zeros(FRAMES, 4, 16, 8)},
        )[0]["samples"]  # fmt: skip
    expected = by_the_core(tmp_path, centre["samples"], text, negative, sampling, features)
    assert float((SCALE * frames - expected).abs().max() / expected.abs().max()) < 1e-3


@torch.no_grad()
def by_the_core(
    home: Path, centre: Tensor, text: Tensor, negative: Tensor, sampling: Any, features: Tensor | None
) -> Tensor:
    """Sample the same clip with the core's own networks, noise prior and DDIM, at the host's noise levels."""
    import comfy.sample
    import comfy.samplers

    from microcinema_core.diffusion.ddim import classifier_free_guidance, ddim_steps
    from microcinema_core.files.checkpoint import read_checkpoint
    from microcinema_core.files.load_networks import load_video_model

    model = load_video_model(read_checkpoint(home / "runs/my_base/my_base.safetensors"))
    z_c = SCALE * centre
    clip = z_c.unsqueeze(1).expand(-1, FRAMES, -1, -1, -1)
    guided = classifier_free_guidance(
        model.denoiser(z_c, text, clip, 1.0, features),
        model.denoiser(z_c, negative, clip, 1.0, None if features is None else model.grey[None]),
        2.0,
    )
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 4)  # whole timesteps: the host rounds others
    noise = comfy.sample.prepare_noise(torch.zeros(FRAMES, 4, 16, 8), 1)
    *_, made = ddim_steps(guided, (noise * (1 + sigmas[0] ** 2).sqrt()).unsqueeze(0), sigmas)
    return made[0]
