"""Small videos and tiny networks in the published formats, for tests of the metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from microcinema_core.data.videos import run as workers
from tests.data.prepare_world import in_this_process
from tests.data.video_world import drawing, write_video


class TinyI3D(nn.Module):
    """Takes what FVD's TorchScript I3D takes; its 6 features are random projections of colours and their changes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = True
    ) -> Tensor:
        if resize:
            b, c, f, h, w = x.shape
            frames = x.permute(0, 2, 1, 3, 4).reshape(b * f, c, h, w)
            frames = torch.nn.functional.interpolate(
                frames, size=(224, 224), mode="bilinear", align_corners=False
            )
            x = frames.reshape(b, f, c, 224, 224).permute(0, 2, 1, 3, 4)
        if rescale:
            x = 2 * x / 255 - 1
        means = x.mean(dim=(2, 3, 4))
        moved = (x[:, :, 1:] - x[:, :, :-1]).abs().mean(dim=(2, 3, 4))
        return torch.cat([means, moved], dim=1) @ self.weight


class TinyC3D(nn.Module):
    """Takes uint8 videos as the published C3D does, of 16 frames and no others, and returns probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 16, "16 frames were expected"
        means = x.float().mean(dim=(2, 3, 4)) / 16
        return torch.cat([means, means.flip(1) * 0.5], dim=1).softmax(dim=1)


def write_script(module: nn.Module, path: Path) -> Path:
    """Save a module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return path


def write_set(
    folder: Path,
    count: int,
    *,
    first_scene: int = 0,
    step: int = 1,
    frames: int = 20,
    fps: int = 8,
    captions: bool = True,
) -> Path:
    """Write a set of videos, each with colours of its own, with a caption beside each."""
    for number in range(count):
        scene = first_scene + number
        write_video(
            folder / f"{number:02d}.mp4", frames=frames, fps=fps,
            draw=lambda i, w, h, scene=scene: drawing(i, w, h, scene=scene, step=step),  # type: ignore[misc]
        )  # fmt: skip
        if captions:
            (folder / f"{number:02d}.txt").write_text(f"a square over scene {scene}")
    return folder


@contextmanager
def no_processes() -> Iterator[None]:
    """Do the work of the workers in this process."""
    threads = torch.get_num_threads()
    with patch.object(workers, "_in_processes", in_this_process):
        yield
    torch.set_num_threads(threads)
