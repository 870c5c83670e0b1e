"""Files of the Crafter family: what they are taken for, what is kept of them, and what is refused in which words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from devtools.check.crafter_files import LDM, UNET, write_crafter
from microcinema_core.config import UNetConfig
from microcinema_core.files.checkpoint import load_strict
from microcinema_core.files.crafter import read_crafter, refuse_crafter_pickle
from microcinema_core.files.crafter_specs import SPECS, licence_of
from microcinema_core.files.published import read_motion_module
from microcinema_core.networks.unet import UNet3D

SMALL = replace(UNET, context_dim=24, channel_mult=(1, 2), transformer_depth=(1, 1))
TEXT = replace(SMALL, image_context=0)


def rewritten(path: Path, **changes: Tensor | None) -> Path:
    """Write a file again with further tensors, or without those that are None."""
    tensors = {**load_file(path), **changes}
    save_file({key: value for key, value in tensors.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    ("name", "chosen", "version"),
    [
        ("dynamicrafter_512_fp16_pruned", {}, "512"),
        ("dynamicrafter_1024_fp16_pruned", {}, "1024"),
        ("dynamicrafter_512_interp_fp16_pruned", {}, "interpolation"),
        ("tooncrafter_512_interp-pruned-fp16", {}, "ToonCrafter"),
        ("dynamicrafter_512_interp_fp16_pruned", {"use": "base"}, "512"),
        ("mine", {"use": "interpolation"}, "interpolation"),
        ("mine", {"use": "base", "resolution": "1024"}, "1024"),
        ("dynamicrafter_512_x", {"resolution": "1024"}, "1024"),
    ],
)
def test_what_a_file_is_taken_for(name: str, chosen: dict[str, str], version: str, tmp_path: Path) -> None:
    read = read_crafter(write_crafter(tmp_path / f"{name}.safetensors", SMALL), **chosen)
    assert read.spec == SPECS[version] and read.config == SMALL and read.appearnet_config is not None
    ends = version in ("interpolation", "ToonCrafter")
    assert (read.appearnet_config.between, read.appearnet_config.places) == (
        ("zeros", "ends") if ends else ("line", "any")
    )
    assert read.appearnet_config.takes_any_place
    assert licence_of(read.spec) == (
        "Apache-2.0 for the code; built on Stable Diffusion 2.x: CreativeML Open RAIL++-M"
    )
    assert not read.appearnet_config.unet.image_context, "AppearNet belongs to the image model"


@pytest.mark.parametrize(("last", "version"), [(0.3, "1024"), (0.7, "512")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_table_of_scales_tells_the_version(
    last: float, version: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    extra = {"scale_arr": torch.full((1400,), last, dtype=dtype)}
    path = write_crafter(tmp_path / "mine.safetensors", SMALL, extra=extra)
    assert read_crafter(path, use="base").spec == SPECS[version]
    if version == "1024":
        assert read_crafter(path).spec == SPECS[version], "only the base model has this scale"


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({}, "set use to base .* or to interpolation"),
        ({"use": "base"}, "DynamiCrafter 512 or 1024.*set resolution"),
        ({"use": "loop"}, "use is 'loop'; choose auto, base, interpolation"),
    ],
)
def test_what_a_file_does_not_say_is_asked(chosen: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        read_crafter(write_crafter(tmp_path / "mine.safetensors", SMALL), **chosen)


def test_the_256_has_a_gate_on_the_image_and_another_name_for_the_rate(tmp_path: Path) -> None:
    """Its image attention is multiplied by 1 + tanh(alpha), which goes into the values."""
    path = write_crafter(tmp_path / "dynamicrafter_256.safetensors", SMALL)
    plain = read_crafter(path, resolution="512")
    tensors = load_file(path)
    gates = {key.replace("to_v_ip.weight", "alpha"): torch.tensor(0.4) for key in tensors if "to_v_ip" in key}
    renamed = {key.replace("fps_embedding", "framestride_embed"): value for key, value in tensors.items()}
    save_file({**renamed, **gates}, path)
    read = read_crafter(path)
    assert read.spec == SPECS["256"] and read.unet.keys() == plain.unet.keys()
    for key, value in read.unet.items():
        factor = 1 + torch.tensor(0.4).tanh() if "to_v_ip" in key else 1.0
        torch.testing.assert_close(value, plain.unet[key] * factor)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("rate", [False, True])
def test_text_to_video(rate: bool, bare: bool, tmp_path: Path) -> None:
    """VideoCrafter2 is told a rate, ModelScope is not; a file may hold the U-Net alone."""
    config = replace(TEXT, fps_embedding=rate)
    path = write_crafter(tmp_path / "x.safetensors", config)
    if bare:
        save_file({key.removeprefix(LDM): value for key, value in load_file(path).items()}, path)
    read = read_crafter(path)
    assert read.spec == SPECS["VideoCrafter" if rate else "ModelScope"] and read.config == config
    assert read.appearnet is None and read.vae is None
    assert "non-commercial" in licence_of(read.spec) and licence_of(read.spec).endswith("RAIL++-M")
    assert licence_of(read.spec, "mine").startswith("mine; built on Stable Diffusion 2.x")
    load_strict(UNet3D(read.config), read.unet, "the U-Net")
    with pytest.raises(ValueError, match="makes videos from text"):
        read_crafter(path, use="interpolation")


def test_modelscopes_own_layout(tmp_path: Path) -> None:
    """Its first transformer stands in the first block, and its downsamplers are not wrapped."""
    path = write_crafter(tmp_path / "x.safetensors", replace(TEXT, fps_embedding=False))
    expected, renamed = read_crafter(path), {}
    for key, value in load_file(path).items():
        key = re.sub(r"^init_attn\.0\.", "input_blocks.0.1.", key.removeprefix(LDM))
        renamed[re.sub(r"^(input_blocks\.\d+)\.0\.op\.", r"\1.op.", key)] = value
    save_file(renamed, path)
    read = read_crafter(path)
    assert read.spec == expected.spec and read.unet.keys() == expected.unet.keys()
    assert all(torch.equal(read.unet[key], expected.unet[key]) for key in read.unet)


def test_diffusers_layout(tmp_path: Path) -> None:
    """As ZeroScope's: the numbers are tested in test_modelscope_layout.py, from the same keys."""
    pytest.importorskip("diffusers")
    from tests.core.test_modelscope_layout import CONFIG, ldm_keys, oracle

    state = dict(oracle().state_dict())
    save_file(state, tmp_path / "zeroscope.safetensors")
    read, expected = read_crafter(tmp_path / "zeroscope.safetensors"), ldm_keys(state)
    assert read.config == CONFIG and read.unet.keys() == expected.keys()
    assert all(torch.equal(read.unet[key], expected[key]) for key in expected)


