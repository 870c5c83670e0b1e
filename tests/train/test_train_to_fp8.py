"""Weights stored in float8: which ones, how well, and that the standalone sampler runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from devtools.check import goldens, tiny
from microcinema_core.config import UNetConfig
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.files.load_networks import load_image_model, load_video_model
from microcinema_core.model_spec import ModelSpec
from microcinema_core.train.to_fp8 import FP8, main, to_fp8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    tiny.write_family(folder)
    for role in ("image", "base"):
        to_fp8(folder / f"tiny_{role}.safetensors", folder / f"{role}8.safetensors")
    return folder


@pytest.mark.parametrize("role", ["image", "base"])
def test_matrices_are_rounded_to_the_nearest_and_the_rest_is_untouched(folder: Path, role: str) -> None:
    before = read_checkpoint(folder / f"tiny_{role}.safetensors")
    after = read_checkpoint(folder / f"{role}8.safetensors")
    assert (after.spec, after.configs, after.metadata) == (before.spec, before.configs, before.metadata)
    for part, tensors in before.parts.items():
        rounded = {key for key, tensor in after.parts[part].items() if tensor.dtype == FP8}
        kept = tensors.keys() - rounded
        assert all(after.parts[part][key].equal(tensors[key]) for key in kept)
        shares = sum(tensors[key].numel() for key in rounded) / sum(t.numel() for t in tensors.values())
        assert shares == 0 if part in ("text", "vae") else shares > 0.85
        for key in rounded:
            assert tensors[key].ndim > 1 and "time_embed" not in key and not key.startswith("out.")
            exact, stored = tensors[key].float(), after.parts[part][key].float()
            # Three bits behind the point: half a unit there, and 2^-10 below the normal numbers.
            assert ((exact - stored).abs() <= exact.abs() / 16 + 2**-10).all()
    size = (folder / f"{role}8.safetensors").stat().st_size
    assert size < (folder / f"tiny_{role}.safetensors").stat().st_size


def sampled(file: Path) -> Tensor:
    model = load_video_model(read_checkpoint(file))
    given = goldens.inputs()
    return model.sample(
        given["centre"], given["positive"], given["negative"], frames=3, steps=3, guidance_scale=1.0
    )


def test_the_standalone_samplers_run_it_as_the_numbers_that_it_holds(folder: Path, tmp_path: Path) -> None:
    """The same numbers in a float32 file give the same clip, and the unrounded ones one that is near."""
    stored = read_checkpoint(folder / "base8.safetensors")
    parts = {name: {key: t.float() for key, t in part.items()} for name, part in stored.parts.items()}
    wide = tmp_path / "wide.safetensors"
    write_checkpoint(wide, parts, spec=stored.spec, configs=stored.configs, dtype=torch.float32)
    clip, exact = sampled(folder / "base8.safetensors"), sampled(folder / "tiny_base.safetensors")
    torch.testing.assert_close(clip, sampled(wide))
    assert 1e-4 < (clip - exact).square().mean() / exact.var() < 0.05
    image = load_image_model(read_checkpoint(folder / "image8.safetensors"))
    context, noise = torch.randn(1, 77, tiny.CONTEXT), torch.randn(1, 8, 8, 8)
    assert image.sample(context, context, noise, steps=2, guidance_scale=1.0).isfinite().all()


def test_the_command_tells_sizes_and_the_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.safetensors"
    assert main([str(folder / "tiny_base.safetensors"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said and " MB instead of " in said
    noise = float(said.split("errors are ")[1].split()[0])
    assert 28 < noise < 34  # three bits behind the point


def test_what_cannot_be_rounded_is_refused(folder: Path, tmp_path: Path) -> None:
    file, out = folder / "base8.safetensors", tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match=r"base8\.safetensors has no weights in more than 8 bits"):
        to_fp8(file, out)
    with pytest.raises(ValueError, match="itself; name another file"):
        to_fp8(file, file)
    large = tmp_path / "large.safetensors"
    parts = {"unet": {"input_blocks.1.0.weight": torch.full((2, 3), 500.0)}}
    config = UNetConfig(model_channels=32, context_dim=16, num_head_channels=16)
    write_checkpoint(large, parts, spec=ModelSpec("unet", 0.03, 2.0, 9), configs={"unet": config})
    with pytest.raises(ValueError, match="has a weight of 500, and float8 ends at 448"):
        to_fp8(large, out)
    assert not out.exists()
