"""Every section of `python -m benchmarks` runs and has its rows, at shapes too small for meaningful numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import cascade, crafter, interpolation, layers, loading, memory, motion, profile, training
from benchmarks.__main__ import MAKERS, parse
from benchmarks.contenders import Contender, Shape
from benchmarks.timing import in_turns, working
from benchmarks.training_parts import write_random_set
from devtools.check import tiny
from microcinema_core.config import SD15, UNetConfig
from microcinema_core.networks.unet import UNet3D

SMALL = UNetConfig(channel_mult=(1, 1), num_res_blocks=1, transformer_depth=(1, 0))
NARROW = replace(SD15, model_channels=32, channel_mult=(1, 2, 2, 2), num_res_blocks=1, context_dim=24)
NARROW_SD21 = UNetConfig(model_channels=64, channel_mult=(1, 2, 2, 2), num_res_blocks=1)
PAIRS = {motion.PIA: motion.PIA_PEER, motion.SPARSECTRL: motion.SPARSECTRL_PEER}


def rows(text: str) -> dict[str, list[float]]:
    """Return the numbers of a table's rows by first cell; all are finite, and every row has some."""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    found = {
        cells[0]: [float(n) for cell in cells[1:] for n in re.findall(r"\d+\.?\d*", cell)]
        for cells in lines[2:]
    }
    assert found and "nan" not in text and "inf" not in text.split() and all(found.values()), text
    return found


def test_the_command_knows_its_sections() -> None:
    assert parse(["memory", "training"]).sections == ["memory", "training"]
    with pytest.raises(SystemExit):
        parse(["speed"])
    assert set(MAKERS) > {"loading", "interpolation", "cascade", "training", "memory", "motion", "crafter"}


@pytest.mark.slow
@pytest.mark.long
def test_loading(comfyui: object) -> None:
    found = rows(loading.table(rounds=1, config=SMALL))
    ours, stock, start = found.values()
    assert ours[0] > stock[0] > 0, "the file's GiB"
    assert all(seconds > 0 for seconds in (ours[1], stock[1], start[0]))


@pytest.mark.slow
def test_interpolation(comfy_in_process: Path) -> None:
    videos = {5: (2, 1), 17: (2, 2)}
    made = interpolation.measure(videos, side=8, steps=1)
    assert [(row.frames, row.chunk) for row in made] == [(5, 0), (17, 0), (5, 2), (17, 2)]
    assert [row.answer for row in made[:2]] == [5 * 8 * 8 * 8 * 4, 17 * 8 * 8 * 8 * 4]
    assert rows(interpolation.table(made))
    with pytest.raises(ValueError, match="no 6 frames"):
        interpolation.measure({6: (2, 1)})


def test_profile_tells_the_kinds_apart() -> None:
    conv, over_frames = torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, (3, 1))
    x = torch.randn(8, 8, 128, 128)

    def of_pictures() -> Tensor:
        return conv(x)

    def over_time() -> Tensor:
        return over_frames(x)

    def product() -> Tensor:
        return x.flatten(0, 2) @ torch.ones(128, 128)

    steps = {profile.PICTURES: of_pictures, profile.TIME: over_time, profile.PRODUCTS: product}
    for wanted, step in steps.items():
        spent = profile.by_kind(step, "cpu")
        assert max(spent, key=spent.__getitem__) == wanted, spent
    shape = Shape(dtype=torch.float32)
    text = profile.table(shape, rounds=1, contenders={"one": lambda _: Contender(of_pictures, (conv,))})
    assert list(rows(text)) == [*profile.KINDS, "total", "its operations at the peak rate"]


def test_layers() -> None:
    found = rows(layers.table(Shape(frames=3, size=64, dtype=torch.float32), rounds=1))
    assert all(len(numbers) == 2 * len(layers.LEVELS) for numbers in found.values())
    for name, *both in layers.ways(Shape(frames=3, size=64, dtype=torch.float32), 32, 4):
        one, other = (way().flatten().sort().values for way in both)
        if "frames" not in name:  # the three products ignore edges and bias
            torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.long
def test_cascade(comfy_in_process: Path) -> None:
    text = cascade.table(rounds=1, steps=1)
    found = rows(text)
    *stages, total = (numbers[0] for numbers in found.values())
    assert {cascade.TSR_1, cascade.TSR_2, "key frames", "text", "129 frames decoded"} < set(found)
    assert total == pytest.approx(sum(stages), abs=0.1)


@pytest.mark.slow
def test_training_with_and_without_a_set(tmp_path: Path) -> None:
    # float32: a CPU without bfloat16 instructions takes minutes for a step in it
    without = training.table(rounds=1, batch=1, dtype=torch.float32, folder=tmp_path / "nothing")
    assert list(rows(without)) == [training.FLOOR, training.PLAIN, training.AGAIN]
    assert "no encoded set" in without
    folder = tmp_path / "base"
    folder.mkdir()
    found = training.table(rounds=1, batch=1, dtype=torch.float32, folder=write_random_set(folder, 2))
    share = re.search(r"([\d.]+)% of the time", found)
    assert share and 0 < float(share[1]) < 100


def test_what_a_step_holds_is_counted() -> None:
    """The peak is three tensors of 1,000 numbers, of four made; views and older tensors do not count."""
    before = torch.zeros(5000)

    def step() -> Tensor:
        first = torch.ones(1000) + before[:1000].view(10, 100).flatten()[0]
        second = first.view(10, 100) * 2
        return second.t() + 1

    assert memory.most_held(step) == 3 * 4000


