"""Video MODELs made from a stock MODEL with small random motion weights, in the formats of the published files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from devtools.check.crafter_files import CLIP_WIDTH, LAYOUT, write_crafter

from .models import Family

LAST_PROJECTIONS = ("proj_out.", "conv_in.weight")
"""Parts of the keys of the layers that add a motion module to the image model: zeros there are no motion."""


def motion_models(image: Any, family: Family, folder: Path, prior: dict[str, Any]) -> tuple[Any, Any]:
    """Return the video MODELs of a family's stock MODEL: one that does not move yet, and one with random weights.

    Args:
        image: the stock MODEL; not changed.
        family: its family.
        folder: where the motion files are written.
        prior: gamma of the random one's noise prior, where it has an AppearNet; motion weights take no lambda.
    """
    from microcinema_core.adapter.motion import add_motion

    prior = {**prior, "lambda_": 0.0}
    if family.motion == "crafter":
        return _crafter(image, family, folder, still=True), _crafter(image, family, folder, still=False)
    still, given = add_motion(image, write_motion(folder / "still.safetensors", family, still=True))
    random, acting = add_motion(image, write_motion(folder / "random.safetensors", family))
    if family.motion == "v3":
        return still, _applied(random, sparsectrl(folder, family), family, **prior)
    if family.motion == "pia":
        none = {"lambda_": 0.0, "gamma": 0.0}
        return _applied(still, given, family, **none), _applied(random, acting, family, **prior)
    return still, random


def write_motion(path: Path, family: Family, *, still: bool = False) -> Path:
    """Write a motion module with random weights, or with zeros in its last projections, and return its path."""
    import diffusers

    config = family.config
    net: Any = diffusers.MotionAdapter(
        block_out_channels=_widths(family),
        motion_layers_per_block=config.num_res_blocks,
        use_motion_mid_block=family.motion == "v2",
        conv_in_channels=9 if family.motion in ("pia", "pia alone") else None,
    )
    state = tiny.random_weights(net, 2)
    zeros = {key: value * 0 for key, value in state.items() if any(part in key for part in LAST_PROJECTIONS)}
    save_file({**state, **(zeros if still else {})}, str(path))
    return path


def _crafter(image: Any, family: Family, folder: Path, *, still: bool) -> Any:
    """Return DynamiCrafter's MODEL around a stock MODEL's weights, with a picture, and without rescaled latents."""
    from microcinema_core.adapter import apply_appearance
    from microcinema_core.adapter.crafter import load_crafter

    prefix = "diffusion_model."
    stock = image.model.state_dict()
    path = write_crafter(
        folder / "checkpoints" / f"dynamicrafter_512_{still}.safetensors",
        family.config.inflated(**LAYOUT),
        spatial={key.removeprefix(prefix): value for key, value in stock.items() if key.startswith(prefix)},
        still=still,
        extra={"scale_arr": torch.ones(1400)},
    )
    loaded = load_crafter(path, use="base", clip_vision=_Vision())
    return apply_appearance(
        loaded.model,
        loaded.appearnet,
        picture(family),
        features=_Vision().features(1),
        lambda_=0.0,
        gamma=0.0,
    )


class _Vision:
    """A stand-in for CLIP vision."""

    def features(self, seed: int) -> Tensor:
        """Return the features of a picture."""
        return torch.randn(1, 9, CLIP_WIDTH, generator=torch.Generator().manual_seed(seed))

    def encode_image(self, image: Tensor, crop: bool) -> dict[str, Tensor]:
        """Return what the host's CLIP vision does, for one picture."""
        return {"last_hidden_state": self.features(2)}


def with_sampling_of(video: Any, model: Any) -> Any:
    """Return a clone of a stock MODEL with a video MODEL's noise schedule, for nodes that rebuild it as well."""
    import comfy.model_base

    inner = model.model
    inner.model_config.sampling_settings = dict(video.model.model_config.sampling_settings)
    inner.model_type = video.model.model_type
    clone = model.clone()
    sampling = comfy.model_base.model_sampling(inner.model_config, inner.model_type)
    clone.add_object_patch("model_sampling", sampling)
    return clone


def picture(family: Family) -> dict[str, Tensor]:
    """Return the LATENT of a random centre frame."""
    generator = torch.Generator().manual_seed(12)
    return {"samples": torch.randn(1, 4, *family.size, generator=generator)}


def _widths(family: Family) -> tuple[int, ...]:
    return tuple(family.config.model_channels * factor for factor in family.config.channel_mult)


def sparsectrl(folder: Path, family: Family) -> Any:
    """Return a SparseCtrl with random weights as an APPEARNET."""
    import diffusers

    from microcinema_core.adapter.motion import load_sparsectrl

    config = family.config
    net: Any = diffusers.SparseControlNetModel(
        block_out_channels=_widths(family),
        layers_per_block=config.num_res_blocks,
        cross_attention_dim=config.context_dim,
    )
    path = folder / "sparsectrl.safetensors"
    save_file(tiny.random_weights(net, 5), str(path))
    return load_sparsectrl(path)


def _applied(model: Any, appearnet: Any, family: Family, **prior: Any) -> Any:
    from microcinema_core.adapter import apply_appearance

    return apply_appearance(model, appearnet, picture(family), anchor="first", **prior)
