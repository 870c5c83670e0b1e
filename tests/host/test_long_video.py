"""TSR on a video file: the frames of one run over all of them, flat memory, a file that is whole or absent."""

from __future__ import annotations

import contextlib
import io
import weakref
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from devtools.run.server import ComfyServer
from microcinema_core.diffusion import tsr
from microcinema_core.frames.video_file import TimedFrame, VideoReader, open_video
from microcinema_core.frames.video_writer import VideoWriter
from microcinema_core.model_spec import WindowShape
from tests.host.test_bad_input import files, node, slow_motion  # noqa: F401  (a fixture)
from tests.host.tiny_family import settings


def write_film(
    path: Path,
    count: int,
    *,
    side: int = 64,
    rate: int = 8,
    sound: str = "",
    times: Any = None,
    turned: bool = False,
) -> Path:
    """Write a film whose frames get lighter, with times in 1/600 seconds or at a rate, and a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=rate)
        video.width = video.height = side
        video.width += 16 * turned
        video.pix_fmt = "yuv420p"
        if times:
            video.codec_context.time_base = Fraction(1, 600)
        track = container.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(count):
            shade = np.full((side, side + 16 * turned, 3), 20 + 200 * number // count, np.uint8)
            shade[:, : side // 2, 0] = 255 - shade[0, 0, 0]
            frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 600)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None:
            samples = (np.sin(np.arange(44100 * count // rate) / 20) * 20000).astype(np.int16)[None]
            tone = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            tone.sample_rate, tone.pts = 44100, 0
            resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=44100)
            for part in [*resampler.resample(tone), *resampler.resample(None)]:
                container.mux(track.encode(part))
            container.mux(track.encode(None))
    return path


class Plain:
    """A stand-in for a VAE: latents are 8 channels of shades, an eighth as large."""

    def encode(self, pictures: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2), 8)
        return torch.cat([small, small, small[:, :2]], 1)

    def decode(self, latents: Tensor) -> Tensor:
        large = torch.nn.functional.interpolate(latents[:, :3], scale_factor=8)
        return large.permute(0, 2, 3, 1).clamp(0, 1)


def runner(family: Any, **changes: Any) -> Any:
    rounds = changes.pop("rounds", 1)
    run = settings(family, **{"steps": 1, "cfg": 1.0, **changes})
    return family.adapter.Interpolator(
        family.tsr.model, family.tsr.appearnet, run, rounds=rounds, gamma=0.02, chunk=1
    )


def keys_of(latents: Tensor) -> list[Any]:
    from microcinema_core.adapter.long_video import Key

    return [Key(Fraction(number, 8), one) for number, one in enumerate(latents)]


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from microcinema_core.adapter import long_video

    monkeypatch.setattr(long_video, "WINDOWS", 2)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("rounds", [1, 2])
def test_no_seam_is_seen(family: Any, short_parts: None, count: int, rounds: int) -> None:
    """Parts of two pairs, the last one of up to three: bit for bit the frames of one run."""
    latents = noise(count, 8, 8, 8)
    run = runner(family, rounds=rounds)
    with torch.inference_mode():
        whole = run(latents, run.progress(count))
        parts = list(long_video().interpolate_parts(run, keys_of(latents), run.progress(count)))
    assert torch.equal(torch.stack([key.latents for key in parts]), whole)
    assert [key.time for key in parts] == [
        Fraction(number, 8 * 4**rounds) for number in range((count - 1) * 4**rounds + 1)
    ]


@pytest.mark.parametrize("count", [4, 9, 10, 11, 13, 14, 16])
@pytest.mark.parametrize("rounds", [1, 2])
def test_no_seam_with_longer_windows_that_overlap_at_the_end(
    short_parts: None, count: int, rounds: int
) -> None:
    """SparseCtrl's windows of three pairs, with a sampler that mixes a window's frames."""
    shape = WindowShape(factor=5, pairs=3)

    def exact(w: tsr.Windows) -> Tensor:
        x = (w.appearance + 0.1 * w.noise).unflatten(0, (-1, w.frames))
        return (x + 0.01 * x.roll(1, 1)).flatten(0, 1)

    class Run:
        stride = 5**rounds
        settings = type("Settings", (), {"seed": 3, "positive": [], "negative": []})

        def __call__(self, keys: Tensor, progress: Any, **more: Any) -> Tensor:
            return tsr.interpolate(keys, exact, shape=shape, rounds=rounds, seed=3, **more)

    run: Any = Run()
    run.shape = shape
    latents = noise(count, 4, 4, 4)
    parts = list(long_video().interpolate_parts(run, keys_of(latents), None))
    whole = tsr.interpolate(latents, exact, shape=shape, rounds=rounds, seed=3)
    assert torch.equal(torch.stack([key.latents for key in parts]), whole)


def long_video() -> Any:
    from microcinema_core.adapter import long_video

    return long_video


def test_texts_for_single_frames_and_one_frame_are_refused(family: Any) -> None:
    many = [[noise(3, 77, 32), {}]]
    run = runner(family, positive=many)
    with pytest.raises(
        ValueError, match="positive has 3 texts, and MicroCinema Interpolate Long Video takes one"
    ):
        list(long_video().interpolate_parts(run, keys_of(noise(3, 8, 8, 8)), None))
    with pytest.raises(ValueError, match="video has 1 frame; at least 2"):
        list(long_video().interpolate_parts(runner(family), keys_of(noise(1, 8, 8, 8)), None))


@contextlib.contextmanager
def opened(
    source: Path, target: Path, factor: int, **window: float
) -> Iterator[tuple[VideoReader, VideoWriter]]:
    with (
        open_video(str(source), **window) as reader,
        VideoWriter(target, reader, factor, {"workflow": {"a": 1}}) as to,
    ):
        yield reader, to


def made(
    family: Any, source: Path, target: Path, *, rounds: int = 1, longer_side: int = 0, **window: float
) -> Path:
    run = runner(family, rounds=rounds)
    with torch.inference_mode(), opened(source, target, run.stride, **window) as (reader, writer):
        family.adapter.interpolate_file(run, Plain(), reader, writer, longer_side=longer_side)
    return target


def read(path: Path) -> tuple[np.ndarray, list[Fraction], dict[str, Any]]:
    """Return a file's frames, their times, and what it says of itself."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        said = {
            "rate": video.average_rate,
            "frames": video.frames,
            "seconds": float(video.duration * video.time_base),
            "sound": [
                (one.codec_context.name, float(one.duration * one.time_base))
                for one in container.streams.audio
            ],
            "metadata": container.metadata,
        }
        frames = list(container.decode(video))
    pictures = np.stack([one.to_ndarray(format="rgb24") for one in frames])
    return pictures, [one.pts * one.time_base for one in frames], said


