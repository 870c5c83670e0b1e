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
from microcinema_core.metrics.protocol import run_record
from microcinema_core.metrics.protocol.centres import CENTRES, PICTURE_SUFFIXES
from microcinema_core.metrics.protocol.prompts import Prompt as Sample
from microcinema_core.metrics.protocol.sample import write_video

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
        texts: inputs that hold the prompt.
        seeds: inputs that hold seeds, with the number of each in the whole workflow.
        picture: the input that takes the centre frame's name; None without given centre frames.
        kind: what it makes, "picture" or "video".
    """

    prompt: Prompt
    save: str
    texts: Sequence[Place]
    seeds: Mapping[Place, int]
    picture: Place | None
    kind: str

    def filled(self, text: str, seed: int, picture: str = "", name: str = "") -> Prompt:
        """Return the prompt of one sample.

        Args:
            text: its prompt.
            seed: of the workflow's first sampling node; the others' are SEED_STRIDE apart.
            picture: name of its centre frame in ComfyUI's input folder.
            name: what its file is called in ComfyUI's output folder. A name of its own for each run keeps ComfyUI from
                taking the saving node for done, which then reports no file.
        """
        made = copy.deepcopy(self.prompt)
        for key, field in self.texts:
            made[key]["inputs"][field] = text
        for (key, field), number in self.seeds.items():
            made[key]["inputs"][field] = (seed + number * SEED_STRIDE) % 2**64
        if self.picture is not None:
            made[self.picture[0]]["inputs"][self.picture[1]] = picture
        if isinstance(made[self.save]["inputs"].get("filename_prefix"), str):
            made[self.save]["inputs"]["filename_prefix"] = f"{FOLDER}/{name}"
        return made

    def digest(self) -> str:
        """Return a short hash of all that the samples have in common; titles are not part of it."""
        seeds = [[*place, number] for place, number in self.seeds.items()]
        nodes = {key: [node["class_type"], node["inputs"]] for key, node in self.filled("", 0).items()}
        return run_record.digest([nodes, self.save, self.texts, seeds, self.picture])


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
        self.command = uuid.uuid4().hex[:8]
        """Part of the names of uploaded pictures: other commands may use the same ComfyUI."""

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
        return any(path.exists() for path in drawn(self.out, sample))

    def make(self, sample: Sample) -> None:
        """Run the workflow for one sample and write what it saved.

        Raises:
            HostError: the run failed.
            Problem: it saved something else than expected.
        """
        picture = ""
        if self.graph.picture is not None:
            file = self.centres[sample.stem]
            picture = self.client.upload(file, FOLDER, f"{sample.stem}-{self.command}{file.suffix}")
        text = self.texts.get(sample.stem, sample.text)
        name = f"{sample.stem}-{uuid.uuid4().hex[:8]}"
        prompt = self.graph.filled(text, sample.seed, picture, name)
        try:
            outputs = self.client.run(prompt, timeout=24 * 3600).get(self.graph.save, {})
        except HostError as error:
            raise HostError(f"{sample.file_name}: {error} Run the same command again to continue.") from error
        files = saved_files(outputs)
        if not files:
            raise Problem(f"{title_of(prompt, self.graph.save)!r} saved no file for {sample.file_name}.")
        self.write(sample, files)
        self.forget(files)

    def write(self, sample: Sample, files: Sequence[Mapping[str, Any]]) -> None:
        """Write the files of one run under the sample's name."""
        suffix = Path(str(files[0]["filename"])).suffix.lower()
        target = self.out / sample.file_name
        if self.graph.kind == "picture":
            _expect(suffix, PICTURE_SUFFIXES, "pictures")
            self.write_picture(self.out / CENTRES / f"{sample.stem}{suffix}", files)
        elif suffix in PICTURE_SUFFIXES:
            pictures = [one for file in files for one in frames_of(self.client.view(file))]
            _expect_frames(len(pictures))
            write_video(target, _stacked(pictures), self.fps)
            self.tell(measure(target))
        else:
            _expect(suffix, (target.suffix,), "videos")
            with atomic_write(target, suffix=suffix) as part:
                part.write_bytes(self.client.view(files[-1]))
                found = measured(part)
                _expect_frames(found["frames"])
            self.tell(found)

    def write_picture(self, target: Path, files: Sequence[Mapping[str, Any]]) -> None:
        """Write the one picture of a run.

        Raises:
            Problem: there are several, in as many files or in one.
        """
        content = self.client.view(files[0])
        count = len(files) if len(files) > 1 else len(frames_of(content))
        if count > 1:
            raise Problem(f"{count} pictures were saved for one prompt: --kind video makes a video of them.")
        with atomic_write(target) as part:
            part.write_bytes(content)

    def tell(self, found: Mapping[str, Any]) -> None:
        """Say of the first video what it is like."""
        if not self.measured:
            self.measured = True
            say(f"The first video: {'{frames} frames of {width}x{height} at {fps:g} fps'.format(**found)}")

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


def drawn(out: Path, sample: Sample) -> list[Path]:
    """Return where the centre frame of a sample may be."""
    return [out / CENTRES / f"{sample.stem}{suffix}" for suffix in PICTURE_SUFFIXES]


def _expect_frames(count: int) -> None:
    if count < 2:
        raise Problem(
            "The workflow saves one frame, and a video has at least two: --kind picture keeps it as a picture."
        )


def measured(video: Path) -> dict[str, Any]:
    """Return what `measure` does.

    Raises:
        Problem: the file cannot be read.
    """
    try:
        return measure(video)
    except (OSError, ValueError, LookupError) as error:  # PyAV's errors are of these kinds
        raise Problem(f"The video that the workflow saved cannot be read: {error}.") from error


def frames_of(file: bytes) -> list[Any]:
    """Return the frames `h w 3` (uint8) of a picture file: one, or those of an animated WebP or PNG.

    Raises:
        Problem: it cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageSequence

    try:
        with Image.open(io.BytesIO(file)) as picture:
            return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's for a broken PNG
        raise Problem("A picture that the workflow saved cannot be read.") from error


def _stacked(frames: Sequence[Any]) -> Any:
    """Return frames `h w 3` (uint8) as `f 3 h w` in [-1, 1].

    Raises:
        Problem: they differ in size.
    """
    import numpy as np
    import torch

    if len({frame.shape for frame in frames}) > 1:
        raise Problem("The pictures of one video differ in size.")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 127.5 - 1
