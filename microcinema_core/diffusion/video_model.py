"""A base or TSR model with what it needs to sample clips: for training's sheets and for measuring, without a host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..config import AppearNetConfig, UNetConfig
from ..files.checkpoint import Checkpoint, load_strict
from ..networks.appearnet import AppearNet
from ..networks.injection import Injection
from ..networks.layers import per_frame
from ..networks.unet import UNet3D
from .ddim import Given, ddim, guided, keeping
from .noise import GAMMA, from_residual, starting_noise, with_prior
from .schedule import Denoiser, NoiseSchedule, Prediction, Terminal, denoiser


@dataclass
class VideoModel:
    """The two networks of a file and how to ask them.

    Appearance latents are `b c h w` (one frame serves a whole clip) or `(b f) c h w` (each frame its own).
    residual: the scale of the difference from the appearance that is diffused in place of the frames; 0: the frames.
    """

    unet: UNet3D
    appearnet: AppearNet
    lambda_: float
    prediction: Prediction
    terminal: Terminal = "sd"
    residual: float = 0.0

    def __post_init__(self) -> None:
        self.schedule = NoiseSchedule.ending(self.terminal)

    @classmethod
    def from_checkpoint(cls, file: Checkpoint, *, dtype: torch.dtype = torch.float32) -> VideoModel:
        """Of a file of role base or tsr; the networks do not train."""
        unet = UNet3D(UNetConfig.from_dict(file.configs["unet"]))
        net = AppearNet(AppearNetConfig.from_dict(file.configs["appearnet"]))
        model = cls(unet, net, file.lambda_, file.prediction, file.terminal, file.residual)
        model.load(file)
        for module in (unet, net):
            module.eval().requires_grad_(False).to(dtype)
        return model

    def load(self, file: Checkpoint) -> None:
        """The weights of a base or TSR file, strictly."""
        load_strict(self.unet, file.part("unet"), f"the U-Net of {file.name}")
        load_strict(self.appearnet, file.part("appearnet"), f"the AppearNet of {file.name}")

    @property
    def dtype(self) -> torch.dtype:
        """The working precision."""
        return next(self.unet.parameters()).dtype

    def injection(
        self, appearance: Tensor, t: Tensor, context: Tensor, strength: Tensor | float
    ) -> Injection:
        """What AppearNet hands over for clips with timesteps (b,), texts `b l d` and a strength each or in common."""
        clips, dtype = t.shape[0], self.dtype
        seen = appearance.shape[0] // clips
        s = torch.as_tensor(strength, dtype=dtype).expand(clips)[:, None, None, None]
        features = self.appearnet.features(
            appearance.to(dtype), per_frame(t, seen), per_frame(context, seen).to(dtype), frames=seen
        )
        return self.appearnet.inject(features, frames=seen, strength=per_frame(s, seen))

    def predict(self, z_t: Tensor, t: Tensor, context: Tensor, injection: Injection) -> Tensor:
        """The U-Net's answer for clips `b f c h w`, timesteps (b,) and texts `b l d`, at the working precision."""
        frames = z_t.shape[1]
        output = self.unet(
            rearrange(z_t, "b f c h w -> (b f) c h w").to(self.dtype),
            per_frame(t, frames),
            per_frame(context, frames).to(self.dtype),
            frames=frames,
            appearance=injection,
        )
        return rearrange(output, "(b f) c h w -> b f c h w", f=frames)

    def denoiser(self, appearance: Tensor, text: Tensor, z_c: Tensor, strength: float) -> Denoiser:
        """The model with its prior as a denoiser of clips `b f c h w`. strength 0 is the U-Net alone."""
        once = text.new_zeros(text.shape[0])
        kept = self.injection(appearance, once, text, strength) if self.appearnet.per_clip else None

        def network(x: Tensor, t: Tensor) -> Tensor:
            injection = kept or self.injection(appearance, t, text, strength)
            return self.predict(x, t, text, injection)

        lambda_ = self.lambda_ if strength else 0.0
        denoise = with_prior(denoiser(network, self.schedule, self.prediction), z_c, lambda_)
        return from_residual(denoise, z_c, self.residual)

    def diffused(self, z_0: Tensor, z_c: Tensor) -> Tensor:
        """What the network is trained on, of clips `b f c h w`: themselves, or their difference from z_c."""
        return (z_0 - z_c) / self.residual if self.residual else z_0

    @torch.no_grad()
    def sample(
        self,
        appearance: Tensor,
        text: Tensor,
        empty: Tensor,
        *,
        frames: int,
        steps: int,
        guidance_scale: float,
        seed: int = 0,
        gamma: float = GAMMA,
        strength: float = 1.0,
        given: Given | None = None,
    ) -> Tensor:
        """Clips `b f c h w` by DDIM, from appearance, texts `b l d` and the empty prompt `1 l d`.

        strength 0 is the U-Net alone, without AppearNet and without the prior, as it was trained when appearance was
        dropped.
        """
        clips = text.shape[0]
        z_c = rearrange(appearance, "(b f) c h w -> b f c h w", b=clips).expand(-1, frames, -1, -1, -1)
        with_text = self.denoiser(appearance, text, z_c, strength)
        without = None
        if guidance_scale != 1:
            without = self.denoiser(appearance, empty.expand(clips, -1, -1), z_c, strength)
        denoise = guided(with_text, without, guidance_scale)
        eps_n = torch.randn(z_c.shape, generator=torch.Generator().manual_seed(seed)).to(z_c.device)
        mask = 1.0 if given is None else given.mask
        noise = starting_noise(eps_n, z_c, gamma if strength else 0.0, mask)
        if given is not None:
            denoise = keeping(denoise, given, noise)
        return ddim(denoise, noise, steps=steps, schedule=self.schedule)