@pytest.mark.parametrize(("rounds", "sound"), [(1, "aac"), (2, ""), (1, "mp3")])
def test_the_file(family: Any, tmp_path: Path, short_parts: None, rounds: int, sound: str) -> None:
    """All given frames with three or fifteen between, in the time of the given video, with its sound as it was."""
    source = write_film(tmp_path / "given.mp4", 9, sound=sound)
    frames, times, said = read(made(family, source, tmp_path / "made.mp4", rounds=rounds))
    factor = 4**rounds
    given, given_times, given_said = read(source)
    assert frames.shape == (8 * factor + 1, 64, 64, 3) and said["frames"] == len(frames)
    assert times[::factor] == given_times
    assert times == [Fraction(number, 8 * factor) for number in range(len(times))]
    np.testing.assert_allclose(frames[::factor].mean((1, 2)), given.mean((1, 2)), atol=4)
    assert abs(float(said["rate"]) - 8 * factor) < 0.01
    assert said["seconds"] == pytest.approx(len(frames) / (8 * factor), abs=2e-3)
    assert said["sound"] == [
        (name, pytest.approx(seconds, abs=0.03)) for name, seconds in given_said["sound"]
    ]
    assert said["metadata"]["workflow"] == '{"a": 1}'
    if sound:
        assert packets(source) == packets(tmp_path / "made.mp4"), "copied, not encoded again"


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_sound_that_mp4_does_not_have_becomes_aac(family: Any, tmp_path: Path) -> None:
    source = write_film(tmp_path / "given.avi", 9, sound="pcm_mulaw")
    _, _, said = read(made(family, source, tmp_path / "made.mp4"))
    ((name, seconds),) = said["sound"]
    assert name == "aac" and seconds == pytest.approx(9 / 8, abs=0.1)


