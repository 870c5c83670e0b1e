"""TSR with the host's samplers: windows between key frames, as many at once as fit in memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion import tsr
from ..model_spec import WindowShape
from .appearance import OWN, AppearNetHandle, apply_appearance
from .frame_conditioning import of_frames, require_finite_latents
from .host import comfy
from .memory import free_unused_memory, is_out_of_memory
from .network import FRAMES
from .sampling import SamplerSettings, noise_levels, require_role, settled, warn_of_disagreement
from .starting_noise import checked_latent
from .tsr_windows import FrameNoise, WindowBatchSize, WindowProgress, window_sampler

log = logging.getLogger(__name__)
NODE = "MicroCinema Interpolate Frames"


def interpolate_video(
    model: Any,
    appearnet: AppearNetHandle,
    key_frames: dict[str, Tensor],
    settings: SamplerSettings,
    *,
    rounds: int,
    lambda_: float = OWN,
    gamma: float = OWN,
    end_percent: float | None = None,
    chunk: int = 0,
    features: Tensor | None = None,
    loop: bool = False,
) -> dict[str, Tensor]:
    """Interpolate between key frames; they come back bit for bit in the LATENT of all frames.

    Args:
        model, appearnet, settings, rounds, lambda_, gamma, end_percent, chunk: as for `Interpolator`.
        key_frames: LATENT of at least two frames.
        features, loop: as for a call of an `Interpolator`.

    Raises:
        ValueError: as for `Interpolator` and its call.
    """
    run = Interpolator(
        model,
        appearnet,
        settings,
        rounds=rounds,
        lambda_=lambda_,
        gamma=gamma,
        end_percent=end_percent,
        chunk=chunk,
    )
    keys = run.checked(key_frames)
    made = run(keys, run.progress(keys.shape[0] + loop), features=features, loop=loop)
    return {"samples": made.to(comfy.model_management.intermediate_device())}


class Interpolator:
    """TSR with one MODEL and one set of settings, for as many calls as a video has parts.

    Args:
        model: a MODEL of role tsr.
        appearnet: its AppearNet, whose weights set the shape of the windows.
        settings: the sampler's inputs.
        rounds: 1 for `window.factor` times the frame rate, 2 for its square.
        lambda_, gamma, end_percent: as for `apply_appearance`.
        chunk: windows sampled at once; 0 lets free memory decide.
        node: the node's name, for messages.

    Raises:
        ValueError: a MODEL of another role, or as for `settled` and `noise_levels`.
    """

    def __init__(
        self,
        model: Any,
        appearnet: AppearNetHandle,
        settings: SamplerSettings,
        *,
        rounds: int,
        lambda_: float = OWN,
        gamma: float = OWN,
        end_percent: float | None = None,
        chunk: int = 0,
        node: str = NODE,
    ) -> None:
        inner = require_role(model, "tsr", node)
        self.settings, self.model = settled(settings, inner.spec), _without_context_windows(model)
        by_hand = {"gamma": gamma} if gamma >= 0 else {}
        warn_of_disagreement(appearnet.name, inner.spec, self.settings, **by_hand)
        self.appearnet, self.shape, self.rounds = appearnet, appearnet.spec.window, rounds
        self.channels = inner.latent_format.latent_channels
        self.steps = noise_levels(self.model, self.settings)
        self.prior: dict[str, Any] = {"lambda_": lambda_, "gamma": gamma, "end_percent": end_percent}
        self.batch_size = WindowBatchSize(self.model, appearnet, requested=chunk)

    @property
    def stride(self) -> int:
        """Frames from one key frame to the next."""
        return int(self.shape.factor**self.rounds)

    def checked(self, key_frames: dict[str, Tensor], name: str = "key_frames") -> Tensor:
        """Return the samples of a LATENT of key frames; see `checked_latent`."""
        return checked_latent(key_frames, self.channels, name)

    def progress(self, key_frames: int) -> WindowProgress:
        """Return a progress bar over all windows between so many key frames."""
        windows = _total_windows(key_frames, self.rounds, self.shape)
        return WindowProgress(self.model, windows=windows, steps=len(self.steps) - 1)

    def __call__(
        self,
        keys: Tensor,
        progress: WindowProgress,
        *,
        features: Tensor | None = None,
        loop: bool = False,
        noise: tsr.Noise | None = None,
    ) -> Tensor:
        """Interpolate key latents `k c h w` to `((k - 1) stride + 1) c h w`, in a loop to `(k stride) c h w`.

        Args:
            keys: the key frames' latents.
            progress: counts the windows.
            features: CLIP vision's features of one picture for all windows, or of each key frame, for weights that
                take them.
            loop: interpolate from the last key frame to the first as well; the first is not repeated at the end.
            noise: as for `tsr.interpolate`.

        Raises:
            ValueError: features of another number of pictures, latents that come out not finite, or as for
                `tsr.interpolate` and `apply_appearance`.
        """
        _require_features_of_keys(features, keys.shape[0])
        closed = loop and keys.shape[0] > 1
        if closed:
            keys = torch.cat([keys, keys[:1]])
        frames = tsr.frames_after(keys.shape[0], self.rounds, self.shape.factor) - closed
        made = tsr.interpolate(
            keys,
            lambda windows: self._sample(windows, frames, progress, features),
            shape=self.shape,
            rounds=self.rounds,
            seed=self.settings.seed,
            chunk=lambda left: self.batch_size(left, keys.shape[1:]),
            noise=noise,
        )
        return made[:frames]

    def _sample(
        self, windows: tsr.Windows, frames: int, progress: WindowProgress, features: Tensor | None
    ) -> Tensor:
        """Sample windows of a video of this many frames, on halves of them where memory runs out."""
        count = windows.noise.shape[0] // windows.frames
        patched = apply_appearance(
            self.model,
            self.appearnet,
            {"samples": windows.appearance},
            **self.prior,
            windows=(windows.frames, windows.given),
            features=_of_first_keys(features, windows, self.stride),
        )
        patched.model_options["transformer_options"][FRAMES] = windows.frames
        try:
            made = _sample_windows(
                patched,
                windows,
                self._settings_of(windows, frames),
                self.steps,
                progress.callback(count, windows.frames),
            )
        except RuntimeError as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        else:
            progress.finish(count)
            return require_finite_latents(made)
        self.batch_size.halve(count)
        free_unused_memory()
        return torch.cat([self._sample(half, frames, progress, features) for half in windows.halves()])

    def _settings_of(self, windows: tsr.Windows, frames: int) -> SamplerSettings:
        """Return settings whose texts, masks and hints are those of the windows' frames."""
        given = self.settings
        positive, negative = (
            of_frames(conditioning, windows.index, frames, name, stride=self.stride)
            for conditioning, name in ((given.positive, "positive"), (given.negative, "negative"))
        )
        return replace(given, positive=positive, negative=negative)


