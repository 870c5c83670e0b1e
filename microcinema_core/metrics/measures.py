"""What is measured of one clip: I3D logits, class probabilities, CLIP similarity, motion.

A measure is a small frozen dataclass, so that it can be sent to a worker process, which loads the network. Its `key` is
a hash of all that its values depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..data.videos.plan import content_key
from ..data.videos.score import CLIPScorer
from ..messages import one_line
from .clip_reading import Clip
from .i3d import LEAST_FRAMES, SIZE, i3d_features
from .i3d_files import is_torchscript, last_line, load_i3d_file, load_torchscript
from .inception_score import as_probabilities
from .motion import motion_measures

RESIZES = ("bilinear", "antialiased", "network")
CLIPSIM_BATCH = 64
"""Frames that CLIP looks at together."""
VERSION = 1
"""Part of every key: raise it when the same clip and network give other values than before."""

MeasureClip = Callable[[Clip], Tensor]
"""Maps a clip to its values, float32 (d,)."""


class Measure(Protocol):
    """A measure of clips."""

    @property
    def label(self) -> str:
        """The network and its settings, as reports name them."""
        ...

    @property
    def key(self) -> str:
        """A hash of all that the values depend on besides the clip."""
        ...

    @property
    def reads_captions(self) -> bool:
        """Whether the values depend on the video's captions."""
        ...

    def load(self) -> MeasureClip:
        """Load the network, and return the function that measures a clip."""
        ...


@dataclass(frozen=True)
class I3DLogits:
    """The logits of an I3D of Kinetics-400, 400 values, which FVD and KVD compare.

    Attributes:
        file: the network, of any kind that `i3d_files` reads.
        name: what reports call it.
        digest: sha256 of the file.
        resize: how frames get 224x224 pixels; both ways change the aspect. "bilinear" is what published FVD does: each
            output pixel mixes four input pixels, so larger frames alias. "antialiased" mixes all that it covers.
            "network" leaves it to a TorchScript file.
        device: device of the network.
    """

    file: Path
    name: str
    digest: str
    resize: str = "bilinear"
    device: str = "cpu"
    reads_captions: bool = False

    @property
    def label(self) -> str:
        """Network, sha256 and resize."""
        return f"{self.name}, sha256 {self.digest[:12]}, {self.resize} resize"

    @property
    def key(self) -> str:
        """A hash of file and resize."""
        return f"i3d-{content_key([VERSION, self.digest, self.resize])}"

    def load(self) -> MeasureClip:
        """Load the network.

        Raises:
            ValueError: the file is no I3D, or `resize` is "network" and it is no TorchScript.
        """
        if is_torchscript(self.file):
            network = load_torchscript(self.file).to(self.device)
            return lambda clip: self._run_script(network, clip.frames)
        if self.resize == "network":
            raise ValueError(f"--resize network needs a TorchScript file, {one_line(self.file)} is none")
        model = load_i3d_file(self.file).to(self.device).fast(torch.float32)

        def measure(clip: Clip) -> Tensor:
            _refuse_short(clip)
            pictures = resize_frames(clip.frames, self.resize).div(127.5).sub(1)
            return i3d_features(model, pictures[None])[0]

        return measure

    @torch.no_grad()
    def _run_script(self, network: Any, frames: Tensor) -> Tensor:
        whole = self.resize == "network"
        pictures = frames.float() if whole else resize_frames(frames, self.resize)
        videos = rearrange(pictures, "f c h w -> 1 c f h w").to(self.device)
        return _only_row(
            lambda: network(videos, rescale=True, resize=whole, return_features=True), self.file, "FVD's I3D"
        )[0]