def test_variable_frame_rates_keep_their_times(family: Any, tmp_path: Path, short_parts: None) -> None:
    given = [0, 20, 60, 61, 300, 301, 600]
    source = write_film(tmp_path / "given.mp4", 7, times=given)
    _, times, _ = read(made(family, source, tmp_path / "made.mp4"))
    assert times[::4] == [Fraction(time, 600) for time in given]
    assert all(after > before for before, after in pairwise(times))
    assert times[17] == Fraction(4 * 300 + 1, 2400)


def test_a_part_of_a_video_and_its_sound(family: Any, tmp_path: Path) -> None:
    source = write_film(tmp_path / "given.mp4", 24, sound="aac")
    frames, times, said = read(made(family, source, tmp_path / "made.mp4", start=1.0, duration=1.0))
    whole, _, _ = read(source)
    assert len(frames) == 4 * 7 + 1 and times[0] == 0 and float(times[-1]) == pytest.approx(7 / 8)
    np.testing.assert_allclose(frames[::4].mean((1, 2)), whole[8:16].mean((1, 2)), atol=4)
    assert said["sound"][0][1] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("longer_side", "size"), [(0, (64, 80)), (40, (32, 40)), (102, (80, 104))])
def test_the_size_keeps_the_aspect_in_multiples_of_eight(
    family: Any, tmp_path: Path, longer_side: int, size: tuple[int, int]
) -> None:
    source = write_film(tmp_path / "given.mp4", 2, turned=True)
    frames, _, _ = read(made(family, source, tmp_path / "made.mp4", longer_side=longer_side))
    assert frames.shape[1:3] == size


def test_an_odd_size_is_rounded(family: Any, tmp_path: Path) -> None:
    source = write_film(tmp_path / "given.mp4", 2, side=66)
    frames, _, _ = read(made(family, source, tmp_path / "made.mp4"))
    assert frames.shape[1:3] == (64, 64)


def test_colours_come_out_as_they_went_in(tmp_path: Path) -> None:
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.7, 0.7, 0.1]])
    source = write_film(tmp_path / "given.mp4", 2)
    with opened(source, tmp_path / "made.mp4", 1) as (_, writer):
        for number, colour in enumerate(colours):
            writer.add_frame(TimedFrame(Fraction(number, 8), colour.expand(64, 64, 3)))
    with open_video(str(tmp_path / "made.mp4")) as reader:
        seen = torch.stack([frame.picture.mean((0, 1)) for frame in reader.frames(lambda packet: None)])
        assert reader.video.codec_context.colorspace == 1, "BT.709, and tagged so"
    assert_close(seen, colours, rtol=0, atol=0.02)


class Held:
    """Counts the pictures of a size that are alive at once, as anything makes them."""

    def __init__(self) -> None:
        self.alive = self.peak = 0

    def watch(self, picture: Tensor) -> Tensor:
        count = len(picture) if picture.ndim == 4 else 1
        self.alive += count
        self.peak = max(self.peak, self.alive)
        weakref.finalize(picture.untyped_storage(), self._gone, count)
        return picture

    def _gone(self, count: int) -> None:
        self.alive -= count


