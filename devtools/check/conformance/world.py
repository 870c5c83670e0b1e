"""What a graph holds around the MODEL: two models to compare, texts, pictures, and the stock samplers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from devtools.check import tiny
from microcinema_core.files.checkpoint import Checkpoint
from microcinema_core.networks.text import TextConfig

from .families import Family
from .files import write_files

FRAMES, STEPS, CFG, SEED = 3, 4, 4.0, 7
PRIOR = {"lambda_": 0.05, "gamma": 0.05}
TOKENS = 16
"""Fewer than the 77 of a real prompt: the model is asked some thousand times."""


class NoInputError(Exception):
    """There is nothing on Stable Diffusion's side that could be connected to a node, or that takes what it gives."""


class UnlistedError(NoInputError):
    """A node asks for what the bench cannot make, and nobody has said why: somebody must look at it."""


@dataclass
class World:
    """One family's models and what goes with them.

    Attributes:
        stock, ours: the same weights, by the host's loader and by ours.
        appeared: ours, with an AppearNet of random weights and the noise prior.
        other: a stock model of other weights, to merge with.
        model: the one that runs now, for `node_steps` steps unless a case says otherwise.
    """

    family: Family
    models: Path
    stock: Any
    ours: Any
    appeared: Any
    other: Any
    clip: Any
    vae: Any
    nodes: dict[str, Any]
    model: Any = None
    node_steps: int = STEPS
    steps: list[Tensor] = field(default_factory=list)
    plains: dict[int, Tensor] = field(default_factory=dict)

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the pictures that the latents stand for."""
        height, width = self.family.size
        return 8 * height, 8 * width

    def text(self, seed: int, tokens: int = TOKENS) -> Any:
        """CONDITIONING of random tokens."""
        width = self.family.config.context_dim
        generator = torch.Generator().manual_seed(seed)
        context = torch.randn(1, tokens, width, generator=generator)
        return [[context, {"pooled_output": torch.randn(1, width, generator=generator)}]]

    def latent(self, frames: int = FRAMES, fill: float = 0.0) -> dict[str, Tensor]:
        """LATENT of one clip: empty, or pictures of the given spread."""
        noise = torch.randn(frames, 4, *self.family.size, generator=torch.Generator().manual_seed(17))
        return {"samples": fill * noise}

    def image(self, frames: int = FRAMES, seed: int = 8) -> Tensor:
        """IMAGE of the latents' size."""
        height, width = self.pixels
        return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))

    def mask(self) -> Tensor:
        """MASK: the left half, softly."""
        height, width = self.pixels
        return torch.linspace(1.5, -0.5, width).clamp(0, 1).expand(1, height, width).clone()

    def call(self, node: str, **inputs: Any) -> tuple[Any, ...]:
        """Run one of the host's nodes, of either generation."""
        return call(self.nodes[node], inputs)

    def ksampler(self, model: Any = None, **changes: Any) -> Tensor:
        """The stock KSampler."""
        inputs = {
            "model": self.model if model is None else model,
            "seed": SEED,
            "steps": self.node_steps,
            "cfg": CFG,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": self.text(1),
            "negative": self.text(2),
            "latent_image": self.latent(),
            "denoise": 1.0,
        } | changes
        return self.call("KSampler", **inputs)[0]["samples"]

    def sigmas(self, model: Any = None) -> Tensor:
        """SIGMAS of the stock scheduler."""
        model = self.model if model is None else model
        return self.call(
            "BasicScheduler", model=model, scheduler="normal", steps=self.node_steps, denoise=1.0
        )[0]

    def custom(
        self, guider: Any = None, sampler: Any = None, sigmas: Any = None, noise: Any = None
    ) -> Tensor:
        """SamplerCustomAdvanced."""
        inputs = {
            "noise": self.call("RandomNoise", noise_seed=SEED)[0] if noise is None else noise,
            "guider": self.guider() if guider is None else guider,
            "sampler": self.call("KSamplerSelect", sampler_name="euler")[0] if sampler is None else sampler,
            "sigmas": self.sigmas() if sigmas is None else sigmas,
            "latent_image": self.latent(),
        }
        return self.call("SamplerCustomAdvanced", **inputs)[0]["samples"]

    def guider(self) -> Any:
        """The plain GUIDER."""
        inputs = {"positive": self.text(1), "negative": self.text(2), "cfg": CFG}
        return self.call("CFGGuider", model=self.model, **inputs)[0]

    def plain(self, steps: int) -> Tensor:
        """What the host's own model gives with nothing put between; made once for each number of steps."""
        if steps not in self.plains:
            with self.using(self.stock):
                self.plains[steps] = self.ksampler(steps=steps)
        return self.plains[steps]

    def with_centre_frame(self, centre_frame: dict[str, Tensor]) -> Any:
        """`appeared` with another centre frame (LATENT)."""
        from microcinema_core.adapter import override_prior

        return override_prior(self.appeared, **PRIOR, centre_frame=centre_frame)

    @contextmanager
    def using(self, model: Any) -> Iterator[None]:
        """Make `model` the one that runs, from a known state, and watch what the sampler is told."""
        import latent_preview

        prepare = latent_preview.prepare_callback
        self.model, self.steps = model, []

        def watched(model: Any, steps: int, x0_output_dict: Any = None) -> Any:
            inner = prepare(model, steps, x0_output_dict)

            def callback(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
                self.steps.append(x0.detach().clone())
                inner(step, x0, x, total_steps)

            return callback

        latent_preview.prepare_callback = watched
        torch.manual_seed(0)
        try:
            with torch.inference_mode():
                yield
        finally:
            latent_preview.prepare_callback = prepare


def call(node: Any, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Run a node class and return its outputs."""
    if hasattr(node, "define_schema"):
        result = node.execute(**inputs)
        return tuple(result.args) if hasattr(result, "args") else tuple(result or ())
    instance = node()
    result = getattr(instance, node.FUNCTION)(**inputs)
    if isinstance(result, dict):
        result = result.get("result", ())
    return tuple(result or ())


def build(family: Family, models: Path, nodes: dict[str, Any]) -> World:
    """Write a family's files and load its U-Net by the host's loader and by ours."""
    from microcinema_core.adapter import inflate_checkpoint

    write_files(models, family)

    def stock(name: str) -> Any:
        import comfy.sd

        path = str(models / "checkpoints" / f"{name}.safetensors")
        return comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]

    small = models / "checkpoints" / "small.safetensors"
    ours = inflate_checkpoint(small, injection="spade", temporal_layout="paper")
    clip, vae = _clip(family), _vae()
    return World(
        family=family,
        models=models,
        stock=stock("small"),
        ours=ours.model,
        appeared=_appeared(ours, family),
        other=stock("other"),
        clip=clip,
        vae=vae,
        nodes=nodes,
    )


def _appeared(ours: Any, family: Family) -> Any:
    """The inflated MODEL with a centre frame, its AppearNet no longer the nothing that it is born as."""
    from microcinema_core.adapter import apply_appearance

    net = ours.appearnet.patcher.model
    net.load_state_dict({key: 0.3 * value for key, value in tiny.random_weights(net, 11).items()})
    latent = torch.randn(1, 4, *family.size, generator=torch.Generator().manual_seed(12))
    return apply_appearance(ours.model, ours.appearnet, {"samples": latent}, **PRIOR)


def _clip(family: Family) -> Any:
    """A text encoder of the U-Net's width, with Stable Diffusion's tokeniser."""
    from microcinema_core.adapter.encoders import build_clip

    config = TextConfig(width=family.config.context_dim, layers=1, heads=8)
    parts = {"text": tiny.text_weights(config)}
    return build_clip(Checkpoint(parts, "image", {"text": config.to_dict()}, 0.0, 1.0, 1, name="bench"))


def _vae() -> Any:
    """The host's smallest VAE with Stable Diffusion's latents, random."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    net = tiny.random_weights(TAESD(latent_channels=4), 9)
    return comfy.sd.VAE(sd=dict(net))


def clip_vision_output(family: Family) -> Any:
    """What a CLIP vision model gives."""
    import comfy.clip_vision

    width, generator = family.config.context_dim, torch.Generator().manual_seed(10)
    output = comfy.clip_vision.Output()
    output.image_embeds = torch.randn(1, width, generator=generator)
    output.last_hidden_state = torch.randn(1, 9, width, generator=generator)
    output.penultimate_hidden_states = torch.randn(1, 9, width, generator=generator)
    output.mm_projected = None
    return output
