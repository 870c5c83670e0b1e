"""The MODEL: a stock `BaseModel` that samples y, the variable in which the Appearance Noise Prior is plain noise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import NUMBERED_FRAMES, AppearNetConfig, Motion, UNetConfig
from ..diffusion.noise import from_residual, with_prior
from ..files.safetensors_io import SAVED_METADATA, metadata_tensor
from ..model_spec import UNTRAINED, ModelSpec
from ..networks.appearance_input import Anchor, anchor_index, appearnet_input, line_between
from ..networks.appearnet import AppearNet
from ..networks.layers import resize_like
from .feature_cache import (
    INJECTOR,
    AppearanceCond,
    FeatureCache,
    Injector,
    cache_key_of,
    with_cache_key,
)
from .frame_conditioning import require_rows
from .host import comfy
from .network import FPS, HostUNet, feature_memory
from .picture import Picture, TokensCond

ATTACHMENT = "microcinema"
WINDOW_CHECK = "microcinema_windows"
APPEARNET_KEY = "microcinema_appearnet"
Z_C = "microcinema_z_c"
APPEARNET_INPUT = "microcinema_appearnet_input"
IMAGE_TOKENS = "microcinema_image_tokens"
DROPPED = "microcinema_dropped"
"""Conditions of the network: z_c of the noise prior, AppearNet's input where it is another tensor, tokens of the
picture, and whether an entry drops the appearance but needs z_c all the same."""
DROP = "microcinema_drop_appearance"
"""Key of a conditioning entry: where it is true, the entry runs without AppearNet and at lambda = 0."""
log = logging.getLogger(__name__)


SLICES_CONDITIONS = hasattr(comfy.model_base.BaseModel, "resize_cond_for_context_window")
"""Whether the host's context windows over the frames of a batch slice conditions, and work for any number of steps."""
NO_WINDOWS = (
    "context windows of this ComfyUI do not work here for {frames} frames in a batch: update ComfyUI, or make a longer "
    "video in parts with the blueprint MicroCinema Longer Video, which needs PIA or SparseCtrl."
)


def window_length(model_options: dict[str, Any], frames: int) -> int | None:
    """Return the most frames of the host's context windows over a batch of this many; None where it uses none.

    A newer host's `causal_window_fix` puts one more frame before every window but the first.
    """
    handler = model_options.get("context_handler")
    if handler is None or getattr(handler, "dim", 0) != 0 or frames <= handler.context_length:
        return None
    return int(handler.context_length) + bool(getattr(handler, "causal_window_fix", False))


def with_window_check(patcher: Any) -> Any:
    """Make a MODEL refuse context windows that this host cannot run, and return it."""
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    patcher.remove_wrappers_with_key(kind, WINDOW_CHECK)
    patcher.add_wrapper_with_key(kind, WINDOW_CHECK, _check_windows)
    return patcher


