"""What a MicroCinema file says of itself, under `microcinema.` in its metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from .safetensors_io import describe, header_shapes

FORMAT = "1"
ROLES = ("image", "base", "tsr", "unet", "appearnet")
PREDICTIONS = ("eps", "v")
TERMINALS = ("sd", "zero")


def metadata_of(
    *,
    role: str,
    configs: Mapping[str, Mapping[str, Any]],
    lambda_: float,
    fps: float,
    frames: int,
    prediction: str,
    terminal: str,
    residual: float,
) -> dict[str, str]:
    """The metadata of a new file; see `Checkpoint` for what the values mean."""
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"microcinema/{role}",
        "modelspec.title": f"MicroCinema {role}",
        "modelspec.prediction_type": {"eps": "epsilon", "v": "v"}[prediction],
        "microcinema.format": FORMAT,
        "microcinema.role": role,
        "microcinema.config": json.dumps(configs, sort_keys=True),
        "microcinema.lambda": repr(float(lambda_)),
        "microcinema.fps": repr(float(fps)),
        "microcinema.frames": str(int(frames)),
        "microcinema.prediction": prediction,
        "microcinema.terminal": terminal,
        "microcinema.residual": repr(float(residual)),
    }


def read_fields(
    name: str, header: Mapping[str, dict], expect_roles: Collection[str] | None = None
) -> dict[str, Any]:
    """The fields of `Checkpoint` that a file's header gives.

    Raises:
        ValueError: not a MicroCinema file, one of another role, or an entry that is missing or unreadable.
    """
    wanted = _wanted(expect_roles)
    metadata = header.get("__metadata__", {})
    version = metadata.get("microcinema.format")
    if version is None:
        raise ValueError(_foreign(name, header, wanted=wanted))
    if version != FORMAT:
        raise ValueError(
            f"{name}: MicroCinema format {version}, this version reads {FORMAT}: update the node pack."
        )
    try:
        fields = {
            "role": metadata["microcinema.role"],
            "configs": json.loads(metadata["microcinema.config"]),
            "lambda_": float(metadata["microcinema.lambda"]),
            "fps": float(metadata["microcinema.fps"]),
            "frames": int(metadata["microcinema.frames"]),
            "prediction": metadata.get("microcinema.prediction", "eps"),
            "terminal": metadata.get("microcinema.terminal", "sd"),
            "residual": float(metadata.get("microcinema.residual", "0")),
        }
    except KeyError as error:
        raise ValueError(f"{name}: the metadata entry {error} is missing, {wanted} was expected.") from error
    except ValueError as error:
        raise ValueError(
            f"{name}: a metadata entry is unreadable ({error}), {wanted} was expected."
        ) from error
    if fields["role"] not in ROLES or fields["prediction"] not in PREDICTIONS:
        raise ValueError(
            f"{name}: role {fields['role']!r} with prediction {fields['prediction']!r} is unknown, "
            f"expected one of {', '.join(ROLES)} with one of {', '.join(PREDICTIONS)}."
        )
    if expect_roles is not None and fields["role"] not in expect_roles:
        raise ValueError(f"{name}: this file's role is {fields['role']!r}, {wanted} was expected.")
    return fields


def _wanted(roles: Collection[str] | None) -> str:
    return (
        f"a MicroCinema file of role {' or '.join(repr(role) for role in roles)}"
        if roles
        else "a MicroCinema file"
    )


def _foreign(name: str, header: Mapping[str, dict], *, wanted: str) -> str:
    kind = describe(header_shapes(header))
    hint = ": use the node MicroCinema Inflate to turn it into a MicroCinema model"
    inflatable = "Diffusion 1.x" in kind or "Diffusion 2.x" in kind
    return f"{name}: this is {kind}, {wanted} was expected{hint if inflatable else ''}."
