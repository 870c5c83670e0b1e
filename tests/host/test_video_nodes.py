"""Centre Frame and Frame Combine in the real host: their outputs, and their errors for bad input."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from devtools.run.host import Host
from devtools.run.server import ComfyServer
from tests.host.pack import imported, nodes_of

PICTURE_PACK = Path(__file__).parent / "picture_pack"

Give = Callable[[Tensor], dict[str, Any]]


@pytest.fixture(scope="module")
def picture_host(comfyui: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A host with an extra pack, whose TestPicture node outputs any tensor as an IMAGE."""
    base = tmp_path_factory.mktemp("host")
    shutil.copytree(PICTURE_PACK, base / "custom_nodes" / "picture_pack")
    (base / "models" / "vae").mkdir(parents=True)
    save_file(tiny_autoencoder(), base / "models" / "vae" / "tiny.safetensors")
    with ComfyServer(sys.executable, comfyui, base=base, arguments=("--disable-metadata",)) as server:
        yield server


@pytest.fixture
def give(picture_host: ComfyServer, request: pytest.FixtureRequest) -> Give:
    """A function that makes a node which outputs a tensor as an IMAGE."""
    count = iter(range(100))

    def as_node(image: Tensor) -> dict[str, Any]:
        name = f"{request.node.name}_{next(count)}.safetensors"
        save_file({"image": image.contiguous()}, picture_host.input_dir / name)
        return {"class_type": "TestPicture", "inputs": {"file": name}}

    return as_node


def tiny_autoencoder() -> dict[str, Tensor]:
    """Random weights of the smallest VAE that the host loads (TAESD, 4 channels, 8x)."""
    generator = torch.Generator().manual_seed(0)

    def conv(out: int, into: int) -> Tensor:
        return torch.randn(out, into, 3, 3, generator=generator) * (2 / (9 * into)) ** 0.5

    weights: dict[str, Tensor] = {}

    def block(name: str) -> None:
        for index in (0, 2, 4):
            weights[f"{name}.conv.{index}.weight"] = conv(64, 64)
            weights[f"{name}.conv.{index}.bias"] = torch.zeros(64)

    def single(name: str, out: int, into: int, bias: bool = True) -> None:
        weights[f"{name}.weight"] = conv(out, into)
        if bias:
            weights[f"{name}.bias"] = torch.zeros(out)

    single("taesd_encoder.0", 64, 3)
    single("taesd_encoder.14", 4, 64)
    single("taesd_decoder.1", 64, 4)
    single("taesd_decoder.18", 3, 64)
    for index in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        block(f"taesd_encoder.{index}")
    for index in (2, 6, 10):
        single(f"taesd_encoder.{index}", 64, 64, bias=False)
    for index in (3, 4, 5, 8, 9, 10, 13, 14, 15, 17):
        block(f"taesd_decoder.{index}")
    for index in (7, 12, 16):
        single(f"taesd_decoder.{index}", 64, 64, bias=False)
    return weights


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def combine(give: Give, *segments: Tensor, **options: Any) -> dict[str, Any]:
    """Return a prompt: segments -> Frame Combine (node "combine") -> Save Video, and its frames -> Save Image."""
    prompt = {f"segment {i}": give(segment) for i, segment in enumerate(segments, start=1)}
    names = ("images", "images_2", "images_3", "images_4")
    links = {name: [node, 0] for name, node in zip(names, prompt, strict=False)}
    defaults = {"fps": 8.0, "repeat": 1, "ping_pong": False, "cross_fade": 0, "colour_strength": 0.0}
    return {
        **prompt,
        "combine": {"class_type": "MicroCinemaFrameCombine", "inputs": {**defaults, **links, **options}},
        "save": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["combine", 0], "filename_prefix": "clip", "format": "auto", "codec": "auto"},
        },
        "frames": {
            "class_type": "SaveImage",
            "inputs": {"images": ["combine", 1], "filename_prefix": "frame"},
        },
        "count": {"class_type": "PreviewAny", "inputs": {"source": ["combine", 2]}},
    }


def saved(host: ComfyServer, result: dict[str, Any]) -> list[Path]:
    """Return the files that an output node reports."""
    folders = {"output": host.output_dir, "temp": host.base / "temp"}
    return [folders[file["type"]] / file["subfolder"] / file["filename"] for file in result["images"]]


