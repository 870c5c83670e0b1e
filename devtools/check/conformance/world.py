"""The models to compare, and the rest of a graph: texts, pictures, and the stock samplers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import TextConfig
from microcinema_core.files.checkpoint import Checkpoint
from microcinema_core.model_spec import ModelSpec

from .models import Family, write_files
from .motion import motion_models, picture, with_sampling_of

FRAMES, STEPS, CFG, SEED = 3, 4, 4.0, 7
PRIOR: dict[str, Any] = {"lambda_": 0.05, "gamma": 0.05}
TOKENS = 16
"""Fewer than the 77 of a real prompt, because the models run thousands of times."""


class NoInputError(Exception):
    """Nothing that works with Stable Diffusion fits an input of a node, or takes its output."""


class UnlistedError(NoInputError):
    """A node needs an input that the bench cannot make and that is not listed: a developer has to decide."""


@dataclass
class World:
    """The models of one family and the rest of a graph.

    Attributes:
        models: the host's models folder.
        stock, ours: the same weights, by the host's loader and by ours.
        random: `ours` with an AppearNet of random weights and the noise prior, and with random motion weights.
        other: a stock model with other weights, to merge with.
        nodes: the host's node classes by id.
        model: the model of the current run.
        node_steps: Sampling steps, unless a case sets its own.
        steps: the denoised latents of each step of the current run.
        made: what each case gave with `random`, by name.
        plains: results of the host's own model without a node, by number of steps.
    """

    family: Family
    models: Path
    stock: Any
    ours: Any
    random: Any
    other: Any
    clip: Any
    vae: Any
    nodes: dict[str, Any]
    model: Any = None
    node_steps: int = STEPS
    steps: list[Tensor] = field(default_factory=list)
    made: dict[str, Tensor] = field(default_factory=dict)
    plains: dict[int, Tensor] = field(default_factory=dict)

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the decoded pictures."""
        height, width = self.family.size
        return 8 * height, 8 * width

    def text(self, seed: int, tokens: int = TOKENS) -> Any:
        """Return a CONDITIONING of random tokens."""
        width = self.family.config.context_dim
        generator = torch.Generator().manual_seed(seed)
        context = torch.randn(1, tokens, width, generator=generator)
        return [[context, {"pooled_output": torch.randn(1, width, generator=generator)}]]

    def latent(self, frames: int = FRAMES, fill: float = 0.0) -> dict[str, Tensor]:
        """Return a LATENT of one clip: zeros, or noise with standard deviation `fill`."""
        noise = torch.randn(frames, 4, *self.family.size, generator=torch.Generator().manual_seed(17))
        return {"samples": fill * noise}

    def image(self, frames: int = FRAMES, seed: int = 8) -> Tensor:
        """Return a random IMAGE of the latents' size."""
        height, width = self.pixels
        return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))

    def mask(self) -> Tensor:
        """Return a MASK of the left half with a soft edge."""
        height, width = self.pixels
        return torch.linspace(1.5, -0.5, width).clamp(0, 1).expand(1, height, width).clone()

    def call(self, node: str, **inputs: Any) -> tuple[Any, ...]:
        """Run one of the host's nodes (see `call`)."""
        return call(self.nodes[node], inputs)

    def ksampler(self, model: Any = None, **changes: Any) -> Tensor:
        """Sample with the stock KSampler; `changes` replace its inputs."""
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
        """Return the SIGMAS of the stock scheduler."""
        model = self.model if model is None else model
        return self.call(
            "BasicScheduler", model=model, scheduler="normal", steps=self.node_steps, denoise=1.0
        )[0]

    def custom(
        self, guider: Any = None, sampler: Any = None, sigmas: Any = None, noise: Any = None
    ) -> Tensor:
        """Sample with SamplerCustomAdvanced."""
        inputs = {
            "noise": self.call("RandomNoise", noise_seed=SEED)[0] if noise is None else noise,
            "guider": self.guider() if guider is None else guider,
            "sampler": self.call("KSamplerSelect", sampler_name="euler")[0] if sampler is None else sampler,
            "sigmas": self.sigmas() if sigmas is None else sigmas,
            "latent_image": self.latent(),
        }
        return self.call("SamplerCustomAdvanced", **inputs)[0]["samples"]

    def guider(self) -> Any:
        """Return the plain GUIDER."""
        inputs = {"positive": self.text(1), "negative": self.text(2), "cfg": CFG}
        return self.call("CFGGuider", model=self.model, **inputs)[0]

    def plain(self, steps: int) -> Tensor:
        """Return the result of the host's own model without a node; computed once for each number of steps."""
        if steps not in self.plains:
            with self.using(self.stock):
                self.plains[steps] = self.ksampler(steps=steps)
        return self.plains[steps]

    def with_centre_frame(self, centre_frame: dict[str, Tensor]) -> Any:
        """Return the current model with another centre frame (LATENT), or as it is where it has none."""
        from microcinema_core.adapter import override_prior
        from microcinema_core.adapter.model import ATTACHMENT

        appearance = self.model.get_attachment(ATTACHMENT)
        if appearance is None:
            return self.model
        prior = {"lambda_": appearance.lambda_, "gamma": appearance.gamma}
        return override_prior(self.model, **prior, centre_frame=centre_frame)

    def as_stock(self, model: Any) -> Any:
        """Return a MODEL from the host's loader as `stock` is: with the noise schedule of the motion weights."""
        return model if self.family.motion is None else with_sampling_of(self.ours, model)

    @contextmanager
    def using(self, model: Any) -> Iterator[None]:
        """Make `model` the current one, reset the random state, and record each step in `steps`."""
        import latent_preview

        prepare = latent_preview.prepare_callback
        self.model, self.steps = model, []

        def recorded(model: Any, steps: int, x0_output_dict: Any = None) -> Any:
            inner = prepare(model, steps, x0_output_dict)

            def callback(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
                self.steps.append(x0.detach().clone())
                inner(step, x0, x, total_steps)

            return callback

        latent_preview.prepare_callback = recorded
        torch.manual_seed(0)
        try:
            with torch.inference_mode():
                yield
        finally:
            latent_preview.prepare_callback = prepare


def call(node: Any, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Run a node class, of the old or the new kind, and return its outputs."""
    if hasattr(node, "define_schema"):
        result = node.execute(**inputs)
        return tuple(result.args) if hasattr(result, "args") else tuple(result or ())
    instance = node()
    result = getattr(instance, node.FUNCTION)(**inputs)
    if isinstance(result, dict):
        result = result.get("result", ())
    return tuple(result or ())


def build(family: Family, models: Path, nodes: dict[str, Any]) -> World:
    """Write a family's files to the folder `models` and load its U-Net by the host's loader and by ours."""
    write_files(models, family)

    def stock(name: str) -> Any:
        import comfy.sd

        path = str(models / "checkpoints" / f"{name}.safetensors")
        return comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]

    image = stock("small")
    if family.motion is None:
        ours, random = _inflated(models / "checkpoints" / "small.safetensors", family)
    else:
        ours, random = motion_models(image, family, models, PRIOR)
        image = with_sampling_of(ours, image)
    return World(
        family=family,
        models=models,
        stock=image,
        ours=ours,
        random=random,
        other=stock("other"),
        clip=_clip(family),
        vae=_vae(),
        nodes=nodes,
    )


def _inflated(path: Path, family: Family) -> tuple[Any, Any]:
    """Return a file's inflated MODEL, and the same with random weights in AppearNet."""
    from microcinema_core.adapter import inflate_checkpoint

    loaded = inflate_checkpoint(path, injection="spade", temporal_layout="paper")
    return loaded.model, _add_appearance(loaded, family)


def _add_appearance(ours: Any, family: Family) -> Any:
    """Return the inflated MODEL with a centre frame and random weights in AppearNet (initially zero)."""
    from microcinema_core.adapter import apply_appearance

    net = ours.appearnet.patcher.model
    net.load_state_dict({key: 0.3 * value for key, value in tiny.random_weights(net, 11).items()})
    return apply_appearance(ours.model, ours.appearnet, picture(family), **PRIOR)


def _clip(family: Family) -> Any:
    """Return a text encoder of the U-Net's width, with Stable Diffusion's tokeniser."""
    from microcinema_core.adapter.encoders import build_clip

    config = TextConfig(width=family.config.context_dim, layers=1, heads=8)
    parts = {"text": tiny.text_weights(config)}
    return build_clip(Checkpoint(parts, ModelSpec("image"), {"text": config.to_dict()}, name="bench"))


def _vae() -> Any:
    """Return the host's smallest VAE for Stable Diffusion's latents, with random weights."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    net = tiny.random_weights(TAESD(latent_channels=4), 9)
    return comfy.sd.VAE(sd=dict(net))
