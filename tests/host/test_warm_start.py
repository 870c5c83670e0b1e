"""A model that was trained on top of published motion weights, in the host: it loads, and KSampler runs it."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch

from tests.train.warm_world import CONTEXT, FRAMES, config, write_warm_home


@pytest.mark.parametrize(
    ("motion", "injection"), [("motion.safetensors", "spade"), ("pia.safetensors", "concat")]
)
def test_the_exported_file_runs_in_the_host(
    motion: str,
    injection: str,
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
    loop.run(parse(config(motion, model={"injection": injection})))
    made = family.adapter.load_checkpoint(tmp_path / "runs/my_base/my_base.safetensors")
    centre = {"samples": torch.randn(1, 4, 16, 8, generator=torch.Generator().manual_seed(1))}
    model = family.adapter.apply_appearance(made.model, made.appearnet, centre, lambda_=0.03)
    text = [[torch.randn(1, 77, CONTEXT, generator=torch.Generator().manual_seed(2)), {}]]
    with torch.inference_mode():
        frames = nodes.KSampler().sample(
            model, seed=1, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", positive=text, negative=text,
            latent_image={"samples": torch.zeros(FRAMES, 4, 16, 8)},
        )[0]["samples"]  # fmt: skip
    assert frames.shape == (FRAMES, 4, 16, 8)
    assert frames.isfinite().all()
    sigma_max = float(model.get_model_object("model_sampling").sigma_max)
    assert sigma_max == pytest.approx(25.146, rel=1e-3), "linear betas, as the motion was trained"