def _require_features_of_keys(features: Tensor | None, keys: int) -> None:
    """Refuse features of neither one picture nor each key frame.

    Raises:
        ValueError: another number of pictures.
    """
    if features is not None and features.shape[0] not in (1, keys):
        raise ValueError(
            f"clip_vision_output holds {features.shape[0]} pictures and key_frames {keys}: encode the same pictures, "
            "or one for all."
        )


def _of_first_keys(features: Tensor | None, windows: tsr.Windows, stride: int) -> Tensor | None:
    """Return the features of the key frame at or before each window's first frame.

    Args:
        features: of one picture, or of each key frame.
        windows: the windows.
        stride: frames of the finished video between two key frames.
    """
    first = windows.index[:: windows.frames] // stride
    if features is None:
        return None
    return features[first] if features.shape[0] > 1 else features.expand(len(first), -1, -1)


def _without_context_windows(model: Any) -> Any:
    """Return the MODEL without context windows, which would cut through those of TSR."""
    if "context_handler" not in model.model_options:
        return model
    log.info("MicroCinema TSR: the MODEL's context windows are left out, because TSR has windows of its own.")
    clone = model.clone()
    del clone.model_options["context_handler"]
    return clone


def _sample_windows(
    patched: Any, windows: tsr.Windows, settings: SamplerSettings, sigmas: Tensor, callback: Any
) -> Tensor:
    """Sample a batch of windows; noise that the sampler adds belongs to a frame, as its starting noise does."""
    return comfy.sample.sample_custom(
        patched,
        windows.noise,
        settings.cfg,
        window_sampler(settings.sampler_name, FrameNoise(windows.noise, sigmas)),
        sigmas,
        settings.positive,
        settings.negative,
        windows.latents,
        noise_mask=windows.mask,
        callback=callback,
        disable_pbar=True,
        seed=settings.seed,
    )


def _total_windows(keys: int, rounds: int, shape: WindowShape) -> int:
    counts = (tsr.frames_after(keys, done, shape.factor) for done in range(rounds))
    return sum(len(tsr.window_starts(count, shape)) for count in counts if count > 1)
