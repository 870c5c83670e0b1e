"""What is read of a video, and what is measured of a clip."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from skimage.color import rgb2lab
from torch import Tensor

from microcinema_core.config import centre_index
from microcinema_core.data.videos.decode import Survey
from microcinema_core.data.videos.report import Unusable
from microcinema_core.data.videos.sources import scan
from microcinema_core.files.downloads import hash_of
from microcinema_core.metrics.clip_reading import Clip, Sampling, choose_frames, read_clip
from microcinema_core.metrics.i3d import I3D, MIXED
from microcinema_core.metrics.i3d_files import (
    BRANCHES,
    convert_state_dict,
    is_torchscript,
    load_i3d_file,
    load_torchscript,
)
from microcinema_core.metrics.measures import I3DLogits, ScriptedClasses, resize_frames
from microcinema_core.metrics.motion import flicker, mean_drift, motion_measures
from tests.core.metric_world import TinyC3D, TinyI3D, write_script, write_set
from tests.data.video_world import drawing, write_video


def timed(times: list[float]) -> Survey:
    return Survey(np.array(times), np.arange(len(times)), np.zeros(len(times)), 64, 48)


def test_consecutive_frames_from_the_start_the_middle_and_a_fixed_place() -> None:
    found = timed([i / 25 for i in range(21)])
    assert choose_frames(found, Sampling(5), "a").tolist() == [0, 1, 2, 3, 4]
    assert choose_frames(found, Sampling(5, start="centre"), "a").tolist() == [8, 9, 10, 11, 12]
    places = [choose_frames(found, Sampling(5, start="random"), f"{i}")[0] for i in range(60)]
    assert places == [choose_frames(found, Sampling(5, start="random"), f"{i}")[0] for i in range(60)]
    assert min(places) < 4 and max(places) > 12 and max(places) <= 16


def test_a_whole_video_is_all_its_frames_or_all_at_a_rate() -> None:
    found = timed([i / 25 for i in range(21)])
    assert choose_frames(found, Sampling(None), "a").tolist() == list(range(21))
    assert choose_frames(found, Sampling(None, fps=5), "a").tolist() == [0, 5, 10, 15, 20]
    assert choose_frames(found, Sampling(None, fps=25), "a").tolist() == list(range(21))
    with pytest.raises(Unusable, match="1 frames"):
        choose_frames(timed([0.0]), Sampling(None), "a")


def test_frames_at_a_rate_are_the_nearest() -> None:
    found = timed([i / 25 for i in range(51)])  # two seconds
    assert choose_frames(found, Sampling(7, fps=3), "a").tolist() == [0, 8, 17, 25, 33, 42, 50]
    uneven = timed([0.0, 0.1, 0.9, 1.05, 2.0])
    assert choose_frames(uneven, Sampling(3, fps=1), "a").tolist() == [0, 3, 4]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(30), "21 frames"),
        (Sampling(9, fps=4), "lasts 0.80 s"),
        (Sampling(9, fps=60), "would repeat"),
    ],
)
def test_videos_that_are_too_short_or_slow_are_unusable(sampling: Sampling, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        choose_frames(timed([i / 25 for i in range(21)]), sampling, "a")


def test_impossible_samplings_are_refused() -> None:
    for arguments in ({"frames": 1}, {"fps": 0.0}, {"fps": float("nan")}, {"start": "end"}):
        with pytest.raises(ValueError, match="--"):
            Sampling(**arguments)  # type: ignore[arg-type]


def test_a_clip_has_the_videos_size_rate_and_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=20, fps=10, size=(80, 48))
    (tmp_path / "a.txt").write_text("one\ntwo")
    [video], _ = scan(tmp_path)
    clip = read_clip(video, Sampling(4, fps=5))
    assert clip.frames.shape == (4, 3, 48, 80) and clip.frames.dtype == torch.uint8
    assert clip.fps == pytest.approx(5) and clip.captions == ("one", "two")
    for frame, index in zip(clip.frames, (0, 2, 4, 6), strict=True):
        drawn = torch.from_numpy(drawing(index, 80, 48)).permute(2, 0, 1)
        assert (frame.float() - drawn.float()).abs().mean() < 8, "as drawn, but for the codec"


def test_bilinear_is_the_plain_one_and_antialiased_covers_all_pixels() -> None:
    frames = torch.randint(
        256, (2, 3, 320, 320), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    plain = resize_frames(frames, "bilinear")
    # By hand: output pixel i lies at (i + 0.5) 320 / 224 - 0.5.
    place = (10 + 0.5) * 320 / 224 - 0.5
    low, share = int(place), place - int(place)
    corner = frames[0, 0, low : low + 2, low : low + 2].double()
    weights = torch.tensor([1 - share, share], dtype=torch.float64)
    assert float(plain[0, 0, 10, 10]) == pytest.approx(float(weights @ corner @ weights), abs=1e-3)
    assert resize_frames(frames, "antialiased").std() < plain.std()
    square = frames[..., :224, :224]
    assert torch.equal(resize_frames(square, "bilinear"), square.float())


def test_the_networks_own_resize_is_the_named_one(tmp_path: Path) -> None:
    """The TorchScript I3D resizes bilinearly; done outside of it, the features are the same."""
    file = write_script(TinyI3D(), tmp_path / "i3d.pt")
    clip = Clip(torch.randint(256, (9, 3, 40, 56), dtype=torch.uint8), 8.0, ())
    features = {
        how: I3DLogits(file, "x", hash_of(file), how).load()(clip)
        for how in ("network", "bilinear", "antialiased")
    }
    assert torch.allclose(features["network"], features["bilinear"], atol=1e-5)
    keys = {I3DLogits(file, "x", hash_of(file), how).key for how in features}
    assert len(keys) == 3
    expected = TinyI3D()(clip.frames.permute(1, 0, 2, 3)[None].float())[0]
    assert torch.allclose(features["network"], expected.detach(), atol=1e-5)


def test_a_network_of_another_kind_is_named(tmp_path: Path) -> None:
    clip = Clip(torch.zeros(12, 3, 32, 32, dtype=torch.uint8), 8.0, ())
    file = write_script(TinyC3D(), tmp_path / "c3d.pt")
    with pytest.raises(ValueError, match=r"c3d.pt does not work as FVD's I3D"):
        I3DLogits(file, "x", hash_of(file), "network").load()(clip)
    with pytest.raises(ValueError, match=r"does not work as a classifier.*16 frames"):
        ScriptedClasses(file, hash_of(file)).load()(clip)


def pytorch_i3d_state() -> dict[str, Tensor]:
    """Return random tensors under the names of pytorch-i3d."""
    generator = torch.Generator().manual_seed(0)
    model, state = I3D(), {}
    theirs = {ours: name for name, ours in BRANCHES.items()}
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Conv3d):
            continue
        block, _, branch = name.removeprefix("trunk.").partition(".")
        place = "logits" if name == "head" else f"{block}.{theirs[branch]}" if branch else block
        state[f"{place}.conv3d.weight"] = torch.randn(layer.weight.shape, generator=generator)
        if name == "head":
            state["logits.conv3d.bias"] = torch.randn(400, generator=generator)
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            value = torch.randn(layer.out_channels, generator=generator)
            state[f"{place}.bn.{part}"] = value.exp() if part == "running_var" else value
        state[f"{place}.bn.num_batches_tracked"] = torch.tensor(1)
    return state


def test_the_state_dict_of_published_fvd_is_read(tmp_path: Path) -> None:
    state = pytorch_i3d_state()
    torch.save(state, tmp_path / "i3d_pretrained_400.pt")
    assert not is_torchscript(tmp_path / "i3d_pretrained_400.pt")
    model = load_i3d_file(tmp_path / "i3d_pretrained_400.pt")
    assert torch.equal(model.head.weight, state["logits.conv3d.weight"])
    # A convolution and batch norm by torch itself, of the block that the file calls Mixed_3b.b1b.
    x = torch.randn(1, MIXED["Mixed_3b"][1], 3, 5, 5, generator=torch.Generator().manual_seed(1))
    parts = {
        part: state[f"Mixed_3b.b1b.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    }
    norm = F.batch_norm(F.conv3d(x, state["Mixed_3b.b1b.conv3d.weight"], padding=1), **parts, eps=1e-5)
    found = model.trunk.get_submodule("Mixed_3b.branches.1.1")(x)
    assert torch.allclose(found, norm.relu(), rtol=1e-3, atol=1e-3)


class Malice:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_a_file_that_would_run_code_or_holds_something_else_is_refused(tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "i3d.pt"
    file.write_bytes(pickle.dumps({"logits": Malice(mark)}))
    with pytest.raises(ValueError, match="no plain tensors"):
        load_i3d_file(file)
    assert not mark.exists()
    for state in ({"a": torch.ones(2)}, {**pytorch_i3d_state(), "Mixed_9.b7.conv3d.weight": torch.ones(1)}):
        torch.save(state, file)
        with pytest.raises(ValueError, match="does not hold I3D's tensors"):
            load_i3d_file(file)
    with pytest.raises(KeyError):
        convert_state_dict({"Mixed_3b.b0.conv3d.weight": torch.ones(1, 1, 1, 1, 1)})


def damaged_networks(folder: Path) -> Iterator[Path]:
    """Yield files that hold no network, in the ways that users come by them."""
    script = write_script(TinyI3D(), folder / "script.pt").read_bytes()
    torch.save({"logits": torch.ones(100)}, folder / "state.pt")
    state = (folder / "state.pt").read_bytes()
    noise = np.random.default_rng(0).bytes(100_000)
    spoilt = script[:300] + noise[:900] + script[1200:]
    for number, data in enumerate(
        (b"", b"some text\n", b"i3d", noise, noise[1:], b"\x80\x02" + noise, script[:-900], script[:900], state[:-40],
         spoilt, pickle.dumps([1]), pickle.dumps({"a.conv3d.b": 1}), b"PK\5\6" + bytes(18))
    ):  # fmt: skip
        path = folder / f"{number}.pt"
        path.write_bytes(data)
        yield path


def test_files_that_hold_no_network_end_with_one_sentence(tmp_path: Path) -> None:
    for path in damaged_networks(tmp_path):
        loads = [I3DLogits(path, "x", "").load, lambda path=path: load_torchscript(path)]
        for load in loads:
            with pytest.raises(ValueError, match=rf"{path.name} (holds|does not|cannot)") as refusal:
                load()
            assert "\n" not in str(refusal.value) and "delete" not in str(refusal.value)


def test_a_users_own_file_is_never_to_be_deleted(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "mini_base.safetensors")
    with pytest.raises(
        ValueError, match=r"does not hold I3D's weights; expected i3d_torchscript.pt"
    ) as refusal:
        load_i3d_file(tmp_path / "mini_base.safetensors")
    assert "delete" not in str(refusal.value)


class Pair(torch.nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Mean(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean()


@pytest.mark.parametrize(("network", "given"), [(Pair(), "a tuple"), (Mean(), r"a tensor \(\)")])
def test_a_network_with_other_outputs_is_named(network: torch.nn.Module, given: str, tmp_path: Path) -> None:
    file = write_script(network, tmp_path / "x.pt")
    clip = Clip(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), 8.0, ())
    with pytest.raises(
        ValueError, match=rf"x.pt does not work as a classifier.* returns {given} for one clip"
    ):
        ScriptedClasses(file, "").load()(clip)


def test_flicker_is_the_second_difference_of_brightness() -> None:
    levels = torch.tensor([10.0, 12, 10, 12])
    blinking = levels.view(4, 1, 1, 1).expand(4, 3, 8, 8).to(torch.uint8)
    fading = torch.tensor([10.0, 20, 30, 40]).view(4, 1, 1, 1).expand(4, 3, 8, 8).to(torch.uint8)
    assert flicker(blinking) == pytest.approx(4, rel=1e-6)
    assert flicker(fading) == pytest.approx(0, abs=1e-9)
    assert flicker(blinking[:2]) == 0


def test_drift_is_the_distance_of_mean_colours_from_the_centre_frame() -> None:
    colours = torch.tensor([[200, 10, 10], [120, 60, 60], [10, 10, 200]], dtype=torch.uint8)
    frames = colours[:, :, None, None].expand(3, 3, 16, 16)
    lab = rgb2lab(colours.numpy()[None] / 255)[0]
    centre = centre_index(3)
    expected = np.mean([np.linalg.norm(lab[i] - lab[centre]) for i in range(3) if i != centre])
    assert mean_drift(frames) == pytest.approx(float(expected), rel=1e-3)


def test_faster_clips_move_more_and_a_still_one_not(tmp_path: Path) -> None:
    for step in (0, 1, 3):
        write_set(tmp_path / str(step), 1, step=step)
    values = {}
    for step in (0, 1, 3):
        [video], _ = scan(tmp_path / str(step))
        clip = read_clip(video, Sampling(16))
        values[step] = motion_measures(clip.frames, clip.fps)
    assert values[0][0] < 0.01 < values[1][0] < values[3][0]
