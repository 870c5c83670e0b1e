"""Files with matrices in float8 in the host, on the CPU: MicroCinema's own, and Stable Diffusion for Inflate."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.train.to_fp8 import FP8, round_weights, to_fp8
from tests.host.test_models_inflated import CONFIGS
from tests.host.tiny_family import empty, ksampler


@pytest.fixture(scope="module")
def files(family: types.SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny base model in float8, and the same numbers in float16."""
    folder = tmp_path_factory.mktemp("fp8")
    small, wide = folder / "small.safetensors", folder / "wide.safetensors"
    to_fp8(family.folder / "tiny_base.safetensors", small)
    held = read_checkpoint(small)
    write_checkpoint(wide, held.parts, spec=held.spec, configs=held.configs, dtype=torch.float32)
    return small, wide


def clip(family: types.SimpleNamespace, loaded: Any) -> Tensor:
    model = family.adapter.apply_appearance(loaded.model, loaded.appearnet, family.centre)
    return ksampler(family, model, empty())


def test_a_float8_file_is_run_as_the_numbers_that_it_holds(
    family: types.SimpleNamespace, files: tuple[Path, Path]
) -> None:
    small, wide = (family.adapter.load_checkpoint(file) for file in files)
    torch.testing.assert_close(clip(family, small), clip(family, wide), rtol=1e-4, atol=1e-4)
    exact = clip(family, family.base)
    assert 1e-5 < (clip(family, small) - exact).square().mean() / exact.var() < 0.1


def test_its_norms_never_become_float8(family: types.SimpleNamespace, files: tuple[Path, Path]) -> None:
    model = family.adapter.load_unet(files[0]).model.diffusion_model
    assert FP8 not in {parameter.dtype for parameter in model.parameters()}


@pytest.mark.parametrize("family_name", ["sd1", "sd2"])
def test_a_float8_stable_diffusion_file_is_inflated(
    family: types.SimpleNamespace, tmp_path: Path, family_name: str
) -> None:
    """Loaded from float8, the inflated model holds and computes what it does from the same numbers in float32."""
    prefix = "model.diffusion_model."
    weights = tiny.unet_weights(CONFIGS[family_name])
    rounded = {prefix + key: tensor for key, tensor in round_weights(weights, "unet").items()}
    clips = []
    for name, tensors in (("small", rounded), ("wide", {key: t.float() for key, t in rounded.items()})):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        video = family.adapter.inflate_checkpoint(
            tmp_path / f"{name}.safetensors", injection="spade", temporal_layout="paper", prediction="eps"
        )
        context = torch.randn(
            1, 77, CONFIGS[family_name].context_dim, generator=torch.Generator().manual_seed(3)
        )
        given = {"positive": [[context, {}]], "negative": [[0 * context, {}]]}
        clips.append(ksampler(family, video.model, {"samples": torch.zeros(3, 4, 8, 8)}, **given))
    assert clips[0].isfinite().all() and clips[0].std() > 0
    torch.testing.assert_close(clips[0], clips[1], rtol=1e-4, atol=1e-4)
