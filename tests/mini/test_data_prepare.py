"""Preparing the emoji: motion keys, the split, names, decoding, loops, the catalogue, pinned packages."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mini.world import backgrounds, emoji, motion_split, packages


def test_motion_key_is_the_documented_one() -> None:
    assert motion_split.motion_key("1f469-1f3fb-200d-1f373") == "1f9d1-200d-1f373"
    assert motion_split.motion_key("1F468-200d-1f373") == "1f9d1-200d-1f373"
    assert motion_split.motion_key("1f3c3-1f3ff-200d-2640-fe0f") == "1f3c3-200d"
    assert motion_split.motion_key("0023-fe0f-20e3") == "0023-20e3"


def test_split_is_by_hash_and_keeps_twins_out_of_training() -> None:
    motions = [f"{number:x}" for number in range(0x1F300, 0x1F400)]
    twins = [f"{motion}-200d" for motion in motions]
    splits = motion_split.assign_splits([*motions, *twins])
    for key in splits:
        tested = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 10 == 0
        assert (splits[key] == "test") == tested
    for motion, twin in zip(motions, twins, strict=True):
        assert {splits[motion], splits[twin]} != {"train", "test"}
    assert {"train", "test", "held"} == set(splits.values())


def test_skin_and_gender_are_words() -> None:
    assert motion_split.skin_words("1f469-1f3fb-200d-1f91d-200d-1f468-1f3ff") == [
        "light skin tone",
        "dark skin tone",
    ]
    assert motion_split.gender_words("1f3c3-1f3fb-200d-2642-fe0f") == ["man"]


def webp(frames: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=42, lossless=True, exact=True
    )
    return file.getvalue()


def disc(shade: int, *, size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Return a solid square of one shade in a transparent picture, whose transparent colour is magenta."""
    image = Image.new("RGBA", size, (255, 0, 255, 0))
    image.paste((shade, shade, shade, 255), (64, 64, 192, 192))
    return image


def test_decode_premultiplies_and_composes() -> None:
    frames = emoji.decode(webp([disc(40), disc(200)]))
    assert frames.shape == (2, 112, 112, 4) and frames.dtype == np.uint8
    assert (frames[..., :3] <= frames[..., 3:]).all(), "premultiplied: no colour without alpha"
    assert frames[0, 56, 56].tolist() == [40, 40, 40, 255]
    assert frames[1, 56, 56].tolist() == [200, 200, 200, 255]
    assert frames[:, 0, 0].max() == 0


def test_decode_pads_to_a_square() -> None:
    frames = emoji.decode(webp([disc(90, size=(256, 300))]))
    columns, rows = (np.flatnonzero(frames[0, ..., 3].max(axis=axis) > 128) for axis in (0, 1))
    assert len(columns) == pytest.approx(128 / 300 * 112, abs=1.5)
    assert len(columns) == pytest.approx(len(rows), abs=1)


def ramp(levels: list[int]) -> np.ndarray:
    return np.array(levels, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("levels", "closes", "loop"),
    [
        ([10, 20, 30, 40, 30, 20], True, 6),
        ([10, 20, 30, 40, 30, 20, 10], True, 6),
        ([10, 20, 30, 40, 50, 60], False, 6),
        ([7], True, 1),
    ],
)
def test_loops_are_measured(levels: list[int], closes: bool, loop: int) -> None:
    measured = emoji.measure_loop(ramp(levels))
    assert (measured["closes"], measured["loop_frames"], measured["frames"]) == (closes, loop, len(levels))


