"""A base or TSR model that can sample clips without ComfyUI, for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from ..config import centre_index
from ..model_spec import ModelSpec
from ..networks.appearance_input import appearnet_input
from ..networks.appearnet import AppearNet
from ..networks.injection import Injection
from ..networks.layers import ImageContext, per_frame
from ..networks.unet import UNet3D
from .ddim import KnownFrames, classifier_free_guidance, ddim, inpaint
from .noise import GAMMA, from_residual, starting_noise, with_prior
from .schedule import Denoiser, NoiseSchedule, denoiser


@dataclass
class VideoModel:
    """U-Net and AppearNet loaded from one checkpoint, with sampling.

    Appearance latents are `b c h w`, one frame per clip, or `(b f) c h w`, one per frame.

    Attributes:
        unet, appearnet: the networks.
        spec: what they were trained for.
        schedule: the noise schedule of the spec.
    """

    unet: UNet3D
    appearnet: AppearNet
    spec: ModelSpec

    def __post_init__(self) -> None:
        self.schedule = NoiseSchedule.from_spec(self.spec)

    @property
    def dtype(self) -> torch.dtype:
        """The working precision of the networks."""
        return next(self.unet.parameters()).dtype

    @property
    def grey(self) -> Tensor:
        """CLIP vision's features `l d` of mid grey, of weights that look at pictures through it."""
        return self.appearnet.get_buffer("grey")

    def injection(
        self,
        appearance: Tensor,
        t: Tensor,
        context: Tensor,
        strength: Tensor | float,
        vision: Tensor | None = None,
    ) -> Injection:
        """Run AppearNet and return what the U-Net injects.

        Args:
            appearance: appearance latents, `b c h w` or `(b f) c h w`.
            t: timesteps (b,).
            context: encoded captions, `b l d`.
            strength: strength of the injection, one for all clips or (b,).
            vision: CLIP vision's features `b l d` of the pictures, for weights that look at them through it.

        Raises:
            ValueError: weights that look at pictures through CLIP vision, and no features.
        """
        clips, dtype = t.shape[0], self.dtype
        appearance = self._with_hint(appearance, clips)
        seen = appearance.shape[0] // clips
        if not isinstance(strength, Tensor):
            strength = appearance.new_full((clips,), strength)
        s = strength.to(dtype).expand(clips)[:, None, None, None]
        features = self.appearnet.features(
            appearance.to(dtype), per_frame(t, seen), per_frame(context, seen).to(dtype), frames=seen
        )
        injection = self.appearnet.inject(features, frames=seen, strength=per_frame(s, seen))
        if self.appearnet.config.resampler is None:
            return injection
        if vision is None:
            raise ValueError(
                "these weights also look at pictures through CLIP vision, whose features are not given: sample with "
                "them in ComfyUI, by MicroCinema Sampler"
            )
        tokens = self.appearnet.resampler(vision.to(dtype))
        return replace(injection, image=ImageContext(tokens, s.flatten(1)[..., None]))

    def _with_hint(self, appearance: Tensor, clips: int) -> Tensor:
        """Return AppearNet's input, for all frames where it takes more than the appearance latents."""
        config, frames = self.appearnet.config, self.spec.frames
        if config.sees_z_c_alone:
            return appearance
        given = (centre_index(frames),) if self.spec.role == "base" else (0, frames - 1)
        z_c = per_frame(appearance, frames * clips // appearance.shape[0])
        return appearnet_input(z_c, given, config, frames=frames)

    def predict(self, z_t: Tensor, t: Tensor, context: Tensor, injection: Injection) -> Tensor:
        """Return the U-Net's output for clips `b f c h w`, timesteps (b,) and encoded captions `b l d`."""
        frames = z_t.shape[1]
        output = self.unet(
            rearrange(z_t, "b f c h w -> (b f) c h w").to(self.dtype),
            per_frame(t, frames),
            per_frame(context, frames).to(self.dtype),
            frames=frames,
            injection=injection,
            fps=self.spec.rate(),
        )
        return rearrange(output, "(b f) c h w -> b f c h w", f=frames)

    def denoiser(
        self, appearance: Tensor, text: Tensor, z_c: Tensor, strength: float, vision: Tensor | None = None
    ) -> Denoiser:
        """Return the model with its noise prior as a denoiser of clips `b f c h w`.

        Args:
            appearance: appearance latents, `b c h w` or `(b f) c h w`.
            text: encoded captions, `b l d`.
            z_c: the appearance latents in the shape of the clips.
            strength: strength of the injection; 0 also turns the prior off, which leaves the U-Net alone.
            vision: as in `injection`.
        """
        once = text.new_zeros(text.shape[0])
        kept = self.injection(appearance, once, text, strength, vision) if self.appearnet.per_clip else None

        def network(x: Tensor, t: Tensor) -> Tensor:
            injection = kept or self.injection(appearance, t, text, strength, vision)
            return self.predict(x, t, text, injection)

        lambda_ = self.spec.lambda_ if strength else 0.0
        denoise = with_prior(denoiser(network, self.schedule, self.spec.prediction), z_c, lambda_)
        return from_residual(denoise, z_c, self.spec.residual)

    def to_diffused(self, z_0: Tensor, z_c: Tensor) -> Tensor:
        """Return what is diffused of clips `b f c h w`: the frames, or their scaled difference from z_c."""
        return (z_0 - z_c) / self.spec.residual if self.spec.residual else z_0

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
        given: KnownFrames | None = None,
        noise: Tensor | None = None,
        vision: Tensor | None = None,
    ) -> Tensor:
        """Sample clips `b f c h w` by DDIM.

        Args:
            appearance: appearance latents, `b c h w` or `(b f) c h w`.
            text: encoded captions, `b l d`.
            empty: the encoded empty prompt, `1 l d`.
            frames: frames of a clip.
            steps: DDIM steps.
            guidance_scale: classifier-free guidance; 1 turns it off.
            seed: seed of the starting noise.
            gamma: strength of the prior in the starting noise (section 4.2.2).
            strength: strength of the injection. 0 is the U-Net alone, without AppearNet and prior, as it was trained
                when appearance was dropped.
            given: frames to keep; None generates all.
            noise: plain noise `b f c h w`; None draws it from `seed`.
            vision: as in `injection`; the unguided branch sees mid grey.
        """
        clips = text.shape[0]
        z_c = rearrange(appearance, "(b f) c h w -> b f c h w", b=clips).expand(-1, frames, -1, -1, -1)
        with_text = self.denoiser(appearance, text, z_c, strength, vision)
        without = None
        if guidance_scale != 1:
            grey = None if vision is None else self.grey.expand(clips, -1, -1)
            without = self.denoiser(appearance, empty.expand(clips, -1, -1), z_c, strength, grey)
        denoise = classifier_free_guidance(with_text, without, guidance_scale)
        if noise is None:
            noise = torch.randn(z_c.shape, generator=torch.Generator().manual_seed(seed))
        mask = 1.0 if given is None else given.mask
        start = starting_noise(noise.to(z_c.device), z_c, gamma if strength else 0.0, mask)
        if given is not None:
            denoise = inpaint(denoise, given, start)
        return ddim(denoise, start, steps=steps, schedule=self.schedule)
