"""Memory of temporal super-resolution by length of the video: the mini model, as the node runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from devtools.run.home import ROOT
from microcinema_core.config import CONTEXT_LENGTH
from microcinema_core.diffusion.tsr import frames_after

from .timing import working

VIDEOS = {33: (9, 1), 129: (9, 2), 2001: (126, 2)}
"""Frames of the result: (key frames, rounds). Key frames and rounds cannot make exactly 2,000."""
CHUNKS = {0: "ComfyUI's choice", 2: "2 pairs"}
SIDE, STEPS, MOST = 16, 2, 1.10
MIB = 2**20


@dataclass(frozen=True)
class Interpolated:
    """Bytes of one video: `working`, the peak without weights; `answer`, the result's latents in it."""

    frames: int
    chunk: int
    working: int
    answer: int
    weights: int

    @property
    def peak(self) -> int:
        """Peak memory, weights included."""
        return self.working + self.weights


def measure(
    videos: dict[int, tuple[int, int]] = VIDEOS, *, side: int = SIDE, steps: int = STEPS
) -> list[Interpolated]:
    """Measure every video with every chunk; the first video of a chunk is also the warm-up run."""
    from microcinema_core import adapter

    tsr = adapter.load_checkpoint(ROOT / "weights" / "mini_tsr.safetensors")
    config: Any = tsr.model.model.info.config
    text = [[torch.randn(1, CONTEXT_LENGTH, config.context_dim), {}]]
    settings = adapter.SamplerSettings(text, text, 0, steps, 1.0, "euler", "simple")
    weights = tsr.model.model_size() + tsr.appearnet.patcher.model_size()
    rows = []
    for chunk in CHUNKS:
        for place, (frames, (keys, rounds)) in enumerate(videos.items()):
            if frames_after(keys, rounds) != frames:
                raise ValueError(f"{keys} key frames and {rounds} rounds make no {frames} frames")
            given = {"samples": torch.randn(keys, config.in_channels, side, side)}

            def video(given: Any = given, rounds: int = rounds, chunk: int = chunk) -> None:
                with torch.inference_mode():
                    adapter.interpolate_video(
                        tsr.model,
                        tsr.appearnet,
                        given,
                        settings,
                        rounds=rounds,
                        lambda_=-1,
                        gamma=0,
                        chunk=chunk,
                    )

            if place == 0:
                video()
            answer = frames * given["samples"][0].nbytes
            taken = working(video, str(tsr.model.load_device.type))
            rows.append(Interpolated(frames, chunk, taken, answer, weights))
    return rows


def table(rows: list[Interpolated]) -> str:
    """Format the rows as Markdown, each relative to the shortest video of its chunk."""
    first = {row.chunk: row for row in reversed(rows)}
    lines = [
        f"The mini model ({rows[0].weights / MIB:.0f} MiB of weights), latents of {SIDE}x{SIDE}, {STEPS} steps. "
        f"Target: at most {MOST:.2f} times the peak of the shortest video.",
        "",
        "| frames | pairs at once | working memory | of it, the result | relative | with weights | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shortest = first[row.chunk]
        ratio = row.peak / max(shortest.peak, 1)
        verdict = "reached" if ratio <= MOST else "**missed**"
        lines.append(
            f"| {row.frames} | {CHUNKS[row.chunk]} | {row.working / MIB:.1f} MiB | {row.answer / MIB:.1f} MiB | "
            f"{row.working / max(shortest.working, 1):.2f} | {ratio:.2f} | {verdict if row is not shortest else ''} |"
        )
    least, most = rows[0], max(rows, key=lambda row: row.frames)
    growth = (most.working - least.working) / max(most.answer - least.answer, 1)
    lines += [
        "",
        f"Only the video itself grows: from {least.frames} to {most.frames} frames, memory grows by {growth:.1f} bytes "
        "per byte of the result (the result, its noise, and the input of the last round).",
    ]
    return "\n".join(lines) + "\n"
