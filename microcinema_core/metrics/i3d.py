"""I3D: Inception-v1 inflated to video (Carreira & Zisserman 2017, arXiv 1705.07750), for inference only.

The batch norm after each convolution is folded into the convolution's weight and bias (`i3d_weights`). Layers have the
names of the paper's code.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

CLASSES = 400
SIZE = 224
LEAST_FRAMES = 9
"""Least length of a clip: with fewer, less than two frames reach the last pooling, whose window is two frames."""
Triple = tuple[int, int, int]
"""A size or stride as frames, rows, columns."""

# Widths of the branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pooling then 1x1.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad `b c f h w` with zeros as TensorFlow's SAME: ceil(n / stride) values result, an odd zero goes to the end."""
    pads: list[int] = []
    for n, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


class Unit(nn.Conv3d):
    """Convolution, folded batch norm and ReLU, with SAME padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.same: tuple[Triple, Triple] = ((kernel,) * 3, (stride,) * 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map `b c f h w` features to `b c f h w`."""
        return super().forward(pad_same(x, *self.same)).relu_()


class Pool(nn.Module):
    """Max pooling with SAME padding. Inputs come from ReLU, so the zeros of the padding never exceed them."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `b c f h w` features to `b c f h w`."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """The four parallel branches of an Inception block."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        a, b0, b1, c0, c1, d = widths
        self.outputs = a + b1 + c1 + d
        self.branches = nn.ModuleList(
            [
                nn.Sequential(Unit(inputs, a, 1)),
                nn.Sequential(Unit(inputs, b0, 1), Unit(b0, b1, 3)),
                nn.Sequential(Unit(inputs, c0, 1), Unit(c0, c1, 3)),
                nn.Sequential(Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, d, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `b c f h w` features to `b c f h w`, the branches' outputs concatenated."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class I3D(nn.Module):
    """RGB I3D with the Kinetics-400 head; 12.69 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential()
        self.trunk.add_module("Conv3d_1a_7x7", Unit(3, 64, 7, stride=2))
        self.trunk.add_module("MaxPool3d_2a_3x3", Pool((1, 3, 3), (1, 2, 2)))
        self.trunk.add_module("Conv3d_2b_1x1", Unit(64, 64, 1))
        self.trunk.add_module("Conv3d_2c_3x3", Unit(64, 192, 3))
        self.trunk.add_module("MaxPool3d_3a_3x3", Pool((1, 3, 3), (1, 2, 2)))
        width = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.trunk.add_module("MaxPool3d_4a_3x3", Pool((3, 3, 3), (2, 2, 2)))
            if name == "Mixed_5b":
                self.trunk.add_module("MaxPool3d_5a_2x2", Pool((2, 2, 2), (2, 2, 2)))
            mixed = Mixed(width, widths)
            self.trunk.add_module(name, mixed)
            width = mixed.outputs
        self.head = nn.Conv3d(width, CLASSES, 1)

    def fast(self, dtype: torch.dtype) -> I3D:
        """Return itself, with channels last and its trunk at `dtype`, which is faster on a CPU."""
        self.trunk.to(dtype).to(memory_format=torch.channels_last_3d)
        return self

    def forward(self, videos: Tensor) -> Tensor:
        """Map RGB videos `b f 3 h w` in [-1, 1] to logits `b 400`; pictures are resized to 224x224.

        Raises:
            ValueError: fewer than 9 frames, or not RGB videos.
        """
        if videos.ndim != 5 or videos.shape[1] < LEAST_FRAMES or videos.shape[2] != 3:
            raise ValueError(
                f"I3D takes videos (b, f, 3, h, w) of {LEAST_FRAMES} frames or more, not {tuple(videos.shape)}"
            )
        frames = rearrange(videos, "b f c h w -> (b f) c h w").float()  # CPUs cannot resize bfloat16
        if frames.shape[-2:] != (SIZE, SIZE):
            frames = F.interpolate(frames, (SIZE, SIZE), mode="bilinear", antialias=True)
        frames = rearrange(frames, "(b f) c h w -> b c f h w", b=videos.shape[0])
        x = self.trunk(frames.to(next(self.trunk.parameters()).dtype)).to(self.head.weight.dtype)
        # The paper's code averages over windows of 2x7x7 at stride 1: all 7x7 positions, two frames at a time.
        x = x.mean(dim=(3, 4), keepdim=True)
        x = (x[:, :, 1:] + x[:, :, :-1]) / 2
        return self.head(x).mean(dim=(2, 3, 4))


@torch.no_grad()
def i3d_features(model: I3D, clips: Iterable[Tensor] | Tensor, batch: int = 4) -> Tensor:
    """Compute I3D's logits of clips, which FVD and related distances compare.

    Args:
        model: I3D with its weights loaded.
        clips: RGB clips `f 3 h w` in [-1, 1], all of one shape, or one tensor `n f 3 h w`. An iterator is consumed
            batch by batch, so it need not hold all clips.
        batch: number of clips per forward pass.

    Returns:
        Features `n 400`, float32 on the CPU.

    Raises:
        ValueError: there are no clips, or they are not what `I3D` takes.
    """
    device = next(model.parameters()).device
    source = iter(clips)
    rows = []
    while taken := list(islice(source, batch)):
        rows.append(model(torch.stack(taken).to(device)).float().cpu())
    if not rows:
        raise ValueError("there are no clips to take features of")
    return torch.cat(rows)
