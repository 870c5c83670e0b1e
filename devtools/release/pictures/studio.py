"""The shipped models, ready to sample: in this process, and in a ComfyUI that starts at its first use."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import TracebackType

from PIL import Image

from mini.evaluate.evaluation_context import EvaluationContext

from ...run import demo, edit
from ...run.home import ROOT
from ...run.host import find_host
from ...run.server import ComfyServer
from ...run.upscaler import fetch_upscaler
from ...run.workflow import Prompt
from .. import thumbnails

WEIGHTS = ROOT / "weights"
SHOW_VIDEO = ("MicroCinemaFrameCombine", "SaveVideo")


@dataclass(eq=False)
class Studio:
    """Makes clips and pictures with the settings of the shipped workflows and of the evaluation.

    Attributes:
        steps: Sampling steps of every sampler, for a draft; None for the settings' own.
    """

    steps: int | None = None
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    @cached_property
    def context(self) -> EvaluationContext:
        """The models without a host, and the prepared emoji."""
        image, base, tsr = (WEIGHTS / f"mini_{role}.safetensors" for role in ("image", "base", "tsr"))
        context = EvaluationContext(image, base, tsr)
        if self.steps:
            context.base_settings = replace(context.base_settings, steps=self.steps)
            context.tsr_settings = replace(context.tsr_settings, steps=self.steps)
        return context

    @cached_property
    def server(self) -> ComfyServer:
        """A running ComfyUI with this pack."""
        fetch_upscaler()  # first: a host looks for model folders when it starts
        return self._open.enter_context(ComfyServer(sys.executable, find_host()))

    def video(
        self,
        *,
        prompt: str | None = None,
        seed: int | None = None,
        picture: Image.Image | None = None,
        rounds: int = 1,
        upscale: bool = False,
    ) -> list[Image.Image]:
        """Return the frames that the demo makes with these options; prompt and seed default to the workflow's."""
        file = None
        if picture:
            file = self.server.base / "picture.png"
            picture.save(file)
        return thumbnails.run(
            self.server, self._prompt(prompt, seed, image=file, rounds=rounds, upscale=upscale)
        )

    def centre_frame(self, prompt: str, seed: int) -> Image.Image:
        """Return the text workflow's preview: the picture that it then animates."""
        graph = self._prompt(prompt, seed, image=None, rounds=0, upscale=False)
        graph = {key: node for key, node in graph.items() if node["class_type"] not in SHOW_VIDEO}
        edit.prune(graph, self.server.object_info())
        (output,) = self.server.run(graph).values()
        (file,) = output["images"]
        with Image.open(self.server.base / "temp" / file["subfolder"] / file["filename"]) as image:
            return image.convert("RGB")

    def thumbnail(self, name: str) -> Image.Image:
        """Return the thumbnail of a shipped workflow."""
        picture: Image.Image = thumbnails.thumbnail(self.server, name)
        return picture

    def _prompt(self, prompt: str | None, seed: int | None, **options: object) -> Prompt:
        return demo.build_prompt(
            self.server, Namespace(prompt=prompt, seed=seed, steps=self.steps, **options)
        )