def test_what_is_kept_of_a_whole_checkpoint(tmp_path: Path) -> None:
    """Encoders and tables go; the autoencoder stays, unless its decoder is ToonCrafter's own."""
    extra = {
        "cond_stage_model.model.token_embedding.weight": torch.zeros(2, 2),
        "embedder.model.visual.proj": torch.zeros(2),
        **{key: torch.zeros(3) for key in ("betas", "alphas_cumprod_prev", "sqrt_one_minus_alphas_cumprod")},
        **{key: torch.zeros(3) for key in ("sqrt_recipm1_alphas_cumprod", "posterior_mean_coef1")},
        "first_stage_model.decoder.conv_in.weight": torch.ones(2),
        "first_stage_model.encoder.conv_in.weight": torch.ones(3),
    }
    path = write_crafter(tmp_path / "x_512.safetensors", SMALL, extra=extra)
    read = read_crafter(path, use="base")
    assert read.vae is not None
    assert read.vae.keys() == {"decoder.conv_in.weight", "encoder.conv_in.weight"}
    half = read_crafter(rewritten(path, **{"first_stage_model.encoder.conv_in.weight": None}), use="base")
    assert half.vae is None, "the host would fill the missing half with anything"
    rewritten(path, **{"first_stage_model.encoder.conv_in.weight": torch.ones(3)})
    assert not any("embed" in key for key in read.unet if not key.startswith(("time_embed", "fps_embed")))
    toon = read_crafter(rewritten(path, **{"first_stage_model.decoder.attn_refinement.0.w": torch.ones(1)}))
    assert toon.spec == SPECS["ToonCrafter"] and toon.vae is None
    wrapped = {f"_forward_module.{key}": value for key, value in load_file(path).items()}
    save_file(wrapped, path)
    assert read_crafter(path).unet.keys() == read.unet.keys()


