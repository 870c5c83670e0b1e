"""The noise prior's gamma on the host's own class for Stable Video Diffusion, with a narrow random network in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.check import tiny

FRAMES, CONTEXT = 3, 64


@pytest.fixture(scope="module")
def svd(comfy_in_process: Path) -> Any:
    """Build a MODEL with SVD's temporal layers, conditioning and sampling; two levels of 64 channels, float32."""
    import comfy.model_management as management
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    config = comfy.supported_models.SVD_img2vid(
        {
            "image_size": 32, "in_channels": 8, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1],
            "channel_mult": (1, 1), "use_spatial_transformer": True, "context_dim": CONTEXT,
            "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1,
            "use_linear_in_transformer": True, "adm_in_channels": 768, "num_classes": "sequential",
            "use_temporal_attention": True, "use_temporal_resblock": True, "extra_ff_mix_layer": True,
            "use_spatial_context": True, "merge_strategy": "learned_with_images", "video_kernel_size": [3, 1, 1],
            "dtype": torch.float32,
        }
    )  # fmt: skip
    model = config.get_model({})
    model.diffusion_model.load_state_dict(tiny.random_weights(model.diffusion_model, 3))
    model.eval()
    return ModelPatcher(model, management.get_torch_device(), torch.device("cpu"))


def sample(model: Any) -> Tensor:
    """The stock KSampler, conditioned as SVD_img2vid_Conditioning does."""
    import nodes

    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(1, 4, 8, 8, generator=generator)
    common = {"motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0}
    seen = [[torch.randn(1, 1, CONTEXT, generator=generator), {**common, "concat_latent_image": picture}]]
    unseen = [[torch.zeros(1, 1, CONTEXT), {**common, "concat_latent_image": torch.zeros_like(picture)}]]
    empty = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
    with torch.inference_mode():
        return nodes.KSampler().sample(
            model, seed=7, steps=2, cfg=2.5, sampler_name="euler", scheduler="karras",
            positive=seen, negative=unseen, latent_image=empty,
        )[0]["samples"]  # fmt: skip


def test_gamma_changes_a_run_of_svd(svd: Any) -> None:
    from microcinema_core.adapter import override_prior

    assert type(svd.model).__name__ == "SVD_img2vid"
    centre = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))}
    plain = sample(svd)
    none, some = (
        sample(override_prior(svd, lambda_=-1, gamma=gamma, centre_frame=centre)) for gamma in (0.0, 0.5)
    )
    assert plain.isfinite().all() and some.isfinite().all()
    assert torch.equal(none, plain)
    assert float((some - plain).norm() / plain.norm()) > 0.01
    assert torch.equal(sample(svd), plain), "the MODEL that was given stays as it was"