def test_counts_are_what_is_measured() -> None:
    """The count is equal with and without storage, and below what the kernels really take."""

    def held(device: str) -> tuple[int, int]:
        with torch.device(device):
            net = UNet3D(tiny.UNET, attend=memory.fused).eval().requires_grad_(False)
            x, times, context = torch.zeros(6, 8, 96, 96), torch.zeros(6), torch.zeros(6, 16, tiny.CONTEXT)

        def step() -> Tensor:
            return net(x, times, context, frames=3)

        with torch.no_grad():
            step()
            return memory.most_held(step), working(step, "cpu") if device == "cpu" else 0

    real, without = held("cpu"), held("meta")
    assert real[0] == without[0] > 2**20
    if not torch.cuda.is_available() and real[1]:
        assert 0.9 * real[0] < real[1] < 4 * real[0]


@pytest.mark.slow
def test_memory_of_cards(comfy_in_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.contenders import Shape

    monkeypatch.setattr(memory, "SIZES", (64, 128))
    found = memory.table(Shape(), measure=False)
    small, _, large, narrow = (line.strip("| ").split(" | ") for line in found.splitlines()[4:])
    assert small[2] == large[2] != narrow[2], "weights depend on their precision alone"
    assert float(small[3].split()[0]) < float(large[3].split()[0]) < float(narrow[3].split()[0])
    assert float(small[5].split()[0]) < float(narrow[5].split()[0])
    assert [cell.split()[1] for cell in small[6:]] == ["frames"] * len(memory.CARDS)
    assert memory.fitting(8, 3, 1, 2) == int((8 - memory.RESERVED - 3 - 1) * 12 + 5)
    assert memory.fitting(3, 3, 1, 2) == 0


@pytest.mark.slow
def test_motion(comfy_in_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(motion, "BUILDERS", motion.builders(NARROW))
    shape = Shape(frames=6, size=64, dtype=torch.float32)
    times, fitting = motion.table(shape, lambda name: name != motion.STOCK, rounds=1).split("Cards")
    found = rows(times)
    assert set(found) == {*PAIRS, *PAIRS.values()}
    for name, (_, _, seconds, ratio, *_) in found.items():
        assert seconds > 0 and (ratio == 1 or name in PAIRS)
    cards = [line.strip("| ").split(" | ") for line in fitting.splitlines() if line.startswith("|")][2:]
    assert [cells[0] for cells in cards] == [motion.PIA] * 2 + [motion.SPARSECTRL] * 2
    assert cards[0][-1] == "32 frames" and cards[2][-1].endswith(" windows")


@pytest.mark.slow
@pytest.mark.long
def test_crafter(comfy_in_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(crafter, "TRAINED_AT", ((64, 64),))
    shape = Shape(crafter.FRAMES, 64, torch.float32)
    built = crafter.builders(NARROW_SD21)
    times, fitting = crafter.table(shape, lambda name: True, rounds=1, built=built).split("Cards")
    found = rows(times)
    assert set(found) == set(built) and all(numbers[2] > 0 for numbers in found.values())
    cards = [line.strip("| ").split(" | ") for line in fitting.splitlines() if line.startswith("|")][2:]
    assert [cells[1] for cells in cards] == list(memory.WEIGHTS) and all(
        cells[-1] == "fits" for cells in cards
    )
    assert [crafter.fits(8, 3, step) for step in (4, 4.1, 8, 8.1)] == [
        "fits", "in turn", "in turn", "needs offloading"
    ]  # fmt: skip


def test_the_crafter_layout_costs_no_more_than_in_diffusers(comfy_in_process: Path) -> None:
    """At full size, by the counts; DynamiCrafter has a picture beside, and says so in parameters."""
    pytest.importorskip("diffusers")
    shape = Shape(crafter.FRAMES, crafter.SIZE)
    ours, theirs, sees = (
        motion.counts(name, shape, crafter.BUILDERS)
        for name in (crafter.MODELSCOPE, crafter.PEER, crafter.DYNAMICRAFTER)
    )
    assert ours.parameters == theirs.parameters
    # The host hands over the timestep of every frame, and diffusers embeds it once per clip.
    assert ours.operations <= 1.0001 * theirs.operations
    assert ours.held <= theirs.held
    assert sees.parameters > ours.parameters and ours.operations < sees.operations < 1.1 * ours.operations


def test_without_rounds_the_first_step_is_timed() -> None:
    calls: list[int] = []
    both = [Contender(lambda one=one: calls.append(one), ()) for one in range(2)]  # type: ignore[misc]
    times, memory = in_turns(both, "cpu", rounds=0)
    assert [len(seen) for seen in (*times, memory)] == [1, 1, 2] and calls == [0, 1]
    times, _ = in_turns(both, "cpu", rounds=2)
    assert [len(seen) for seen in times] == [2, 2] and calls[2:] == [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("name", PAIRS)
def test_motion_weights_cost_no_more_than_in_diffusers(name: str, comfy_in_process: Path) -> None:
    """At full size, by the counts: the same parameters, no more operations, no more memory."""
    pytest.importorskip("diffusers")
    shape = Shape(motion.FRAMES, motion.SIZE)
    ours, theirs = motion.counts(name, shape), motion.counts(PAIRS[name], shape)
    # Not counted the same way: the convolution of SparseCtrl's noisy input, and the bias of PIA's own.
    assert abs(ours.parameters - theirs.parameters) < 12_000
    assert ours.operations <= theirs.operations
    assert ours.held <= theirs.held


def test_motion_says_what_a_card_holds() -> None:
    assert [motion.frames_that_fit(room) for room in (50, 17, 8, 7)] == [
        "32 frames",
        "17 frames",
        "16 frames, in turn",
        "needs offloading",
    ]
    assert [motion.windows_that_fit(room) for room in (33, 17, 8, 7)] == [
        "2 windows",
        "1 window",
        "1 window, in turn",
        "needs offloading",
    ]
