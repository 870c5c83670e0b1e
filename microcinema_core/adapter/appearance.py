"""A MODEL's centre frame: attaching AppearNet, and setting the noise prior."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from ..config import MOTIONS, AppearNetConfig, Motion
from ..diffusion.noise import GAMMA
from ..model_spec import ModelSpec
from ..networks.appearance_input import ANCHORS
from ..values import chosen
from .host import comfy
from .model import APPEARNET_KEY, ATTACHMENT, Appearance, MicroCinemaModel
from .picture import checked_picture
from .starting_noise import add_gamma, checked_latent, refuse_packed

OWN = -1.0
"""Stands for the lambda that the weights were trained with, and for the gamma that suits them."""
AUTO = "auto"
"""Stands for the weights' own choice, where an input is a combo."""


@dataclass(frozen=True)
class AppearNetHandle:
    """The APPEARNET socket.

    Attributes:
        patcher: the network in the host's ModelPatcher.
        config: its configuration.
        spec: what its weights were trained for.
        name: name of its file, for messages.
        grey: CLIP vision's features of mid grey, for weights that look at pictures through it; None where not loaded.
    """

    patcher: Any
    config: AppearNetConfig
    spec: ModelSpec
    name: str
    grey: Tensor | None = None


def apply_appearance(
    model: Any,
    appearnet: AppearNetHandle,
    centre_frame: dict[str, Tensor],
    *,
    strength: float | None = None,
    start_percent: float | None = None,
    end_percent: float | None = None,
    lambda_: float = OWN,
    gamma: float = OWN,
    anchor: str = "centre",
    last_frame: dict[str, Tensor] | None = None,
    motion: str = AUTO,
    windows: tuple[int, tuple[int, ...]] | None = None,
    features: Tensor | None = None,
) -> Any:
    """Return a clone of a MicroCinema MODEL that follows a centre frame.

    Args:
        model: the MODEL; it is not changed.
        appearnet: the network that encodes the centre frame.
        centre_frame: LATENT of one frame, or of one for each frame of the video.
        strength: factor on what AppearNet injects; 0 leaves the noise prior alone.
        start_percent, end_percent: the part of the sampling run in which the centre frame acts.
        lambda_: the noise prior's lambda; -1 is the weights' own.
        gamma: share of z_c that is added to the starting noise; -1 is what suits the weights. Where one of these five
            is not set, a MODEL that has a centre frame already keeps its own.
        anchor: where the picture stands in the video, one of `ANCHORS`; other than the centre for weights that take
            any place.
        last_frame: LATENT of the video's last frame, for weights that take two pictures.
        motion: amount of motion, one of `MOTIONS` for weights that take it, or `AUTO`.
        windows: for TSR, frames of a window and the indices of its key frames.
        features: CLIP vision's features of the picture (`picture.features_of`), for weights that take them; for TSR,
            those of each window's first key frame.

    Raises:
        ValueError: a MODEL of another family, an AppearNet of another U-Net, latents of another VAE, or an anchor,
            last frame, motion or features that the weights do not take.
    """
    require_numbers(
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        gamma=gamma,
        **{"lambda": lambda_},
    )
    inner = require_microcinema(model)
    _require_matching_unet(inner, appearnet)
    place = chosen(anchor, ANCHORS, "anchor")
    _require_places(appearnet, place, last_frame, windows)
    latent = checked_latent(centre_frame, inner.latent_format.latent_channels, "centre_frame")
    last = None if last_frame is None else _checked_last(last_frame, latent)
    if latent.shape[0] > 1 and windows is None and (place != "centre" or last is not None):
        raise ValueError(
            f"centre_frame holds {latent.shape[0]} frames, one for each frame of the video, so anchor and last_frame "
            "have no place: give one picture, or leave them out."
        )
    before: Appearance | None = model.get_attachment(ATTACHMENT)
    base = before or Appearance(latent)
    appearance = replace(
        base,
        **_set(strength=strength, start_percent=start_percent, end_percent=end_percent),
        latent=latent,
        lambda_=_resolved_lambda(lambda_, inner, before),
        gamma=_resolved_gamma(gamma, inner, before),
        anchor=place,
        last_frame=last,
        windows=windows,
        motion=_resolved_motion(motion, appearnet, base.motion),
        picture=checked_picture(
            appearnet.name,
            appearnet.config.resampler,
            features,
            appearnet.grey,
            videos=1 if windows is None else latent.shape[0] // windows[0],
        ),
    )
    clone = model.clone()
    clone.set_additional_models(APPEARNET_KEY, [appearnet.patcher.clone()])
    return _attach(clone, appearance)


