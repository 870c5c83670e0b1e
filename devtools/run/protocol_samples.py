"""Run a workflow once for each sample of a prompt list, and keep what it saves."""

from __future__ import annotations

import copy
import io
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microcinema_core.files.atomic import atomic_write
from microcinema_core.metrics.protocol.prompts import Prompt as Sample
from microcinema_core.metrics.protocol.sample import CENTRES, PICTURE_SUFFIXES, write_video

from .client import ComfyClient, HostError
from .demo import measure
from .home import Problem, say
from .prompt_inputs import Place, title_of
from .server import ComfyServer
from .workflow import Prompt

FOLDER = "microcinema_protocol"
"""Folder of these files in ComfyUI's input and output."""
SEED_STRIDE = 1 << 40
"""Between the seeds of a graph's sampling nodes, so that they meet no seed of another sample."""


@dataclass(frozen=True)
class Graph:
    """A workflow, and where a sample's values go.

    Attributes:
        prompt: the nodes that the saving node depends on, and itself.
        save: the saving node.
        texts, seeds: inputs that hold the prompt, and the seeds.
        picture: the input that takes the centre frame's name; None without given centre frames.
        kind: what it makes, "picture" or "video".
    """

    prompt: Prompt
    save: str
    texts: Sequence[Place]
    seeds: Sequence[Place]
    picture: Place | None
    kind: str

    def filled(self, text: str, seed: int, picture: str = "", name: str = "") -> Prompt:
        """Return the prompt of one sample.

        Args:
            text: its prompt.
            seed: of the first sampling node; the others' are SEED_STRIDE apart.
            picture: name of its centre frame in ComfyUI's input folder.
            name: what its file is called in ComfyUI's output folder. A name of its own for each run keeps ComfyUI from
                taking the saving node for done, which then reports no file.
        """
        made = copy.deepcopy(self.prompt)
        for key, field in self.texts:
            made[key]["inputs"][field] = text
        for number, (key, field) in enumerate(self.seeds):
            made[key]["inputs"][field] = (seed + number * SEED_STRIDE) % 2**64
        if self.picture is not None:
            made[self.picture[0]]["inputs"][self.picture[1]] = picture
        if isinstance(made[self.save]["inputs"].get("filename_prefix"), str):
            made[self.save]["inputs"]["filename_prefix"] = f"{FOLDER}/{name}"
        return made


class Maker:
    """Runs a graph once for each sample."""

    def __init__(
        self,
        client: ComfyClient,
        graph: Graph,
        out: Path,
        fps: float,
        centres: Mapping[str, Path],
        texts: Mapping[str, str],
    ) -> None:
        self.client, self.graph, self.out, self.fps = client, graph, out, fps
        self.centres, self.texts = centres, texts
        self.measured = False

    def make_all(self, samples: Sequence[Sample]) -> int:
        """Make the samples that are missing and return how many are there."""
        from tqdm import tqdm

        pending = [one for one in samples if not self.made(one)]
        say(f"{len(samples) - len(pending)} of {len(samples)} are there already")
        for one in tqdm(pending, desc=f"{self.graph.kind}s", disable=not sys.stderr.isatty()):
            self.make(one)
        return len(samples)

    def made(self, sample: Sample) -> bool:
        """Return whether a sample's file is there."""
        if self.graph.kind == "video":
            return (self.out / sample.file_name).exists()
        return any((self.out / CENTRES / f"{sample.stem}{suffix}").exists() for suffix in PICTURE_SUFFIXES)

    def make(self, sample: Sample) -> None:
        """Run the workflow for one sample and write what it saved.

        Raises:
            HostError: the run failed.
            Problem: it saved something else than expected.
        """
        picture = ""
        if self.graph.picture is not None:
            picture = self.client.upload(self.centres[sample.stem], FOLDER)
        text = self.texts.get(sample.stem, sample.text)
        name = f"{sample.stem}-{uuid.uuid4().hex[:8]}"
        prompt = self.graph.filled(text, sample.seed, picture, name)
        try:
            outputs = self.client.run(prompt, timeout=24 * 3600).get(self.graph.save, {})
        except HostError as error:
            raise HostError(f"{sample.file_name}: {error} The same command continues from there.") from error
        files = saved_files(outputs)
        if not files:
            raise Problem(f"{title_of(prompt, self.graph.save)!r} saved no file for {sample.file_name}.")
        self.write(sample, files)
        self.forget(files)

    def write(self, sample: Sample, files: Sequence[Mapping[str, Any]]) -> None:
        """Write the files of one run under the sample's name."""
        suffix = Path(str(files[0]["filename"])).suffix.lower()
        if self.graph.kind == "picture":
            if len(files) > 1:
                raise Problem(
                    f"{len(files)} pictures were saved for one prompt: --kind video makes a video of them."
                )
            _expect(suffix, PICTURE_SUFFIXES, "pictures")
            target = self.out / CENTRES / f"{sample.stem}{suffix}"
        else:
            target = self.out / sample.file_name
            if suffix in PICTURE_SUFFIXES:
                write_video(target, _pictures([self.client.view(file) for file in files]), self.fps)
                self.tell(target)
                return
            _expect(suffix, (target.suffix,), "videos")
        with atomic_write(target) as part:
            part.write_bytes(self.client.view(files[-1]))
        self.tell(target)

    def tell(self, target: Path) -> None:
        """Say of the first video what it is like."""
        if self.graph.kind == "video" and not self.measured:
            self.measured = True
            say(
                f"The first video: {'{frames} frames of {width}x{height} at {fps:g} fps'.format(**measure(target))}"
            )

    def forget(self, files: Sequence[Mapping[str, Any]]) -> None:
        """Remove the files of a run from a ComfyUI that was started for this."""
        if isinstance(self.client, ComfyServer):
            for file in files:
                (self.client.output_dir / str(file["subfolder"]) / str(file["filename"])).unlink(
                    missing_ok=True
                )


def _expect(suffix: str, fitting: Sequence[str], what: str) -> None:
    if suffix not in fitting:
        raise Problem(
            f"The workflow saves {suffix or 'files without ending'}; {what} are {' or '.join(fitting)}."
        )


def saved_files(outputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the files that a node saved to the output folder."""
    return [
        file
        for files in outputs.values()
        if isinstance(files, list)
        for file in files
        if isinstance(file, dict) and file.get("type") == "output"
    ]


def _pictures(files: Sequence[bytes]) -> Any:
    """Return pictures as `f 3 h w` in [-1, 1].

    Raises:
        Problem: they differ in size.
    """
    import numpy as np
    import torch
    from PIL import Image

    frames = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    if len({frame.shape for frame in frames}) > 1:
        raise Problem("The pictures of one video differ in size.")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 127.5 - 1