@dataclass(frozen=True)
class ScriptedClasses:
    """The class probabilities of a TorchScript classifier that takes uint8 videos, such as C3D of UCF-101."""

    file: Path
    digest: str
    device: str = "cpu"
    reads_captions: bool = False

    @property
    def label(self) -> str:
        """File and sha256."""
        return f"{one_line(self.file.name)}, sha256 {self.digest[:12]}"

    @property
    def key(self) -> str:
        """A hash of the file."""
        return f"classes-{content_key([VERSION, self.digest])}"

    def load(self) -> MeasureClip:
        """Load the network.

        Raises:
            ValueError: the file is no TorchScript.
        """
        network = load_torchscript(self.file).to(self.device)

        @torch.no_grad()
        def measure(clip: Clip) -> Tensor:
            videos = rearrange(clip.frames, "f c h w -> 1 c f h w").to(self.device)
            return as_probabilities(
                _only_row(lambda: network(videos), self.file, "a classifier of uint8 videos")
            )[0]

        return measure


@dataclass(frozen=True)
class ClipSimilarity:
    """CLIPSIM: the cosine of the CLIP embeddings of caption and frame, averaged over all frames and captions.

    Attributes:
        folder: the CLIP model.
        digest: hash of the files of model and tokenizer.
        tokenizer: folder of the tokenizer.
        device: device of the model.
    """

    folder: Path
    digest: str
    tokenizer: Path
    device: str = "cpu"
    reads_captions: bool = True

    @property
    def label(self) -> str:
        """Folder of the model, and the hash."""
        return f"{one_line(self.folder.name)}, {self.digest}"

    @property
    def key(self) -> str:
        """A hash of model and tokenizer."""
        return f"clipsim-{content_key([VERSION, self.digest])}"

    def load(self) -> MeasureClip:
        """Load the CLIP model; errors as for `CLIPScorer`."""
        scorer = CLIPScorer(self.folder, self.tokenizer, device=self.device, most_frames=None)

        def measure(clip: Clip) -> Tensor:
            parts = clip.frames.split(CLIPSIM_BATCH)  # a long video's frames at once would need much memory
            total = sum(len(part) * scorer(part, clip.captions) for part in parts)
            return torch.tensor([total / len(clip.frames)])

        return measure


@dataclass(frozen=True)
class MotionMeasures:
    """Motion, colour drift and flicker, see `motion`."""

    reads_captions: bool = False
    label: str = "optical flow, L*a*b*, luma"

    @property
    def key(self) -> str:
        """A hash of the version."""
        return f"motion-{content_key([VERSION])}"

    def load(self) -> MeasureClip:
        """Return the function."""
        return lambda clip: motion_measures(clip.frames, clip.fps)


def resize_frames(frames: Tensor, how: str, side: int = SIZE) -> Tensor:
    """Resize uint8 frames `f 3 h w` to `f 3 side side`, float32 in [0, 255]; `how` as for `I3DLogits.resize`."""
    if frames.shape[-2:] == (side, side):
        return frames.float()
    return F.interpolate(
        frames.float(), (side, side), mode="bilinear", align_corners=False, antialias=how == "antialiased"
    )


def _refuse_short(clip: Clip) -> None:
    if len(clip.frames) < LEAST_FRAMES:
        raise ValueError(f"I3D takes {LEAST_FRAMES} frames or more, and --frames is {len(clip.frames)}")


def _only_row(run: Callable[[], Any], file: Path, what: str) -> Tensor:
    """Run a TorchScript network on one clip, and return its row of numbers, float32 (1, d) on the CPU.

    Raises:
        ValueError: the network fails, or returns something else.
    """
    try:
        row = run()
    except Exception as error:  # a program of any origin
        raise ValueError(f"{one_line(file)} does not work as {what}: {last_line(error)}") from error
    if not isinstance(row, Tensor) or row.ndim != 2 or len(row) != 1:
        given = f"a tensor {tuple(row.shape)}" if isinstance(row, Tensor) else f"a {type(row).__name__}"
        raise ValueError(
            f"{one_line(file)} does not work as {what}: it returns {given} for one clip, not a row (1, d)"
        )
    return row.float().cpu()
