"""Giving a MODEL its centre frame: AppearNet attached, the prior set, the starting noise raised by gamma."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import AppearNetConfig
from ..diffusion.noise import GAMMA, starting_noise
from .host import comfy
from .model import APPEARNET_KEY, ATTACHMENT, Appearance, MicroCinemaModel

OWN_LAMBDA = -1.0


@dataclass(frozen=True)
class AppearNetHandle:
    """The APPEARNET socket: the network in the host's hands, and what its file says of it."""

    patcher: Any
    config: AppearNetConfig
    role: str
    name: str


def apply_appearance(
    model: Any,
    appearnet: AppearNetHandle,
    centre_frame: dict[str, Tensor],
    *,
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    lambda_: float = OWN_LAMBDA,
    gamma: float = GAMMA,
) -> Any:
    """Return a clone of a MicroCinema MODEL that looks like the centre frame.

    Args:
        model: MODEL, left as it is.
        appearnet: the network that reads the centre frame.
        centre_frame: LATENT of one frame, or of as many as the video has.
        strength: of AppearNet; 0 leaves the noise prior alone.
        start_percent, end_percent: the part of the run in which appearance is used.
        lambda_: of the noise prior; -1 takes the weights' own.
        gamma: of the starting noise.

    Raises:
        ValueError: another kind of MODEL, an AppearNet of another U-Net, or latents of another family.
    """
    inner = require_microcinema(model)
    _require_same_shape(inner, appearnet)
    latent = checked_latent(centre_frame, inner.latent_format.latent_channels, "centre_frame")
    own = inner.info.lambda_ if inner.info else 0.0
    appearance = Appearance(
        latent=latent,
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        lambda_=own if lambda_ < 0 else lambda_,
        gamma=gamma,
    )
    clone = model.clone()
    clone.set_additional_models(APPEARNET_KEY, [appearnet.patcher.clone()])
    return _attach(clone, appearance)


def override_prior(
    model: Any, *, lambda_: float, gamma: float, centre_frame: dict[str, Tensor] | None = None
) -> Any:
    """Return a clone with another lambda and gamma.

    A MODEL of another family never saw the prior: it takes no lambda, and gamma only with a centre frame of
    its own.

    Raises:
        ValueError: no centre frame to build the prior from, or a lambda for weights that know none.
    """
    inner = model.model
    ours = isinstance(inner, MicroCinemaModel)
    appearance: Appearance | None = model.get_attachment(ATTACHMENT)
    if centre_frame is not None:
        channels = model.get_model_object("latent_format").latent_channels
        latent = checked_latent(centre_frame, channels, "centre_frame")
        appearance = Appearance(latent) if appearance is None else replace(appearance, latent=latent)
    if appearance is None:
        raise ValueError(
            "the noise prior needs a centre frame: connect centre_frame here, or put MicroCinema Apply "
            "AppearNet before."
        )
    if not ours and lambda_ > 0:
        raise ValueError(
            f"lambda is {lambda_}, but this MODEL ({type(inner).__name__}) was not trained with the noise "
            f"prior: "
            "use 0 or -1 with it."
        )
    own = inner.info.lambda_ if ours and inner.info else 0.0
    return _attach(model.clone(), replace(appearance, lambda_=own if lambda_ < 0 else lambda_, gamma=gamma))


def require_microcinema(model: Any) -> MicroCinemaModel:
    """Return the network inside a MODEL; `ValueError` if it is not one of ours."""
    inner = model.model
    if not isinstance(inner, MicroCinemaModel):
        raise ValueError(
            f"this MODEL is a {type(inner).__name__}, a MicroCinema model was expected: load one with a "
            f"MicroCinema "
            "loader, or make one from a Stable Diffusion file with MicroCinema Inflate."
        )
    return inner


def checked_latent(latent: dict[str, Tensor], channels: int, what: str) -> Tensor:
    """Return a LATENT's samples in float32; `ValueError` if they are not pictures of this family."""
    samples = latent["samples"]
    if samples.ndim != 4 or samples.shape[0] == 0 or samples.shape[1] != channels:
        raise ValueError(
            f"{what} has latents of shape {tuple(samples.shape)}, (frames, {channels}, height, width) was "
            f"expected: "
            "encode the picture with the VAE of the model's own family."
        )
    if not bool(torch.isfinite(samples).all()):
        raise ValueError(
            f"{what} holds NaN or infinite values: look at the picture and the VAE that made it."
        )
    return samples.detach().float()


def _require_same_shape(inner: MicroCinemaModel, appearnet: AppearNetHandle) -> None:
    if inner.info and {inner.info.role, appearnet.role} == {"base", "tsr"}:
        raise ValueError(
            f"the AppearNet of {appearnet.name} is of role {appearnet.role!r}, the MODEL of {inner.info.name} of role "
            f"{inner.info.role!r}: load both from the same file."
        )
    theirs = replace(appearnet.config.unet.as_2d(), injected_norm="frame")
    own = replace(inner.info.config.as_2d(), injected_norm="frame") if inner.info else theirs
    if own != theirs:
        different = [key for key, value in own.to_dict().items() if theirs.to_dict()[key] != value]
        raise ValueError(
            f"the AppearNet of {appearnet.name} belongs to another U-Net than that of "
            f"{inner.info.name if inner.info else 'this MODEL'} (they differ in {', '.join(different)}): "
            f"load both "
            "from the same file."
        )


def _attach(patcher: Any, appearance: Appearance) -> Any:
    """Set the appearance of a patcher that is ours to change, with the hooks that it needs, each once."""
    calls, wrappers = comfy.patcher_extension.CallbacksMP, comfy.patcher_extension.WrappersMP
    patcher.set_attachments(ATTACHMENT, appearance)
    patcher.remove_wrappers_with_key(wrappers.SAMPLER_SAMPLE, ATTACHMENT)
    patcher.add_wrapper_with_key(wrappers.SAMPLER_SAMPLE, ATTACHMENT, _start_with_gamma)
    for call in (calls.ON_PRE_RUN, calls.ON_CLEANUP):
        patcher.remove_callbacks_with_key(call, ATTACHMENT)
        patcher.add_callback_with_key(call, ATTACHMENT, _forget_features)
    return patcher


def _forget_features(patcher: Any) -> None:
    if isinstance(patcher.model, MicroCinemaModel):
        patcher.model.feature_cache.clear()


def _start_with_gamma(
    executor: Any,
    guider: Any,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: Tensor,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    disable_pbar: bool = False,
) -> Tensor:
    """Raise the starting noise by gamma * z_c where a picture starts from nothing but noise."""
    appearance: Appearance | None = guider.model_patcher.get_attachment(ATTACHMENT)
    mask = 1.0 if denoise_mask is None else denoise_mask
    if appearance is not None and appearance.gamma:
        from_nothing = latent_image is None or not bool((latent_image * mask).any())
        if from_nothing and bool(noise.any()) and executor.class_obj.max_denoise(guider, sigmas):
            z_c = guider.inner_model.process_latent_in(appearance.fitted(noise).to(noise))
            z_c = z_c.repeat(noise.shape[0] // z_c.shape[0], 1, 1, 1)
            noise = starting_noise(noise, z_c, appearance.gamma, mask)
    return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
