"""Files that a config names: the weights to start from, and frozen networks."""

from __future__ import annotations

from pathlib import Path

from ..files.checkpoint import Checkpoint, is_microcinema, read_checkpoint
from ..files.load_networks import load_text_encoder, load_vae
from ..files.stable_diffusion import read_stable_diffusion
from ..networks.text import TextEncoder
from ..networks.vae import FoldedVAE
from .preview import LinearPreview, VAEPreview, make_preview


def read_start(path: Path, roles: tuple[str, ...]) -> Checkpoint:
    """Read the file that training starts from.

    Args:
        path: a MicroCinema file; where "image" is among `roles`, also a Stable Diffusion file or diffusers folder.
        roles: the roles that will do.

    Raises:
        ValueError: the file is missing, of another role, or of another model.
    """
    if not path.exists():  # a model in parts is a folder
        raise missing_export(path)
    if "image" not in roles or not is_foreign(path):
        return read_checkpoint(path, expect_roles=roles)
    return read_stable_diffusion(path)


def load_frozen_networks(
    path: Path, *, with_text: bool
) -> tuple[TextEncoder | None, FoldedVAE | LinearPreview | VAEPreview]:
    """Return the frozen text encoder, if any, and a decoder of latents for sample sheets.

    Args:
        path: a MicroCinema image file, which has both, or a Stable Diffusion file or folder, for the decoder alone.
        with_text: whether to load a text encoder at all.

    Raises:
        ValueError: a MicroCinema file of another role.
    """
    if not with_text or is_foreign(path):
        return None, make_preview(path)
    image = read_checkpoint(path, expect_roles=("image",))
    return load_text_encoder(image), load_vae(image)


def is_foreign(path: Path) -> bool:
    """Return whether a path is a diffusers folder or a file that is not MicroCinema's own."""
    return path.exists() and not is_microcinema(path)


def read_export(path: Path) -> Checkpoint:
    """Read an exported file that a config names.

    Raises:
        ValueError: the file is missing or not a MicroCinema file.
    """
    if not path.is_file():
        raise missing_export(path)
    return read_checkpoint(path)


def missing_export(path: Path) -> ValueError:
    """Return the error for a file that a config names and that does not exist yet."""
    return ValueError(
        f"{path} is missing; train the stage that exports it first, or name another file, such as a Stable Diffusion "
        "checkpoint for `init_from` of the stage base"
    )
