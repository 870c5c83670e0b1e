"""A freshly inflated model is the host's own image model, with the host's best-known patches applied.

The bench of test_conformance.py compares every node and hook in the same way, but one node at a time, on one family.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import UNetConfig

SIZES = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
}
CONFIGS = {
    "sd1": UNetConfig(
        **SIZES,
        transformer_depth=(1, 1),
        context_dim=768,
        num_heads=8,
        num_head_channels=-1,
        use_linear_in_transformer=False,
    ).as_2d(),
    "sd2": UNetConfig(**SIZES, transformer_depth=(1, 1), context_dim=1024).as_2d(),
}


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def pair(
    comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[types.SimpleNamespace]:
    """Load the same random weights as the host's own model and, inflated from a file, as ours."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    from microcinema_core import adapter
    from microcinema_core.adapter.network import host_unet_config

    config = CONFIGS[request.param]
    weights = tiny.unet_weights(config)
    path = tmp_path_factory.mktemp("sd") / "small.safetensors"
    save_file({f"model.diffusion_model.{key}": value for key, value in weights.items()}, str(path))
    ours = adapter.inflate_checkpoint(path, injection="spade", temporal_layout="paper", prediction="eps")

    shape = host_unet_config(config)
    shape |= {"image_size": 32, "use_spatial_transformer": True, "legacy": False, "dtype": torch.float32}
    del shape["microcinema"]
    stock = getattr(
        comfy.supported_models, request.param.upper().replace("SD1", "SD15").replace("SD2", "SD20")
    )
    settings = stock({})
    settings.unet_config = shape | {"attn_precision": None}
    model = comfy.model_base.BaseModel(settings)
    model.load_model_weights(dict(weights))
    device = torch.device("cpu")
    theirs = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)
    generator = torch.Generator().manual_seed(3)
    context = torch.randn(2, 77, config.context_dim, generator=generator)
    yield types.SimpleNamespace(ours=ours, theirs=theirs, context=context, weights=weights, adapter=adapter)


def sample(pair: Any, model: Any, frames: int = 3, **changes: Any) -> Tensor:
    import nodes

    latent = {"samples": torch.zeros(frames, 4, 8, 8)}
    positive, negative = ([[pair.context[i : i + 1], {}]] for i in range(2))
    with torch.inference_mode():
        return nodes.KSampler().sample(
            model, 1, 2, 3.0, "euler", "normal", positive, negative, latent, **changes
        )[0]["samples"]


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert theirs.isfinite().all()
    assert float((ours - theirs).norm() / theirs.norm()) < tolerance


def test_one_call_is_the_hosts(pair: Any) -> None:
    x, sigma = torch.randn(3, 4, 8, 8), torch.full((3,), 2.0)
    context = pair.context[:1].expand(3, -1, -1)
    with torch.inference_mode():
        ours, theirs = (
            patcher.model.apply_model(x, sigma, c_crossattn=context)
            for patcher in (pair.ours.model, pair.theirs)
        )
    assert_same(ours, theirs)


def free_u(model: Any) -> Any:
    from comfy_extras.nodes_freelunch import FreeU_V2

    arguments = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
    return _run(FreeU_V2, model, **arguments)


def perturbed_attention(model: Any) -> Any:
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return _run(PerturbedAttentionGuidance, model, scale=3.0)


def hyper_tile(model: Any) -> Any:
    from comfy_extras.nodes_hypertile import HyperTile

    return _run(HyperTile, model, tile_size=8, swap_size=1, max_depth=0, scale_depth=False)


def downscale(model: Any) -> Any:
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale

    arguments = {"block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0}
    methods = {"downscale_method": "bicubic", "upscale_method": "bicubic"}
    return _run(PatchModelAddDownscale, model, downscale_after_skip=True, **arguments, **methods)


def rescale_cfg(model: Any) -> Any:
    from comfy_extras.nodes_model_advanced import RescaleCFG

    node = RescaleCFG
    return _run(node, model, multiplier=0.7)


def tome(model: Any) -> Any:
    from comfy_extras.nodes_tomesd import TomePatchModel

    return _run(TomePatchModel, model, ratio=0.3)


def _run(node: Any, model: Any, **arguments: Any) -> Any:
    """Run a node of either node interface of the host, old or new."""
    run = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
    result = run(model, **arguments)
    return (result if isinstance(result, tuple) else result.args)[0]


@pytest.mark.parametrize(
    "patch",
    [
        free_u,
        perturbed_attention,
        hyper_tile,
        downscale,
        rescale_cfg,
        tome,
    ],
)
def test_patches_do_to_ours_what_they_do_to_the_hosts(pair: Any, patch: Callable[[Any], Any]) -> None:
    torch.manual_seed(11)
    theirs = sample(pair, patch(pair.theirs))
    torch.manual_seed(11)
    ours = sample(pair, patch(pair.ours.model))
    assert_same(ours, theirs, 1e-4)
    assert not torch.equal(theirs, sample(pair, pair.theirs)), "the patch must do something"


def test_its_own_lambda_is_zero_and_appearnet_adds_nothing(pair: Any) -> None:
    centre = {"samples": torch.randn(1, 4, 8, 8)}
    model = pair.adapter.apply_appearance(pair.ours.model, pair.ours.appearnet, centre, gamma=0.0)
    assert_same(sample(pair, model), sample(pair, pair.ours.model))


def test_the_papers_norm_is_a_choice(pair: Any, tmp_path: Path) -> None:
    """Statistics over the clip (Eq. 1) are those of the frame where there is one, and others where there are three."""
    path = tmp_path / "bare.safetensors"
    save_file(pair.weights, str(path))
    choices = {"injection": "spade", "temporal_layout": "paper", "prediction": "eps", "injected_norm": "clip"}
    for loaded in (
        pair.adapter.inflate_checkpoint(path, **choices),
        pair.adapter.inflate_model(pair.theirs, **choices),
    ):
        assert_same(sample(pair, loaded.model, frames=1), sample(pair, pair.theirs, frames=1))
        ours, theirs = sample(pair, loaded.model), sample(pair, pair.theirs)
        assert float((ours - theirs).norm() / theirs.norm()) > 1e-3
        assert loaded.model.model.info.config.injected_norm == "clip"


def test_the_donor_layout(pair: Any, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(pair.weights, str(path))
    donor = pair.adapter.inflate_checkpoint(
        path, injection="add_dec", temporal_layout="donor", prediction="eps"
    )
    assert_same(sample(pair, donor.model), sample(pair, pair.ours.model))