def override_prior(
    model: Any, *, lambda_: float, gamma: float, centre_frame: dict[str, Tensor] | None = None
) -> Any:
    """Return a clone of a MODEL with another lambda and gamma.

    A MODEL of another family was trained without the prior. It takes no lambda above 0, and gamma only with a
    centre frame of its own.

    Raises:
        ValueError: no centre frame to build the prior from, or a lambda for weights that were trained without it.
    """
    require_numbers(gamma=gamma, **{"lambda": lambda_})
    inner = model.model
    appearance: Appearance | None = model.get_attachment(ATTACHMENT)
    if centre_frame is not None:
        kind = model.get_model_object("latent_format")
        video = kind.latent_dimensions == 3
        if video:
            refuse_packed(kind)
        latent = checked_latent(centre_frame, kind.latent_channels, "centre_frame", video=video)
        appearance = Appearance(latent) if appearance is None else replace(appearance, latent=latent)
    if appearance is None:
        raise ValueError(
            "the noise prior needs a centre frame: connect centre_frame here, or put MicroCinema Apply "
            "AppearNet before."
        )
    if lambda_ > 0 and not isinstance(inner, MicroCinemaModel):
        raise ValueError(
            f"lambda is {lambda_}, but this MODEL ({type(inner).__name__}) was not trained with the noise prior: "
            "use 0 or -1 with it."
        )
    prior = replace(appearance, lambda_=_resolved_lambda(lambda_, inner), gamma=_resolved_gamma(gamma, inner))
    return _attach(model.clone(), prior)


def require_numbers(**values: float | None) -> None:
    """Refuse settings that are no finite number; those that are not set pass.

    Raises:
        ValueError: one is NaN or infinite; the message names it.
    """
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} is {value}; expected a finite number.")


