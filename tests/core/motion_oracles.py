"""diffusers' own networks of published motion weights, small and random, as independent implementations."""

from __future__ import annotations

from typing import Any

import pytest
from einops import rearrange
from torch import Tensor, nn

from devtools.check import tiny

diffusers = pytest.importorskip("diffusers")

CHANNELS = (32, 64, 64, 64)


def image_unet(context: int) -> Any:
    """Return a small random image U-Net of Stable Diffusion 1.x whose texts have `context` channels."""
    net = diffusers.UNet2DConditionModel(
        block_out_channels=CHANNELS, layers_per_block=1, cross_attention_dim=context, attention_head_dim=8
    )
    net.load_state_dict(tiny.random_weights(net, 1))
    return net.eval()


def adapter(*, middle: bool, conv_in_channels: int | None = None) -> Any:
    """Return a random motion module for that U-Net, with or without one in the middle; PIA's has 9 input channels."""
    net = diffusers.MotionAdapter(
        block_out_channels=CHANNELS,
        motion_layers_per_block=1,
        use_motion_mid_block=middle,
        conv_in_channels=conv_in_channels,
    )
    state = {key: value for key, value in tiny.random_weights(net, 2).items() if not key.endswith(".pe")}
    net.load_state_dict(state, strict=False)
    return net.eval()


class PerFrame(nn.Module):
    """A norm of `b c f h w` that takes its statistics per frame."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(rearrange(x, "b c f h w -> (b f) c h w"))
        return rearrange(normed, "(b f) c h w -> b c f h w", f=x.shape[2])


def per_frame_norms(net: Any) -> Any:
    """Make the motion modules of a network normalise per frame, as the original does, and return the network."""
    for module in net.modules():
        if type(module).__name__ == "AnimateDiffTransformer3D":
            module.norm = PerFrame(module.norm)
    return net


def sparse(context: int) -> Any:
    """Return a small random SparseCtrl for that U-Net."""
    net = diffusers.SparseControlNetModel(
        block_out_channels=CHANNELS, layers_per_block=1, cross_attention_dim=context
    )
    state = {key: value for key, value in tiny.random_weights(net, 5).items() if not key.endswith(".pe")}
    net.load_state_dict(state, strict=False)
    return net.eval()


def ddim_scheduler(steps: int) -> Any:
    """Return DDIM as AnimateDiff's authors run it, with the timesteps of a run of this many steps."""
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False
    )
    scheduler.set_timesteps(steps)
    return scheduler


def pipeline_run(
    image: Any,
    motion: Any,
    control: Any,
    noise: Tensor,
    pictures: Tensor,
    given: list[int],
    texts: tuple[Tensor, Tensor],
    steps: int,
    scale: float,
) -> Tensor:
    """Sample with diffusers' AnimateDiffSparseControlNetPipeline.

    Args:
        image, motion, control: its networks.
        noise: starting noise `f c h w`.
        pictures: latents of the given frames `k c h w`, and `given` their indices.
        texts: prompt and negative prompt, each `1 l d`.
        steps, scale: DDIM steps and guidance.

    Returns:
        Latents `f c h w`.
    """
    pipeline = diffusers.AnimateDiffSparseControlNetPipeline(
        None, None, None, image, motion, per_frame_norms(control), ddim_scheduler(steps)
    )
    per_frame_norms(pipeline.unet)
    pipeline.check_inputs = lambda *_, **__: None  # its pictures go through a VAE; ours are latents already
    pipeline.prepare_image = lambda *_: rearrange(pictures, "k c h w -> 1 c k h w")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        prompt_embeds=texts[0],
        negative_prompt_embeds=texts[1],
        latents=rearrange(noise, "f c h w -> 1 c f h w"),
        conditioning_frames=[],
        controlnet_frame_indices=given,
        num_frames=len(noise),
        num_inference_steps=steps,
        guidance_scale=scale,
        height=8 * noise.shape[-2],
        width=8 * noise.shape[-1],
        output_type="latent",
    ).frames
    return rearrange(made, "1 c f h w -> f c h w")
