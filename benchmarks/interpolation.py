"""Memory of temporal super-resolution as the video grows, by the mini model and the node's own path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from devtools.run.home import ROOT
from microcinema_core.diffusion.tsr import frames_after

from .timing import working

VIDEOS = {33: (9, 1), 129: (9, 2), 2001: (126, 2)}
"""Frames asked for: key frames and rounds that make them. Two thousand is one short of a whole number of pairs."""
CHUNKS = {0: "the host's choice", 2: "2 pairs"}
SIDE, STEPS, MOST = 16, 2, 1.10
MIB = 2**20


@dataclass(frozen=True)
class Interpolated:
    """Most bytes that a video of so many frames took beside the weights; `answer`: its latents, a part of that."""

    frames: int
    chunk: int
    working: int
    answer: int
    weights: int

    @property
    def peak(self) -> int:
        return self.working + self.weights


def measure(
    videos: dict[int, tuple[int, int]] = VIDEOS, *, side: int = SIDE, steps: int = STEPS
) -> list[Interpolated]:
    """One row for each chunk and video, the first video of a chunk made once before."""
    from microcinema_core import adapter

    tsr = adapter.load_checkpoint(ROOT / "weights" / "mini_tsr.safetensors")
    config: Any = tsr.model.model.info.config
    text = [[torch.randn(1, 77, config.context_dim), {}]]
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
    """Each beside the shortest video of its chunk."""
    first = {row.chunk: row for row in reversed(rows)}
    lines = [
        f"The mini model ({rows[0].weights / MIB:.0f} MiB of weights), latents of {SIDE}x{SIDE}, {STEPS} steps. "
        f"Target: at most {MOST:.2f} of the shortest video's peak.",
        "",
        "| frames | pairs at once | working memory | its answer's share | of the shortest | with weights | target |",
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
        f"What grows is the video itself: from {least.frames} to {most.frames} frames {growth:.1f} bytes for each byte "
        "of answer, which are the answer, its noise, and the round before.",
    ]
    return "\n".join(lines) + "\n"