def tarball(path: Path, members: dict[str, bytes]) -> packages.Package:
    """Write a tarball in npm's layout, and return the package that pins it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packages.Package(
        path.name.removesuffix("-1.0.0.tgz"), "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest()
    )


def keyword_tarball(folder: Path) -> packages.Package:
    entries = {
        "🐎": ["horse", "animal", "galloping", ":D", "race_car"],
        "🏃🏻‍♂️": ["man_running", "running"],
        "👡": ["woman_s_sandal", "shoe (left)"],
    }
    return tarball(
        folder / "words-1.0.0.tgz", {"package/dist/emoji-en-US.json": json.dumps(entries).encode()}
    )


def test_names_are_plain_words(tmp_path: Path) -> None:
    keyword_tarball(tmp_path)
    words = packages.read_words(tmp_path / "words-1.0.0.tgz")
    assert words["1f40e"] == packages.EmojiWords("horse", ("animal", "galloping", "race car"))
    assert words["1f461"] == packages.EmojiWords("woman's sandal", ())
    assert words[packages.lookup_key("1f3c3-1f3ff-200d-2642-fe0f")].name == "man running"
    assert packages.lookup_key("00a9-fe0f") == "a9"
    assert packages.lookup_key("1f3f4-e0067_e0062").endswith("-e007f")


def test_prepare_end_to_end_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    art = {
        "package/assets/1f40e.webp": webp([disc(40), disc(80), disc(60)]),
        "package/assets/1f461.webp": webp([disc(50)]),
    }
    monkeypatch.setattr(packages, "KEYWORD_PACKAGE", keyword_tarball(downloads))
    monkeypatch.setattr(packages, "EMOJI_PACKAGES", (tarball(downloads / "art-1.0.0.tgz", art),))
    folder = emoji.prepare(tmp_path, workers=1)
    entries = emoji.read_catalogue(folder)
    assert [(entry.id, entry.frames, entry.closes) for entry in entries] == [
        ("1f40e", 3, True),
        ("1f461", 1, True),
    ]
    assert entries[0].keywords == ("animal", "galloping", "race car")
    assert emoji.open_frames(folder, "1f40e")[1, 56, 56, 0] == 80
    times = [path.stat().st_mtime_ns for path in sorted((folder / "frames").iterdir())]
    assert emoji.prepare(tmp_path, workers=1) == folder
    assert times == [path.stat().st_mtime_ns for path in sorted((folder / "frames").iterdir())]


class Npm:
    """An npm that packs one file, or fails, and a registry that sends the same."""

    def __init__(self, content: bytes, *, works: bool) -> None:
        self.content, self.works, self.addresses = content, works, []

    def pack(self, command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        if self.works:
            (cwd / "words-1.0.0.tgz").write_bytes(self.content)
        else:
            (cwd / "words-1.0.0.tgz").write_bytes(self.content[:9])  # it was interrupted
        return subprocess.CompletedProcess(command, 0 if self.works else 1, "", "npm error network")

    def download(self, address: str, path: Path) -> None:
        self.addresses.append(address)
        assert not path.exists()
        path.write_bytes(self.content)


@pytest.mark.parametrize("works", [True, False])
def test_a_package_is_fetched_by_npm_or_from_its_registry(
    works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken tarball that is there already is fetched again; one with another hash is never placed."""
    (tmp_path / "made").mkdir()
    package = keyword_tarball(tmp_path / "made")
    content = (tmp_path / "made" / package.file_name).read_bytes()
    npm = Npm(content, works=works)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://packages.example/npm/")
    monkeypatch.setattr(packages.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(packages.subprocess, "run", npm.pack)
    monkeypatch.setattr(packages, "download_url", npm.download)
    for held in (None, b"", content[:-1]):
        if held is not None:
            (tmp_path / "downloads" / package.file_name).write_bytes(held)
        assert packages.fetch(package, tmp_path / "downloads").read_bytes() == content
    with pytest.raises(ValueError, match="should have 0000"):
        packages.fetch(dataclasses.replace(package, sha256="0000"), tmp_path / "downloads")
    assert not list((tmp_path / "downloads").iterdir())
    assert set(npm.addresses) == (
        set() if works else {"https://packages.example/npm/words/-/words-1.0.0.tgz"}
    )


def test_a_photograph_that_is_another_is_refused(tmp_path: Path) -> None:
    folder = backgrounds._photo_folder()
    assert len(backgrounds.PHOTO_SHA256) == sum(
        map(len, (backgrounds.TRAIN_PHOTOS, backgrounds.VALIDATION_PHOTOS, backgrounds.TEST_PHOTOS))
    )
    registry = importlib.import_module("skimage.data._registry").registry
    for name, sha256 in backgrounds.PHOTO_SHA256.items():
        assert registry[f"data/{name}"] == sha256, "scikit-image's own list"
        assert backgrounds._checked_photo(folder / name) == folder / name
    Image.new("RGB", (8, 8)).save(tmp_path / "moon.png")
    for name in ("moon.png", "coffee.png"):
        with pytest.raises(
            ValueError, match=rf"{name} is missing or not the photograph .* requirements-dev\.txt"
        ):
            backgrounds._checked_photo(tmp_path / name)


def test_errors_of_the_command_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(package: packages.Package, downloads: Path) -> Path:
        raise OSError("there is no network")

    monkeypatch.setattr(packages, "fetch", offline)
    with pytest.raises(SystemExit) as ended:
        emoji.main(["prepare", "--home", str(tmp_path)])
    assert str(ended.value) == "python -m mini.world.emoji: there is no network"


def test_the_registry_is_that_of_npm_or_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    with pytest.raises(OSError, match="install npm, or set NPM_CONFIG_REGISTRY"):
        packages._registry(None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://packages.example/npm/")
    assert packages._registry(None) == "https://packages.example/npm"


def test_an_unprepared_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mini\.world\.emoji prepare"):
        emoji.read_catalogue(tmp_path)
