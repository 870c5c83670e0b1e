"""Time of the mini cascade by stage, from prompt to 129 frames, with the shipped weights and workflow."""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from devtools.run.home import ROOT

from .timing import seconds

WORKFLOW = ROOT / "workflows" / "api" / "11 Text to video (mini).json"
SIDE = 16
"""Side of the latents, for pictures of 128 pixels."""
TSR_1, TSR_2 = "TSR, 9 to 33 frames", "TSR, 33 to 129 frames"


@dataclass(frozen=True)
class Settings:
    """The workflow's settings: (steps, guidance, sampler, scheduler) by stage, and the priors."""

    image: tuple[int, float, str, str]
    base: tuple[int, float, str, str]
    tsr: tuple[int, float, str, str]
    base_prior: dict[str, Any]
    tsr_prior: dict[str, Any]


def settings_of(steps: int = 0) -> Settings:
    """Read the shipped workflow's settings; steps > 0 replaces the number of steps of every stage."""
    nodes = json.loads(WORKFLOW.read_text(encoding="utf-8")).values()
    inputs = {node["class_type"]: node["inputs"] for node in nodes}

    def of(kind: str) -> tuple[int, float, str, str]:
        given = inputs[kind]
        return steps or given["steps"], given["cfg"], given["sampler_name"], given["scheduler"]

    def prior(kind: str) -> dict[str, Any]:
        return {"lambda_": inputs[kind]["lambda"], "gamma": inputs[kind]["gamma"]}

    base, tsr = "MicroCinemaSampler", "MicroCinemaTSR"
    return Settings(of("KSampler"), of(base), of(tsr), prior(base), prior(tsr))


def run(settings: Settings, *, prompt: str = "a horse galloping") -> Callable[[], dict[str, float]]:
    """Load the three files; return a function that runs the cascade once and returns seconds by stage."""
    import comfy.utils  # type: ignore[import-not-found]

    from microcinema_core import adapter

    comfy.utils.set_progress_bar_enabled(False)
    host: Any = importlib.import_module("nodes")  # the host's, not the pack's
    image, base, tsr = (
        adapter.load_checkpoint(ROOT / "weights" / f"mini_{name}.safetensors")
        for name in ("image", "base", "tsr")
    )
    device = base.model.load_device.type

    def once() -> dict[str, float]:
        took: dict[str, float] = {}

        def stage(name: str, call: Callable[[], Any]) -> Any:
            made: list[Any] = []
            took[name] = seconds(lambda: made.append(call()), device)
            return made[0]

        def sampler(given: tuple[int, float, str, str]) -> Any:
            positive, negative = texts
            return adapter.SamplerSettings(positive, negative, 0, *given)

        def more(frames: Any) -> Any:
            return adapter.interpolate_video(
                tsr.model, tsr.appearnet, frames, sampler(settings.tsr), rounds=1, **settings.tsr_prior
            )

        with torch.inference_mode():
            encode = host.CLIPTextEncode().encode
            texts = stage("text", lambda: [encode(image.clip, text)[0] for text in (prompt, "")])
            empty = {"samples": torch.zeros(1, 8, SIDE, SIDE)}
            steps, cfg, name, scheduler = settings.image
            centre = stage(
                "centre frame",
                lambda: host.KSampler().sample(image.model, 1, steps, cfg, name, scheduler, *texts, empty)[0],
            )
            picture = stage("centre frame decoded", lambda: host.VAEDecode().decode(image.vae, centre)[0])
            centre = stage("centre frame encoded", lambda: host.VAEEncode().encode(image.vae, picture)[0])
            video = stage(
                "key frames",
                lambda: adapter.sample_video(
                    base.model,
                    base.appearnet,
                    centre,
                    sampler(settings.base),
                    frames=9,
                    **settings.base_prior,
                )[0],
            )
            video = stage(TSR_1, lambda: more(video))
            video = stage(TSR_2, lambda: more(video))
            stage("129 frames decoded", lambda: host.VAEDecode().decode(image.vae, video)[0])
        return took

    return once


def table(*, rounds: int, steps: int = 0) -> str:
    """Median seconds by stage over the rounds, after one warm-up run, as Markdown."""
    once = run(settings_of(steps))
    once()
    seen = [once() for _ in range(rounds)]
    medians = {name: statistics.median(one[name] for one in seen) for name in seen[0]}
    whole = sum(medians.values())
    lines = [
        f"The workflow *Text to video (mini)* at 128 pixels, with the files already loaded; median of {rounds} runs. "
        "The row `centre frame encoded` is needed only when the centre frame is a given picture.",
        "",
        "| stage | seconds [range] | share |",
        "|---|---|---|",
    ]
    for name, median in medians.items():
        values = [one[name] for one in seen]
        lines.append(
            f"| {name} | {median:.2f} [{min(values):.2f}, {max(values):.2f}] | {median / whole:.0%} |"
        )
    return "\n".join([*lines, f"| total | {whole:.2f} | |"]) + "\n"
