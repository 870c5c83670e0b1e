"""What a long video can be made from: frames in memory, turned and joined files, any sound; and where it cannot go."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from microcinema_core.frames.video_file import TimedFrame, VideoSource, open_video
from microcinema_core.frames.video_of_frames import VideoOfFrames
from microcinema_core.frames.video_writer import VideoWriter
from tests.host.pack import imported
from tests.host.test_long_video import Plain, made, read, runner, write_film


@pytest.fixture(scope="module")
def pack(comfy_in_process: Path) -> Iterator[str]:
    """The name of the pack in this process."""
    with imported("long_video_pack") as module:
        yield module.__name__


def part_of(pack: str, name: str) -> Any:
    return importlib.import_module(f"{pack}.{name}")


def interpolated(family: Any, source: VideoSource, target: Path, **more: Any) -> Path:
    run = runner(family)
    with torch.inference_mode(), VideoWriter(target, source, run.stride, None) as writer:
        family.adapter.interpolate_file(run, more.pop("vae", Plain()), source, writer, **more)
    return target


def shades(count: int, height: int, width: int, channels: int) -> Tensor:
    frames = (
        torch.linspace(0.2, 0.8, count).reshape(-1, 1, 1, 1).expand(count, height, width, channels).clone()
    )
    if channels in (2, 4):
        frames[..., -1] = 1
    return frames


def tone(rate: int, channels: int, seconds: float = 1.0) -> dict[str, Any]:
    wave = torch.sin(torch.arange(int(rate * seconds)) / rate * 2000).expand(1, channels, -1) * 0.5
    return {"waveform": wave, "sample_rate": rate}


@pytest.mark.parametrize(
    ("size", "channels", "sound"),
    [((65, 67), 3, None), ((64, 64), 4, (44099, 2)), ((64, 64), 1, (48000, 6)), ((64, 64), 3, (192000, 1))],
)
def test_frames_in_memory(
    family: Any, tmp_path: Path, size: tuple[int, int], channels: int, sound: tuple[int, int] | None
) -> None:
    """Of any size, kind and sound: as many frames as of a file, with the sound cut where they end."""
    given = shades(3, *size, channels)
    source = VideoOfFrames(given, Fraction(8), None if sound is None else tone(*sound))
    frames, times, said = read(interpolated(family, source, tmp_path / "made.mp4"))
    assert frames.shape == (9, 64, 64, 3) and times == [Fraction(number, 32) for number in range(9)]
    np.testing.assert_allclose(frames[::4].mean((1, 2, 3)) / 255, given[:, 0, 0, 0], atol=0.02)
    assert said["sound"] == ([("aac", pytest.approx(3 / 8, abs=0.05))] if sound else [])


@pytest.mark.parametrize(
    ("images", "rate", "audio", "words"),
    [
        (torch.zeros(0, 64, 64, 3), 8, None, "video holds no frames"),
        (None, 8, None, "video holds no frames"),
        (
            torch.cat([torch.zeros(2, 8, 8, 3), torch.full((1, 8, 8, 3), torch.nan)]),
            8,
            None,
            "first in frame 2",
        ),
        (torch.zeros(2, 8, 8, 3), 0, None, "the frame rate of video must be"),
        (torch.zeros(2, 8, 8, 3), Fraction(1, 100_000), None, "the frame rate of video must be"),
        (
            torch.zeros(2, 8, 8, 3),
            8,
            {"waveform": torch.full((1, 2, 9), torch.nan), "sample_rate": 44100},
            "audio holds NaN",
        ),
    ],
)
def test_frames_that_cannot_be_right(images: Any, rate: Any, audio: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VideoOfFrames(images, rate, audio)


def test_frames_are_neither_encoded_nor_stored_and_a_cancel_acts_at_once(pack: str) -> None:
    import comfy.model_management
    import folder_paths
    from comfy_api.latest import InputImpl, Types

    opened = part_of(pack, "nodes.long_video")._opened

    class Video(InputImpl.VideoFromComponents):
        def save_to(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("encoded")

    frames = shades(3, 32, 32, 3)
    video = Video(Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(8)))
    temp = Path(folder_paths.get_temp_directory())
    before = set(temp.glob("*")) if temp.is_dir() else set()
    with opened(video) as source:
        seen = torch.stack([frame.picture for frame in source.frames(lambda sound: None)])
    assert torch.equal(seen.as_subclass(Tensor), frames)
    assert (set(temp.glob("*")) if temp.is_dir() else set()) == before
    for at_once in (True, False):
        with (
            pytest.raises(comfy.model_management.InterruptProcessingException),
            contextlib.ExitStack() as stack,
        ):
            comfy.model_management.interrupt_current_processing(at_once)
            source = stack.enter_context(opened(video))
            comfy.model_management.interrupt_current_processing(True)
            next(source.frames(lambda sound: None))


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_size_that_changes_becomes_that_of_the_first_frame(family: Any, tmp_path: Path) -> None:
    small = write_film(tmp_path / "a.ts", 4)
    large = write_film(tmp_path / "b.ts", 4, side=96, times=[600_000 + 75 * number for number in range(4)])
    frames, _, _ = read(made(family, joined(tmp_path / "both.ts", small, large), tmp_path / "made.mp4"))
    assert frames.shape == (4 * 7 + 1, 64, 64, 3)
    assert abs(frames[16, :, 40:].mean() - frames[0, :, 40:].mean()) < 5, "both films begin with one shade"


def test_two_joined_files_whose_times_start_again(
    family: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film = write_film(tmp_path / "a.ts", 9, sound="aac")
    frames, times, said = read(made(family, joined(tmp_path / "twice.ts", film, film), tmp_path / "made.mp4"))
    assert len(frames) == len(times) == 33
    assert said["sound"] == [("aac", pytest.approx(9 / 8, abs=0.1))]
    assert caplog.text.count("its times do not rise") == 1


@pytest.mark.parametrize(
    ("rate", "layout"), [(48000, "5.1"), (44100, "2.1"), (7000, "mono"), (192000, "quad")]
)
def test_pcm_becomes_aac(family: Any, tmp_path: Path, rate: int, layout: str) -> None:
    path = tmp_path / "given.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=8)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        track = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        for number in range(4):
            picture = np.full((64, 64, 3), 40 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        channels = track.codec_context.layout.nb_channels
        samples = np.full((1, channels * (rate // 2)), 500, np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    _, _, said = read(made(family, path, tmp_path / "made.mp4"))
    assert said["sound"] == [("aac", pytest.approx(0.5, abs=0.1))]


ONE = 1 << 16
TURNS = {
    "as stored": (ONE, 0, 0, ONE, (0, 0)),
    "90 clockwise": (0, ONE, -ONE, 0, (0, -1)),
    "180": (-ONE, 0, 0, -ONE, (-1, -1)),
    "270 clockwise": (0, -ONE, ONE, 0, (-1, 0)),
    "left to right": (-ONE, 0, 0, ONE, (0, -1)),
    "top to bottom": (ONE, 0, 0, -ONE, (-1, 0)),
    "transposed": (0, ONE, ONE, 0, (0, 0)),
}
"""MP4's matrices (a, b, c, d), and the corner in which the stored picture's upper left one is shown."""


@pytest.mark.parametrize("name", TURNS)
def test_turned_and_mirrored_files_are_read_as_players_show_them(tmp_path: Path, name: str) -> None:
    a, b, c, d, (row, column) = TURNS[name]
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=8)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[:32, :32] = 255
        container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    whole = bytearray(path.read_bytes())
    place = whole.find(b"tkhd") + 4 + 4 + 20 + 16  # version 0: the matrix is behind times, layer and volume
    whole[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(whole)
    with open_video(str(path)) as source:
        (shown,) = (frame.picture for frame in source.frames(lambda sound: None))
    assert shown.shape == ((64, 96, 3) if a else (96, 64, 3))
    corners = {(y, x): float(shown[y, x].mean()) for y in (0, -1) for x in (0, -1)}
    assert [at for at, shade in corners.items() if shade > 0.5] == [(row, column)], corners


class Broken(Plain):
    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents) * torch.nan


def test_pictures_with_nan_are_not_written(family: Any, tmp_path: Path) -> None:
    source = VideoOfFrames(shades(2, 64, 64, 3), 8)
    with pytest.raises(ValueError, match=r"^the new video holds NaN .*--fp32-vae"):
        interpolated(family, source, tmp_path / "made.mp4", vae=Broken())


def test_small_sides(family: Any, pack: str, tmp_path: Path) -> None:
    node = part_of(pack, "nodes.long_video")
    with pytest.raises(
        ValueError, match="longer_side is 15 pixels, which is too small for a VAE: use 16 or more"
    ):
        node._require_side(15)
    for allowed in (0, 16):
        node._require_side(allowed)
    frames, _, _ = read(
        interpolated(family, VideoOfFrames(shades(2, 64, 8, 3), 8), tmp_path / "made.mp4", longer_side=40)
    )
    assert frames.shape[1:3] == (40, 16)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does: no file grows beyond this number of bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 200, 20_000])
def test_a_full_disk(pack: str, tmp_path: Path, size: int) -> None:
    preview, writers = part_of(pack, "nodes.preview"), part_of(pack, "microcinema_core.frames.video_writer")
    atomic = part_of(pack, "microcinema_core.files.atomic")
    noise = torch.rand(20, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    source = VideoOfFrames(noise, 8)
    with (
        pytest.raises(
            ValueError, match=r"^ComfyUI's output folder cannot be written to: File too large; free"
        ),
        files_of_at_most(size),
        preview.written_to("output"),
        atomic.atomic_write(tmp_path / "made.mp4", suffix=".mp4") as part,
        writers.VideoWriter(part, source, 1, None) as target,
    ):
        for frame in source.frames(target.add_sound):
            target.add_frame(frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sound", [False, True])
def test_a_full_disk_under_video_combine(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    import folder_paths

    node = part_of(pack, "nodes.video").MicroCinemaFrameCombine
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    noise = torch.rand(9, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    given = {"audio": tone(44100, 1)} if sound else {}
    if sound:  # the preview fits, the film with its sound does not
        monkeypatch.setattr(part_of(pack, "nodes.video"), "animated_picture", lambda *args, **more: {})
    with (
        pytest.raises(ValueError, match=r"^ComfyUI's temp folder cannot be written to: File too large; free"),
        files_of_at_most(2000),
    ):
        node.execute(
            images=noise, fps=8.0, repeat=1, ping_pong=False, cross_fade=0, colour_strength=0.0, **given
        )


def test_a_folder_and_a_name_that_cannot_be_used_are_told_apart(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import folder_paths

    next_file = part_of(pack, "nodes.long_video")._next_file
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "file" / "output"))
    with pytest.raises(ValueError, match=r"^ComfyUI's output folder cannot be written to: Not a directory;"):
        next_file("video/made", 64, 64)
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    for prefix in ("../made", "x" * 5000, "file/made", "a\0b"):
        with pytest.raises(ValueError, match=r"^filename_prefix is '"):
            next_file(prefix, 64, 64)


def test_the_size_in_a_name(pack: str, family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    with open_video(str(write_film(tmp_path / "given.mp4", 2, turned=True))) as source:
        size = family.adapter.new_size(source, 40)
    path, folder = part_of(pack, "nodes.long_video")._next_file("%width%/%height% made", *size)
    assert (path.name, folder) == ("32 made_00001_.mp4", "40")


def test_frames_of_a_film_that_mp4_cannot_hold_are_a_sentence(tmp_path: Path) -> None:
    source = VideoOfFrames(shades(2, 63, 63, 3), 8)
    with (
        pytest.raises(ValueError, match=r"^video cannot be written as MP4: "),
        VideoWriter(tmp_path / "made.mp4", source, 1, None) as writer,
    ):
        writer.add_frame(TimedFrame(Fraction(0), torch.zeros(63, 63, 3)))