def decode(path: Path) -> tuple[np.ndarray, Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate is not None
        return np.stack(frames), stream.average_rate


def pictures(path: Path) -> tuple[np.ndarray, list[int]]:
    """Return the frames of an animated picture and how long each is shown, in milliseconds."""
    with Image.open(path) as animation:
        count = getattr(animation, "n_frames", 1)
        assert count == 1 or animation.info["loop"] == 0, "it does not play for ever"
        frames, durations = [], []
        for number in range(count):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("RGB")))
            durations.append(animation.info.get("duration", 0))
        return np.stack(frames), durations


def levels(count: int, height: int, width: int) -> Tensor:
    """Return frames `count height width 3` of one shade each, from dark to light."""
    return torch.linspace(0.1, 0.9, count).reshape(count, 1, 1, 1).expand(count, height, width, 3)


def shades(frames: np.ndarray) -> np.ndarray:
    return frames.mean((1, 2, 3)) / 255


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_clip_frames_and_count(picture_host: ComfyServer, give: Give, size: tuple[int, int]) -> None:
    given = levels(9, *size)
    outputs = picture_host.run(combine(give, given, fps=32.0))
    (preview,), (clip,) = saved(picture_host, outputs["combine"]), saved(picture_host, outputs["save"])
    frames, rate = decode(clip)
    assert rate == 32
    assert frames.shape == (9, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    np.testing.assert_allclose(shades(frames), given[:, 0, 0, 0], atol=0.02)
    shown, durations = pictures(preview)
    assert shown.shape == (9, *size, 3) and durations == [31] * 9  # whole milliseconds
    np.testing.assert_allclose(shades(shown), given[:, 0, 0, 0], atol=0.02)
    assert (preview.suffix, outputs["combine"]["animated"]) == (".webp", [True])
    assert "video" not in outputs["combine"], "no file that nobody asked for"
    assert outputs["count"]["text"] == ["9"]
    images = saved(picture_host, outputs["frames"])
    assert len(images) == 9
    assert Image.open(images[0]).size == (size[1], size[0])


def test_the_preview_is_played_as_the_video(picture_host: ComfyServer, give: Give) -> None:
    """There and back, and once: it loops by itself."""
    given = levels(4, 16, 16)
    (preview,) = saved(
        picture_host, picture_host.run(combine(give, given, ping_pong=True, repeat=3))["combine"]
    )
    shown, durations = pictures(preview)
    np.testing.assert_allclose(shades(shown), given[[0, 1, 2, 3, 2, 1], 0, 0, 0], atol=0.02)
    assert durations == [125] * 6


def test_the_preview_is_small_whatever_the_video(picture_host: ComfyServer, give: Give) -> None:
    """At most 129 frames, 512 pixels and 50 frames a second; its duration is that of the video."""
    long = combine(give, noise(300, 8, 8, 3), fps=30.0)
    shown, durations = pictures(saved(picture_host, picture_host.run(long)["combine"])[0])
    assert len(shown) == 100 and sum(durations) == pytest.approx(10_000)
    large = combine(give, levels(3, 1100, 600), fps=120.0)
    outputs = picture_host.run(large)
    shown, durations = pictures(saved(picture_host, outputs["combine"])[0])
    assert shown.shape == (1, 512, 279, 3)
    assert decode(saved(picture_host, outputs["save"])[0])[0].shape == (3, 1100, 600, 3)


def test_sound_comes_with_a_video_beside_the_preview(picture_host: ComfyServer, give: Give) -> None:
    prompt = combine(give, levels(9, 33, 47), fps=32.0, audio=["sound", 0])
    prompt["sound"] = {**give(noise(1, 2, 44100) - 0.5), "class_type": "TestSound"}
    outputs = picture_host.run(prompt)["combine"]
    assert [Path(file["filename"]).suffix for file in outputs["images"]] == [".webp"]
    (film,) = saved(picture_host, {"images": outputs["video"]})
    assert decode(film)[0].shape == (9, 34, 48, 3)
    with av.open(str(film)) as container:
        assert len(container.streams.audio) == 1
        assert not {"prompt", "workflow"} & set(container.metadata), "the host runs with --disable-metadata"
    with Image.open(saved(picture_host, outputs)[0]) as preview:
        assert not preview.getexif()
    assert not [file for file in film.parent.iterdir() if "unfinished" in file.name]


def test_one_frame_is_a_clip(picture_host: ComfyServer, give: Give) -> None:
    outputs = picture_host.run(combine(give, noise(1, 16, 16, 3)))
    assert decode(saved(picture_host, outputs["save"])[0])[0].shape == (1, 16, 16, 3)
    assert outputs["count"]["text"] == ["1"]


def test_segments_join_fade_and_play(picture_host: ComfyServer, give: Give) -> None:
    first, second, third = (torch.full((5, 16, 16, 3), level) for level in (0.0, 0.5, 1.0))
    prompt = combine(give, first, second, third, cross_fade=1, ping_pong=True, repeat=2)
    outputs = picture_host.run(prompt)
    assert outputs["count"]["text"] == [str(2 * (2 * 13 - 2))]
    assert len(decode(saved(picture_host, outputs["save"])[0])[0]) == 48


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_audio_travels_and_ends_with_the_clip(picture_host: ComfyServer, give: Give, channels: int) -> None:
    prompt = combine(give, noise(8, 16, 16, 3), audio=["sound", 0])
    prompt["sound"] = {**give(noise(2, channels, 3 * 44100) - 0.5), "class_type": "TestSound"}
    (clip,) = saved(picture_host, picture_host.run(prompt)["save"])
    with av.open(str(clip)) as container:
        assert len(container.streams.audio) == 1
        assert container.duration is not None and 0.9 < container.duration / av.time_base < 1.2


@pytest.mark.parametrize("fps", [2.0, 8.0, 23.976, 24.0, 30.0, 32.0])
def test_rate_count_and_duration(picture_host: ComfyServer, give: Give, fps: float) -> None:
    """Two segments that share a frame, with sound, as a player reads them from the file."""
    prompt = combine(
        give, noise(9, 16, 16, 3), noise(9, 16, 16, 3), fps=fps, skip_shared=True, audio=["sound", 0]
    )
    prompt["sound"] = {**give(noise(1, 2, 20 * 44100) - 0.5), "class_type": "TestSound"}
    outputs = picture_host.run(prompt)
    assert outputs["combine"]["text"][0].startswith(f"17 frames at {fps:g} a second: {17 / fps:.3f} s.")
    for files in (outputs["combine"]["video"], outputs["save"]["images"]):
        (path,) = saved(picture_host, {"images": files})
        frames, rate = decode(path)
        assert len(frames) == 17 and rate == pytest.approx(fps, abs=1e-3)
        with av.open(str(path)) as container:
            video, sound = container.streams.video[0], container.streams.audio[0]
            assert video.frames == 17 and video.duration is not None and video.time_base is not None
            assert float(video.duration * video.time_base) == pytest.approx(17 / fps, abs=1e-3)
            times = [frame.time for frame in container.decode(video)]
            np.testing.assert_allclose(times, np.arange(17) / fps, atol=1e-3)
            assert sound.duration is not None and sound.time_base is not None
            assert float(sound.duration * sound.time_base) == pytest.approx(
                17 / fps, abs=0.05
            )  # AAC's frame length


def test_drift_is_reported_and_taken_away(picture_host: ComfyServer, give: Give) -> None:
    frames = 0.3 + 0.2 * noise(1, 16, 16, 3) + torch.linspace(0, 0.2, 9).reshape(9, 1, 1, 1)
    report = picture_host.run(combine(give, frames))["combine"]["text"][0]
    assert "Colour drift from the anchor" in report and "after correction" not in report
    report = picture_host.run(combine(give, frames, colour_strength=1.0))["combine"]["text"][0]
    assert "after correction 0.0 on average" in report


def test_a_closed_loop_is_shorter(picture_host: ComfyServer, give: Give) -> None:
    outputs = picture_host.run(combine(give, noise(9, 16, 16, 3), cross_fade=2, loop=True, skip_shared=True))
    assert outputs["count"]["text"] == ["6"]


def test_a_lower_rate_keeps_every_nth_frame_and_the_duration(picture_host: ComfyServer, give: Give) -> None:
    given = levels(33, 16, 16)
    outputs = picture_host.run(combine(give, given, fps=32.0, target_fps=8.0))
    assert outputs["combine"]["text"][0].startswith("9 frames at 8 a second: 1.125 s.")
    frames, rate = decode(saved(picture_host, outputs["save"])[0])
    assert rate == 8 and outputs["count"]["text"] == ["9"]
    np.testing.assert_allclose(shades(frames), given[::4, 0, 0, 0], atol=0.02)
    said = picture_host.run_expect_error(combine(give, given, fps=32.0, target_fps=24.0))
    assert (
        "target_fps is 24, but of 32 frames a second only every 2nd, 3rd ... can be kept: use 32, 16" in said
    )


def test_grey_and_alpha_frames(picture_host: ComfyServer, give: Give) -> None:
    outputs = picture_host.run(combine(give, noise(2, 16, 16, 1), noise(2, 16, 16, 4), noise(2, 16, 16)))
    assert outputs["count"]["text"] == ["6"]


def test_bad_frames_are_named(picture_host: ComfyServer, give: Give) -> None:
    broken = noise(3, 16, 16, 3)
    broken[1, 0, 0, 0] = torch.nan
    for prompt, words in (
        (combine(give, torch.zeros(0, 16, 16, 3)), "images holds no picture"),
        (
            combine(give, broken),
            "images holds NaN or infinite values (in 1 of 3 pictures, first in number 1)",
        ),
        (
            combine(give, noise(2, 16, 16, 3), noise(2, 16, 24, 3)),
            "images is 16 x 16 and images_2 is 24 x 16",
        ),
        (combine(give, noise(2, 16, 16, 3), noise(2, 16, 16, 3), cross_fade=3), "Use at most 2"),
        (combine(give, noise(2, 16, 16, 3), noise(1, 16, 16, 3), skip_shared=True), "images_2 has one frame"),
        (combine(give, noise(3, 16, 16, 3), cross_fade=2, loop=True), "Use at most 1"),
        (combine(give, noise(2, 16, 16, 5)), "this one has 5"),
        (combine(give, noise(2, 16, 16, 3), fps=0.0), "fps"),
    ):
        assert words in picture_host.run_expect_error(prompt)


def centre(picture: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return a prompt: `picture` -> Centre Frame -> its latent and its picture, saved."""
    return {
        "picture": picture,
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny.safetensors"}},
        "centre": {
            "class_type": "MicroCinemaCentreFrame",
            "inputs": {
                **{"image": ["picture", 0], "vae": ["vae", 0], "width": 0, "height": 0, "fit": "crop"},
                **options,
            },
        },
        "latent": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["centre", 0], "filename_prefix": "centre"},
        },
        "seen": {"class_type": "SaveImage", "inputs": {"images": ["centre", 1], "filename_prefix": "centre"}},
    }


def run_centre(host: ComfyServer, prompt: dict[str, Any]) -> tuple[Tensor, np.ndarray]:
    """Return latent `1 4 h/8 w/8` and picture `h w 3`, 0 to 255."""
    outputs = host.run(prompt)
    (latent,) = outputs["latent"]["latents"]
    (seen,) = saved(host, outputs["seen"])
    tensors = load_file(host.output_dir / latent["subfolder"] / latent["filename"])
    return tensors["latent_tensor"], np.asarray(Image.open(seen))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_centre_frame_is_what_the_model_was_trained_for(
    picture_host: ComfyServer, give: Give, fit: str
) -> None:
    latent, seen = run_centre(picture_host, centre(give(noise(1, 100, 333, 3)), fit=fit))
    assert latent.shape == (1, 4, 40, 40) and seen.shape == (320, 320, 3)
    assert torch.isfinite(latent).all()


def test_centre_frame_of_a_size_that_the_user_gives(picture_host: ComfyServer, give: Give) -> None:
    latent, seen = run_centre(picture_host, centre(give(noise(2, 50, 50, 3)), width=99, height=64))
    assert latent.shape == (1, 4, 8, 12) and seen.shape == (64, 96, 3)


def test_a_picture_beyond_4k(picture_host: ComfyServer) -> None:
    across = np.tile(np.linspace(0, 255, 5000).astype(np.uint8), (3000, 1))
    Image.fromarray(across).save(picture_host.input_dir / "large.png")
    loaded = {"class_type": "LoadImage", "inputs": {"image": "large.png"}}
    latent, seen = run_centre(picture_host, centre(loaded, width=256, height=256, fit="stretch"))
    assert latent.shape == (1, 4, 32, 32)
    np.testing.assert_allclose(seen[128, :, 0], np.linspace(0, 255, 256), atol=3)


def test_alpha_and_grey_pictures(picture_host: ComfyServer, give: Give) -> None:
    transparent = torch.zeros(1, 64, 64, 4)
    assert (run_centre(picture_host, centre(give(transparent), width=64, height=64))[1] == 255).all()
    for grey in (torch.full((1, 64, 64, 1), 0.5), torch.full((1, 64, 64), 0.5)):
        assert (run_centre(picture_host, centre(give(grey), width=64, height=64))[1] // 2 == 63).all()


def test_bad_pictures_are_named(picture_host: ComfyServer, give: Give) -> None:
    broken = noise(1, 16, 16, 3)
    broken[0, 0, 0, 0] = torch.nan
    for picture, words in (
        (broken, "The centre frame holds NaN or infinite values"),
        (torch.zeros(0, 16, 16, 3), "The centre frame holds no picture"),
        (torch.zeros(1, 16, 16, 7), "this one has 7"),
    ):
        assert words in picture_host.run_expect_error(centre(give(picture)))
    assert "cover" in picture_host.run_expect_error(centre(give(noise(1, 8, 8, 3)), fit="cover"))


@pytest.mark.parametrize("shape", [(60000, 20), (20, 60000), (60000, 1)])
def test_pictures_of_60000_pixels(picture_host: ComfyServer, give: Give, shape: tuple[int, int]) -> None:
    """The centre frame takes them; a video's encoder does not, and a sentence says so."""
    picture = noise(1, *shape, 3)
    for fit in ("crop", "pad", "stretch"):
        latent, seen = run_centre(picture_host, centre(give(picture), width=64, height=64, fit=fit))
        assert latent.shape == (1, 4, 8, 8) and seen.shape == (64, 64, 3)
    said = picture_host.run_expect_error(combine(give, picture))
    assert f"images are {shape[1]} x {shape[0]} pixels" in said and "16384: resize them first" in said
    assert picture_host.run(combine(give, noise(2, 16, 16, 3)))["count"]["text"] == ["2"]


@pytest.mark.parametrize("size", [(16384, 16), (16, 16384)])
def test_the_longest_side_that_a_video_has(
    picture_host: ComfyServer, give: Give, size: tuple[int, int]
) -> None:
    (clip,) = saved(picture_host, picture_host.run(combine(give, noise(1, *size, 3)))["save"])
    assert decode(clip)[0].shape == (1, *size, 3)


@pytest.mark.parametrize("rate", [40000, 44099, 7000, 192000])
def test_audio_of_odd_rates_is_heard(picture_host: ComfyServer, give: Give, rate: int) -> None:
    from devtools.run.workflow import Prompt

    prompt: Prompt = combine(give, noise(8, 16, 16, 3), audio=["sound", 0])
    prompt["sound"] = {**give(noise(1, 2, rate) - 0.5), "class_type": "TestSound"}
    prompt["sound"]["inputs"]["sample_rate"] = rate
    for path in saved(picture_host, picture_host.run(prompt)["save"]):
        with av.open(str(path)) as container:
            assert len(container.streams.audio) == 1


def test_cancelling_stops_the_encoding(picture_host: ComfyServer, give: Give) -> None:
    """With sound, every frame is encoded. A node that does not look ends well, since no other node follows."""
    import threading
    import time

    from devtools.run.client import Interrupted

    prompt = {
        "picture": {
            "class_type": "EmptyImage",
            "inputs": {"width": 128, "height": 128, "batch_size": 60, "color": 255},
        },
        "sound": {**give(noise(1, 1, 44100)), "class_type": "TestSound"},
        "combine": {
            "class_type": "MicroCinemaFrameCombine",
            "inputs": {
                "images": ["picture", 0], "fps": 8.0, "repeat": 100, "ping_pong": False, "cross_fade": 0,
                "colour_strength": 0.0, "audio": ["sound", 0],
            },
        },
    }  # fmt: skip
    encoding = threading.Event()

    def watch(event: str, data: dict[str, Any]) -> None:
        if event == "executing" and data.get("node") == "combine":
            encoding.set()

    def cancel() -> None:
        encoding.wait(60)
        time.sleep(1.5)
        picture_host.interrupt()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        picture_host.run(prompt, on_event=watch)
    thread.join()
    assert not list((picture_host.base / "temp").glob("*unfinished*"))


@pytest.mark.parametrize("size", [(64, 64), (65, 63)])
def test_memory_is_that_of_the_played_frames(comfy_in_process: Path, size: tuple[int, int]) -> None:
    """At most twice the played frames, the output included."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Allocated(TorchDispatchMode):
        """Counts the bytes of living tensors of more than one frame that operations make."""

        def __init__(self) -> None:
            super().__init__()
            self.living: dict[int, int] = {}
            self.peak = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            import weakref

            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (list, tuple)) else (out,):
                if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() > 3 * 4 * 65 * 65:
                    key = tensor.untyped_storage()._cdata
                    if key not in self.living:
                        self.living[key] = tensor.untyped_storage().nbytes()
                        weakref.finalize(tensor.untyped_storage(), self.living.pop, key, None)
                        self.peak = max(self.peak, sum(self.living.values()))
            return out

    repeat, frames = 40, torch.rand(2, *size, 3)
    played = frames.numel() * 4 * repeat
    with imported("memory_pack") as pack, Allocated() as allocated:
        out = nodes_of(pack)["MicroCinemaFrameCombine"].execute(frames, 8.0, repeat, False, 0, 0.0)
    assert len(out.args[1]) == len(frames) * repeat
    assert allocated.peak <= 2.3 * played