@pytest.mark.parametrize("rounds", [1, 2])
def test_memory_does_not_grow_with_the_length(
    family: Any, tmp_path: Path, short_parts: None, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    """Pictures that are alive at once, decoded frames and those of the VAE: as many for 36 frames as for 12."""
    from microcinema_core.frames import video_file

    upright = video_file._upright
    peaks = []
    for count in (12, 36):
        held, vae = Held(), Plain()
        source = write_film(tmp_path / f"{count}.mp4", count)
        run = runner(family, rounds=rounds)
        monkeypatch.setattr(video_file, "_upright", lambda frame, held=held: held.watch(upright(frame)))
        decode = vae.decode
        monkeypatch.setattr(
            vae, "decode", lambda z, held=held, decode=decode: held.watch(decode(z)), raising=False
        )
        with (
            torch.inference_mode(),
            opened(source, tmp_path / f"made {count}.mp4", run.stride) as (reader, writer),
        ):
            family.adapter.interpolate_file(run, vae, reader, writer)
        peaks.append(held.peak)
    assert peaks[0] == peaks[1] <= 3 * long_video().PICTURES, peaks


def prompt(source: str, **inputs: Any) -> dict[str, dict[str, Any]]:
    """Return a prompt that interpolates a file of the input folder."""
    graph = slow_motion()
    kept = ("image", "tsr", "positive", "negative")
    given = {
        **{key: value for key, value in graph["interpolation"]["inputs"].items() if key not in ("key_frames", "fps")},
        "video": ["video", 0], "vae": ["image", 2], "longer_side": 64, "filename_prefix": "long/made",
    }  # fmt: skip
    return {
        **{key: graph[key] for key in kept},
        "video": node("LoadVideo", file=source),
        "made": node("MicroCinemaInterpolateVideo", **(given | inputs)),
        "rate": node("PreviewAny", source=["made", 1]),
        "parts": node("GetVideoComponents", video=["made", 0]),
        "count": node("PreviewImage", images=["parts", 0]),
    }


def test_the_node_saves_shows_and_returns_the_video(host: ComfyServer, files: Path) -> None:  # noqa: F811
    write_film(host.input_dir / "film.mp4", 5, side=128, sound="aac")
    outputs = host.run(prompt("film.mp4"))
    (file,) = outputs["made"]["images"]
    assert (file["type"], file["subfolder"], file["filename"]) == ("output", "long", "made_00001_.mp4")
    frames, _, said = read(host.output_dir / file["subfolder"] / file["filename"])
    assert frames.shape == (17, 64, 64, 3) and len(said["sound"]) == 1
    assert outputs["rate"]["text"] == ["32.0"] and len(outputs["count"]["images"]) == 17
    (second,) = host.run(prompt("film.mp4", seed=2))["made"]["images"]
    assert second["filename"] == "made_00002_.mp4"


def test_a_video_that_was_made_of_frames(host: ComfyServer, files: Path) -> None:  # noqa: F811
    graph = prompt("")
    graph["pictures"] = node("EmptyImage", width=64, height=64, batch_size=3, color=255)
    graph["video"] = node("CreateVideo", images=["pictures", 0], fps=8.0)
    assert len(host.run(graph)["count"]["images"]) == 9


def test_a_file_that_is_no_video(host: ComfyServer, files: Path) -> None:  # noqa: F811
    (host.input_dir / "none.mp4").write_bytes(b"no video" * 100)
    said = host.run_expect_error(prompt("none.mp4"))
    assert "video cannot be opened" in said and "\n" not in said


def test_refusals_and_names(host: ComfyServer, files: Path) -> None:  # noqa: F811
    """A MODEL of another role and a tiny side, in the node's own name; %width% and %height% as in Save Video."""
    write_film(host.input_dir / "film.mp4", 2, turned=True)
    wrong = prompt("film.mp4", model=["base", 0]) | {"base": slow_motion()["base"]}
    assert "MicroCinema Interpolate Long Video expected one of role 'tsr'" in host.run_expect_error(wrong)
    said = host.run_expect_error(prompt("film.mp4", longer_side=8))
    assert "longer_side is 8 pixels" in said and "use 16 or more" in said
    (file,) = host.run(prompt("film.mp4", longer_side=40, filename_prefix="%width%x%height%/made"))["made"][
        "images"
    ]
    assert (file["subfolder"], file["filename"]) == ("40x32", "made_00001_.mp4")


def test_cancelling_leaves_no_file(host: ComfyServer, files: Path) -> None:  # noqa: F811
    import threading

    from devtools.run.client import Interrupted

    write_film(host.input_dir / "long.mp4", 200)
    started = threading.Event()

    def watch(event: str, data: dict[str, Any]) -> None:
        if event == "progress" and data.get("node") == "made" and data["value"] > 20:
            started.set()

    def cancel() -> None:
        started.wait(120)
        host.interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        host.run(prompt("long.mp4", filename_prefix="cancelled/made", rounds=2), on_event=watch)
    thread.join()
    assert started.is_set()
    folder = host.output_dir / "cancelled"
    assert folder.is_dir() and list(folder.rglob("*")) == []


def test_a_video_that_ends_early_is_used_up_to_there(tmp_path: Path) -> None:
    source = write_film(tmp_path / "given.mkv", 24, side=256)
    whole = source.read_bytes()
    with open_video(io.BytesIO(whole[: len(whole) * 2 // 3])) as reader:
        count = len(list(reader.frames(lambda packet: None)))
    assert 2 <= count < 24