def _check_windows(executor: Any, guider: Any, sigmas: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Refuse windows where the host would compare its noise levels with the frames, one by one.

    Raises:
        ValueError: it would fail.
    """
    noise = kwargs["noise"] if "noise" in kwargs else args[2]
    length = window_length(guider.model_options, noise.shape[0])
    if length is not None and not SLICES_CONDITIONS and len(sigmas) != noise.shape[0]:
        raise ValueError(NO_WINDOWS.format(frames=noise.shape[0]))
    return executor(guider, sigmas, *args, **kwargs)


@dataclass(frozen=True)
class ModelInfo:
    """Where a MODEL came from.

    Attributes:
        config: configuration of its U-Net.
        spec: what its weights were trained for.
        name: name of its file, for messages.
        metadata: the file metadata that ModelSave stores with its weights.
    """

    config: UNetConfig
    spec: ModelSpec
    name: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Appearance:
    """How a MODEL uses its centre frame; replaced as a whole, never changed in place.

    Attributes:
        latent: the VAE's latents `f c h w`, float32; f is 1, or one for each frame.
        strength: factor on what AppearNet injects.
        start_percent, end_percent: the part of the sampling run in which the centre frame acts.
        lambda_: share of z_c in the noise that the network was trained with (Eq. 3).
        gamma: share of z_c that is added to the starting noise (section 4.2.2).
        anchor: where a single centre frame stands in the video.
        last_frame: latents `1 c h w` of the video's last frame, or None.
        windows: for TSR, frames of a window and the indices of its key frames; the latent then holds the line between
            them, frame by frame.
        motion: how fast the affinity falls, or the frame rate that the network is told, for weights that take one.
        picture: the picture as CLIP vision sees it, for weights that look at it.
    """

    latent: Tensor
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    lambda_: float = 0.0
    gamma: float = 0.0
    anchor: Anchor = "centre"
    last_frame: Tensor | None = None
    windows: tuple[int, tuple[int, ...]] | None = None
    motion: Motion = "medium"
    picture: Picture | None = None

    @property
    def single_frame(self) -> bool:
        """Whether one centre frame serves all frames."""
        return self.latent.shape[0] == 1 and self.last_frame is None

    def active(self, sigma: Tensor, model_sampling: Any) -> bool:
        """Return whether a noise level lies between start and end percent."""
        if self.start_percent <= 0.0 and self.end_percent >= 1.0:
            return True
        start = model_sampling.percent_to_sigma(self.start_percent)
        end = model_sampling.percent_to_sigma(self.end_percent)
        return end <= float(sigma.max()) <= start

    def latent_for(self, noise: Tensor) -> Tensor:
        """Return the latents after checking them against a noise tensor `(b f) c h w`.

        Raises:
            ValueError: another size, or a number of frames that is neither one nor the noise's.
        """
        if self.latent.shape[1:] != noise.shape[1:]:
            raise ValueError(
                f"centre_frame has latents of (channels, height, width) {tuple(self.latent.shape[1:])}, the latent "
                f"image {tuple(noise.shape[1:])}: give both the same size, encoded with the model's own VAE."
            )
        if self.latent.shape[0] not in (1, noise.shape[0]):
            raise ValueError(
                f"centre_frame holds {self.latent.shape[0]} frames and the video {noise.shape[0]}: give one centre "
                "frame, or one for each frame. For several videos, give the pictures as a list, one run for each."
            )
        if self.last_frame is None:
            return self.latent
        frames = noise.shape[0]
        if anchor_index(self.anchor, frames) == frames - 1:
            raise ValueError(
                f"in a video of {frames} frames the picture at {self.anchor} and last_frame are one frame: make more "
                "frames, or set anchor to first."
            )
        pictures = torch.cat([self.latent, self.last_frame])
        return line_between(pictures, [anchor_index(self.anchor, frames), frames - 1], frames)

    def appearnet_input(self, z_c: Tensor, config: AppearNetConfig, frames: int) -> Tensor:
        """Return AppearNet's input `f c h w` from z_c `f c h w` or `1 c h w` of a batch of this many frames."""
        if self.windows is not None:
            per_video, given = self.windows
        elif self.latent.shape[0] > 1:
            per_video, given = frames, tuple(range(frames))
        else:
            ends = () if self.last_frame is None else (frames - 1,)
            per_video, given = frames, (anchor_index(self.anchor, frames), *ends)
        whole = z_c.repeat(frames // z_c.shape[0], 1, 1, 1)
        return appearnet_input(whole, given, config, frames=per_video, motion=self.motion)


class MicroCinemaModel(comfy.model_base.BaseModel):
    """A stock model that evaluates its network at x = y + sigma * lambda * z_c, in place of the sampler's y.

    The network's output is converted to z_0 at that same x. Where the network was trained on (z_0 - z_c) / residual,
    `noise.from_residual` converts between that and z_0.
    """

    def __init__(self, model_config: Any, model_type: Any = None, device: Any = None) -> None:
        model_type = comfy.model_base.ModelType.EPS if model_type is None else model_type
        super().__init__(model_config, model_type, device=device, unet_model=HostUNet)
        self.feature_cache = FeatureCache()
        self.info: ModelInfo | None = None

    @property
    def spec(self) -> ModelSpec:
        """What the weights were trained for; `UNTRAINED` before a file is loaded."""
        return UNTRAINED if self.info is None else self.info.spec

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Add z_c, in model space, to the network's conditions; the host crops it as it crops the noise."""
        out = super().extra_conds(**kwargs)
        self._check_text(kwargs)
        self._check_length(kwargs["noise"].shape[0], kwargs.get("prompt_type", "positive"))
        appearance = self._appearance()
        dropped = kwargs.get(DROP, False)
        if appearance is not None and (self.spec.residual or not dropped):
            noise = kwargs["noise"]
            z_c = self.process_latent_in(appearance.latent_for(noise).to(kwargs["device"], torch.float32))
            out[Z_C] = AppearanceCond(z_c, cache_key=object())
            if dropped:
                out[DROPPED] = comfy.conds.CONDConstant(True)
            net = self._appearnet()
            if net is not None and not dropped and not net.config.sees_z_c_alone:
                seen = appearance.appearnet_input(z_c, net.config, noise.shape[0])
                out[APPEARNET_INPUT] = AppearanceCond(seen, cache_key=object())
            if net is not None and not dropped and appearance.picture is not None:
                out[IMAGE_TOKENS] = TokensCond(self._image_tokens(net, appearance.picture, **kwargs))
        return out

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the denoised estimate of y, which equals that of x: both have the same clean frames."""
        options = dict(transformer_options or {})
        z_c, seen, appearance = kwargs.pop(Z_C, None), kwargs.pop(APPEARNET_INPUT, None), self._appearance()
        dropped, tokens = kwargs.pop(DROPPED, False), kwargs.pop(IMAGE_TOKENS, None)
        rate = self.spec.rate() if appearance is None else self.spec.rate(appearance.motion)
        if rate is not None:
            options[FPS] = rate

        def network(x: Tensor, sigma: Tensor) -> Tensor:
            t = sigma.reshape(-1)
            return super(MicroCinemaModel, self)._apply_model(
                x, t, c_concat, c_crossattn, control, options, **kwargs
            )

        if z_c is None or appearance is None:
            self._require_frames_predicted()
            return network(x, t)
        z_c, lambda_ = resize_like(z_c, x), 0.0
        if not dropped and appearance.active(t, self.model_sampling):
            lambda_ = appearance.lambda_
            injector = self._injector(appearance)
            if injector is not None:
                options[INJECTOR] = injector
                seen = z_c if seen is None else resize_like(seen, x)
                kwargs[APPEARNET_INPUT] = self._as_network_input(seen, x.device)
                if tokens is not None:
                    kwargs[IMAGE_TOKENS] = tokens
        z_c, scale = z_c.to(x.device, torch.float32), self.spec.residual
        denoise = from_residual(with_prior(network, z_c, lambda_), z_c, scale)
        return denoise(x.float(), t.float().reshape(-1, 1, 1, 1))

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Any = None) -> float:
        """Return the host's estimate in bytes, and what an AppearNet that is evaluated at each step takes beside."""
        net = self._appearnet()
        beside = 0.0 if net is None else feature_memory(net, input_shape)
        return float(super().memory_required(input_shape, cond_shapes or {})) + beside

    def state_dict_for_saving(self, *state_dicts: Any, **options: Any) -> dict[str, Tensor]:
        """Add the file's metadata as a tensor, because the host's ModelSave writes tensors only."""
        out = super().state_dict_for_saving(*state_dicts, **options)
        if self.info is not None:
            out[SAVED_METADATA] = metadata_tensor(self.info.metadata)
        return out

    def _require_frames_predicted(self) -> None:
        """Refuse a model of differences from the centre frame where there is none.

        Raises:
            ValueError: the weights were trained on those differences.
        """
        if self.spec.residual:
            name = self.info.name if self.info else "this MODEL"
            raise ValueError(
                f"{name} was trained on differences from a centre frame and cannot work without one: use MicroCinema "
                "Sampler, or put MicroCinema Apply AppearNet before the sampler."
            )

    def _as_network_input(self, seen: Tensor, device: torch.device) -> Tensor:
        """Return AppearNet's input with its cache key, which the host's own cast to this dtype would drop."""
        dtype = self.manual_cast_dtype or self.get_dtype()
        return with_cache_key(seen.to(device, dtype), cache_key_of(seen))

    def _image_tokens(
        self, net: AppearNet, picture: Picture, *, device: Any, prompt_type: str = "positive", **_: Any
    ) -> Tensor:
        """Return the tokens `v n d` of a picture; the negative branch gets those of mid grey."""
        features = picture.features
        if prompt_type == "negative":
            features = picture.grey.expand(features.shape[0], -1, -1)
        return net.resampler(features.to(device, net.compute_dtype))

    def _check_text(self, given: dict[str, Any]) -> None:
        """Refuse the texts of another model's CLIP, and texts and masks that the host would tile over the frames.

        Args:
            given: the entries of one text, as `extra_conds` gets them.

        Raises:
            ValueError: texts of another width, or neither one nor as many as frames.
        """
        text, prompt_type = given.get("cross_attn"), given.get("prompt_type", "positive")
        if text is None or self.info is None:
            return
        if text.shape[-1] != self.info.config.context_dim:
            raise ValueError(
                f"{prompt_type} has texts of width {text.shape[-1]}, and {self.info.name} takes "
                f"{self.info.config.context_dim}: connect CLIP Text Encode to the CLIP of this model's own family."
            )
        if self.spec.role != "image":  # a batch of pictures has no frames; the host tiles texts over it
            require_rows([[text, given]], given["noise"].shape[0], prompt_type)

    def _check_length(self, frames: int, prompt_type: str) -> None:
        """Refuse context windows that would get the wrong frames, and warn of more frames than motion weights know.

        Raises:
            ValueError: an appearance that differs between frames, on a host that does not slice conditions for windows.
        """
        appearance = self._appearance()
        if self.current_patcher is None or (appearance is not None and appearance.windows is not None):
            return
        length = window_length(self.current_patcher.model_options, frames)
        if length is not None:
            net = self._appearnet()
            single = appearance is None or appearance.single_frame
            if not SLICES_CONDITIONS and not (single and (net is None or net.config.sees_z_c_alone)):
                raise ValueError(NO_WINDOWS.format(frames=frames))
            frames = length
        absolute = self.info is not None and self.info.config.position_encoding == "absolute"
        counted = absolute or (self.info is not None and bool(self.info.config.image_context))
        if absolute and length is not None and length > NUMBERED_FRAMES:
            raise ValueError(
                f"context windows have {length} frames here, one more than context_length with causal_window_fix, and "
                f"these motion weights take at most {NUMBERED_FRAMES}: set a smaller context_length, best 16 or less."
            )
        if counted and frames != self.spec.frames and prompt_type == "positive":
            log.warning(
                "MicroCinema: the video has %d frames; these motion weights were trained on %d%s.",
                frames,
                self.spec.frames,
                " and get worse beyond" if frames > self.spec.frames else "",
            )

    def _appearance(self) -> Appearance | None:
        return None if self.current_patcher is None else self.current_patcher.get_attachment(ATTACHMENT)

    def _appearnet(self) -> AppearNet | None:
        if self.current_patcher is None:
            return None
        patchers = self.current_patcher.get_additional_models_with_key(APPEARNET_KEY)
        return patchers[0].model if patchers else None

    def _injector(self, appearance: Appearance) -> Injector | None:
        net = self._appearnet()
        if net is None or appearance.strength == 0:
            return None
        return Injector(net, appearance.strength, appearance.single_frame, self.feature_cache)