def _set(**values: float | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _resolved_lambda(lambda_: float, inner: Any, before: Appearance | None = None) -> float:
    """Return a node's lambda: -1 is that of the node before, else the weights' own (0 in models of other families)."""
    if lambda_ > 0 and isinstance(inner, MicroCinemaModel) and _is_published(inner.spec):
        raise ValueError(
            f"lambda is {lambda_}, but published motion weights were trained without the noise prior: use 0 or -1."
        )
    if lambda_ >= 0:
        return lambda_
    if before is not None:
        return before.lambda_
    return inner.spec.lambda_ if isinstance(inner, MicroCinemaModel) else 0.0


def _is_published(spec: ModelSpec) -> bool:
    """Whether weights are others' and were not trained further with the noise prior."""
    return (spec.betas == "linear" or bool(spec.origin)) and not spec.lambda_


def _resolved_gamma(gamma: float, inner: Any, before: Appearance | None = None) -> float:
    """Return a node's gamma: -1 is that of the node before, else what suits the weights, else the paper's."""
    if gamma >= 0:
        return gamma
    if before is not None:
        return before.gamma
    return inner.spec.sampling.gamma if isinstance(inner, MicroCinemaModel) else GAMMA


def _checked_last(last_frame: dict[str, Tensor], latent: Tensor) -> Tensor:
    """Return the latents of the last frame, `1 c h w`.

    Raises:
        ValueError: several frames, or another size than the centre frame's.
    """
    last = checked_latent(last_frame, latent.shape[1], "last_frame")
    if last.shape[0] != 1:
        raise ValueError(f"last_frame holds {last.shape[0]} frames, one was expected: pick one of them.")
    if last.shape[1:] != latent.shape[1:]:
        raise ValueError(
            f"last_frame has latents of (channels, height, width) {tuple(last.shape[1:])} and centre_frame "
            f"{tuple(latent.shape[1:])}: give both pictures the same size."
        )
    return last


def _resolved_motion(motion: str, appearnet: AppearNetHandle, own: Motion) -> Motion:
    """Return a node's amount of motion; `AUTO` is that of the node before, else the usual one (`own`)."""
    if motion == AUTO:
        return own
    amount = chosen(motion, (AUTO, *MOTIONS), "motion")
    if appearnet.config.hint != "affinity" and len(appearnet.spec.rates) != len(MOTIONS):
        raise ValueError(
            f"motion is {motion!r}, but {appearnet.name} has no setting for the amount of motion: choose auto, or "
            "weights that have one, such as PIA or DynamiCrafter."
        )
    return cast(Motion, amount)


def require_microcinema(model: Any) -> MicroCinemaModel:
    """Return the network inside a MODEL.

    Raises:
        ValueError: it is a model of another family.
    """
    inner = model.model
    if not isinstance(inner, MicroCinemaModel):
        raise ValueError(
            f"this MODEL is a {type(inner).__name__}, a MicroCinema model was expected: make one from a Stable "
            "Diffusion 1.5 MODEL with MicroCinema Motion Loader, or load a file with another MicroCinema loader."
        )
    return inner


def _require_matching_unet(inner: MicroCinemaModel, appearnet: AppearNetHandle) -> None:
    if inner.info and {inner.spec.role, appearnet.spec.role} == {"base", "tsr"}:
        raise ValueError(
            f"the AppearNet of {appearnet.name} is of role {appearnet.spec.role!r}, the MODEL of {inner.info.name} "
            f"of role {inner.spec.role!r}: load both from the same file."
        )
    theirs = replace(appearnet.config.unet.as_2d(), injected_norm="frame")
    own = replace(inner.info.config.as_2d(), injected_norm="frame") if inner.info else theirs
    if own != theirs:
        different = [key for key, value in own.to_dict().items() if theirs.to_dict()[key] != value]
        raise ValueError(
            f"the AppearNet of {appearnet.name} belongs to another U-Net than that of "
            f"{inner.info.name if inner.info else 'this MODEL'} (they differ in {', '.join(different)}): "
            "load both from the same file, or an AppearNet for this model's U-Net."
        )


def _require_places(appearnet: AppearNetHandle, anchor: str, last_frame: Any, windows: Any) -> None:
    """Refuse a picture at a place for which the weights were not trained."""
    config = appearnet.config
    if windows is not None and config.hint == "affinity":
        raise ValueError(
            f"{appearnet.name} takes one picture, and between key frames there are several: use a MicroCinema file "
            "of role tsr, or AnimateDiff version 3 with SparseCtrl."
        )
    if anchor != "centre" and not config.takes_any_place:
        raise ValueError(
            f"the AppearNet of {appearnet.name} was trained with the picture at the centre, anchor is {anchor!r}: "
            "choose centre, or weights that take a picture at any place, such as PIA or SparseCtrl."
        )
    if last_frame is not None and config.between != "zeros":
        raise ValueError(
            f"the AppearNet of {appearnet.name} takes one picture, and last_frame is a second one: disconnect it, or "
            "use weights that take several, such as SparseCtrl."
        )
    if config.places == "ends" and windows is None and (anchor != "first" or last_frame is None):
        raise ValueError(
            f"{appearnet.name} makes the frames between two pictures: set anchor to first and connect last_frame, or "
            "use MicroCinema Interpolate Frames, which takes any number of key frames."
        )
    if last_frame is not None and anchor == "last":
        raise ValueError(
            "anchor is last and last_frame is connected, two pictures for one frame: choose another anchor."
        )


def _attach(patcher: Any, appearance: Appearance) -> Any:
    """Attach an appearance to a cloned patcher, with the wrapper and callbacks that it needs, each once."""
    calls, wrappers = comfy.patcher_extension.CallbacksMP, comfy.patcher_extension.WrappersMP
    patcher.set_attachments(ATTACHMENT, appearance)
    patcher.remove_wrappers_with_key(wrappers.SAMPLER_SAMPLE, ATTACHMENT)
    patcher.add_wrapper_with_key(wrappers.SAMPLER_SAMPLE, ATTACHMENT, add_gamma)
    patcher.remove_wrappers_with_key(wrappers.PREPARE_SAMPLING, ATTACHMENT)
    patcher.add_wrapper_with_key(wrappers.PREPARE_SAMPLING, ATTACHMENT, _estimate_with_appearnet)
    for call in (calls.ON_PRE_RUN, calls.ON_CLEANUP):
        patcher.remove_callbacks_with_key(call, ATTACHMENT)
        patcher.add_callback_with_key(call, ATTACHMENT, _clear_feature_cache)
    return patcher


def _clear_feature_cache(patcher: Any) -> None:
    if isinstance(patcher.model, MicroCinemaModel):
        patcher.model.feature_cache.clear()


def _estimate_with_appearnet(executor: Any, patcher: Any, *args: Any, **kwargs: Any) -> Any:
    """Name the patcher before the run starts, as the host does after it: the memory estimate counts its AppearNet."""
    if isinstance(patcher.model, MicroCinemaModel):
        patcher.model.current_patcher = patcher
    return executor(patcher, *args, **kwargs)