def test_tooncrafters_own_decoder_says_what_the_file_is(tmp_path: Path) -> None:
    """A name can be wrong and the choice corrects it; this decoder cannot."""
    extra = {"first_stage_model.decoder.attn_refinement.0.w": torch.ones(1)}
    path = write_crafter(tmp_path / "dynamicrafter_512.safetensors", SMALL, extra=extra)
    for use in ("auto", "interpolation"):
        assert read_crafter(path, use=use).spec == SPECS["ToonCrafter"]
    with pytest.raises(
        ValueError,
        match=r"ToonCrafter makes the frames between two pictures: set use to auto or interpolation\.$",
    ):
        read_crafter(path, use="base", resolution="512")


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("a key of no part", {"strange.weight": torch.zeros(1)}, "'strange.weight' belongs to no part"),
        ("no resampler", {"image_proj_model.latents": None}, "without its image projector"),
        ("relative", {f"{LDM}x.relative_position_k.w": torch.zeros(1)}, "early VideoCrafter"),
    ],
)
def test_damaged_and_older_files(
    name: str, changes: dict[str, Tensor | None], says: str, tmp_path: Path
) -> None:
    path = write_crafter(tmp_path / "dynamicrafter_512.safetensors", SMALL)
    with pytest.raises(ValueError, match=rf"^dynamicrafter_512.safetensors: .*{says}"):
        read_crafter(rewritten(path, **changes))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"down_blocks.3.motion_modules.0.norm.weight": (4,)}, "motion"),
        (
            {f"{LDM}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (4, 1024)},
            "Diffusion 2.x checkpoint",
        ),
    ],
)
def test_other_files_are_named(tensors: dict[str, tuple[int, ...]], says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, path)
    with pytest.raises(ValueError, match=rf"^x.safetensors: this is .*{says}.* Crafter family was expected"):
        read_crafter(path)


def test_videocrafter1_for_pictures_is_refused(tmp_path: Path) -> None:
    path = write_crafter(tmp_path / "x.safetensors", TEXT)
    key = f"{LDM}input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight"
    with pytest.raises(ValueError, match="VideoCrafter1 for pictures: get DynamiCrafter"):
        read_crafter(rewritten(path, **{key: torch.zeros(64, 24)}))


def test_the_motion_loader_names_the_family(tmp_path: Path) -> None:
    path = write_crafter(tmp_path / "x.safetensors", SMALL)
    with pytest.raises(ValueError, match=r"video model .*MicroCinema Crafter Loader"):
        read_motion_module(path, UNetConfig().as_2d())


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("ToonCrafter/model.ckpt", "tooncrafter_512_interp-pruned-fp16.safetensors"),
        ("dynamicrafter_512_interp_v1\\model.ckpt", "dynamicrafter_512_interp_fp16_pruned.safetensors"),
        ("dynamicrafter_1024_v1/model.ckpt", "dynamicrafter_1024_fp16_pruned.safetensors"),
        ("model.ckpt", "dynamicrafter_512_fp16_pruned.safetensors"),
    ],
)
def test_a_pickle_is_refused_by_its_name(name: str, twin: str) -> None:
    with pytest.raises(ValueError, match=f"is a pickle, .*: get {twin}"):
        refuse_crafter_pickle(name)
    refuse_crafter_pickle("dynamicrafter_512_fp16_pruned.safetensors")
