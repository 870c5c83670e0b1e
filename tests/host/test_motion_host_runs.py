"""Video MODELs from a stock MODEL under the host's own nodes: ModelSave, LoRA files, context windows.

The conformance bench applies every node to them (tests/host/test_conformance.py).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.check import tiny
from devtools.check.conformance.models import PIA, Family, stock_shape, write_loras
from devtools.check.conformance.motion import sparsectrl, write_motion
from tests.host.pack import imported, nodes_of

FRAMES, WINDOW, VIDEO = 4, 16, 24
SCALE = 0.18215
"""Factor of Stable Diffusion's latents in model space."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "fp8": torch.float8_e4m3fn}
Maker = Callable[..., Any]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="motion files need diffusers"
)


def of_motion(motion: Any) -> Family:
    """Return the smallest family with one kind of motion weights."""
    return Family(motion, PIA.config, (8, 8), PIA.stock, motion)


@pytest.fixture
def stock(comfy_in_process: Path) -> Maker:
    """Return a maker of stock SD 1.x MODELs with the same random weights, which compute in float32."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    def make(dtype: torch.dtype = torch.float32) -> Any:
        settings = comfy.supported_models.SD15({})
        settings.unet_config = {**stock_shape(PIA), "dtype": dtype}
        settings.manual_cast_dtype = None if dtype == torch.float32 else torch.float32
        model = comfy.model_base.BaseModel(settings)
        weights = {key: value.to(dtype) for key, value in tiny.unet_weights(PIA.config).items()}
        model.load_model_weights(weights)
        device = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)

    return make


@pytest.fixture
def moving(tmp_path: Path) -> Maker:
    """Return a function that adds random motion weights of a kind to a MODEL: (video MODEL, its APPEARNET)."""

    def add(model: Any, motion: str = "v3") -> Any:
        from microcinema_core.adapter.motion import add_motion

        return add_motion(model, write_motion(tmp_path / f"{motion}.safetensors", of_motion(motion)))

    return add


@pytest.fixture
def inflated(stock: Maker) -> Maker:
    """Return a function that inflates a MODEL: (video MODEL, its APPEARNET), which acts."""

    def inflate(model: Any) -> Any:
        from microcinema_core import adapter

        loaded = adapter.inflate_model(model, injection="add_dec", temporal_layout="paper")
        net = loaded.appearnet.patcher.model
        weights = tiny.random_weights(net, 11)
        net.load_state_dict({key: (0.3 * value).to(net.dtype) for key, value in weights.items()})
        return loaded.model, loaded.appearnet

    return inflate


@pytest.fixture
def lora(tmp_path: Path) -> Maker:
    """Return a function that loads a LoRA file with the host's function, as its node LoraLoaderModelOnly does."""
    write_loras(tmp_path, PIA)

    def load(model: Any, name: str = "kohya") -> Any:
        import comfy.sd
        import comfy.utils

        file = comfy.utils.load_torch_file(str(tmp_path / f"{name}.safetensors"), safe_load=True)
        return comfy.sd.load_lora_for_models(model, None, file, 0.8, 0.0)[0]

    return load


def sampled(model: Any, frames: int = FRAMES, *, steps: int = 2, noise: Tensor | None = None) -> Tensor:
    """Sample with the stock KSampler's function."""
    import comfy.sample

    text, negative = (
        [[torch.randn(1, 16, 768, generator=torch.Generator().manual_seed(seed)), {}]] for seed in (1, 2)
    )
    if noise is None:
        noise = torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"disable_pbar": True, "seed": 0}
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, 3.0, "euler", "normal", text, negative, torch.zeros_like(noise), **options
        )


def unmapped(model: Any) -> Any:
    """Return a MODEL after copying its weights out of mapped files, where sums round by the place in memory."""
    for parameter in model.model.diffusion_model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return model


def pictures(count: int, seed: int) -> dict[str, Tensor]:
    return {"samples": torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("dtype", ["fp16", "fp8"])
@pytest.mark.parametrize("stock_runs_first", [False, True])
def test_a_lora_file_before_or_after_motion(
    stock: Maker, moving: Maker, lora: Maker, dtype: str, stock_runs_first: bool
) -> None:
    """In float32, test_motion.py does the same with a patch."""
    image = stock(DTYPES[dtype])
    assert_same_before_and_after(image, lambda model: moving(model)[0], lora, stock_runs_first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stock_runs_first", [False, True])
def test_a_lora_file_before_or_after_inflating(
    stock: Maker, inflated: Maker, lora: Maker, dtype: str, stock_runs_first: bool
) -> None:
    image = stock(DTYPES[dtype])
    assert_same_before_and_after(image, lambda model: inflated(model)[0], lora, stock_runs_first)
    if dtype == "fp32":
        assert_near(sampled(inflated(lora(image))[0]), sampled(lora(image)))


def assert_same_before_and_after(image: Any, make: Maker, lora: Maker, stock_runs_first: bool) -> None:
    """A LoRA file acts once, to the same bits on both sides of `make`, and leaves the stock MODEL alone."""
    alone, before = sampled(image), lora(image)
    if stock_runs_first:
        sampled(before)  # the host bakes the LoRA into the weights, which the video MODEL shares
    first, second, without = make(before), lora(make(image)), make(image)
    made = sampled(first)
    assert torch.equal(made, sampled(second))
    assert not torch.allclose(made, sampled(without), atol=1e-3)
    assert torch.equal(made, sampled(first)), "a second run must not apply it twice"
    assert torch.equal(sampled(image), alone)


def assert_near(value: Tensor, reference: Tensor) -> None:
    assert float((value - reference).norm() / reference.norm()) < 1e-5


@pytest.fixture
def unet_loader(models_in_tmp_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The node MicroCinemaUNetLoader, which finds files in `tmp_path`."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    with imported("a pack") as pack:
        yield nodes_of(pack)["MicroCinemaUNetLoader"]


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("motion", ["v3", "v2", "pia"])
def test_model_save_and_reload(
    stock: Maker, moving: Maker, lora: Maker, unet_loader: Any, tmp_path: Path, motion: str, dtype: str
) -> None:
    """The file holds the LoRA, the temporal layout and the noise schedule: the same bits come out."""
    from comfy_extras.nodes_model_merging import ModelSave

    video = lora(unmapped(moving(stock(DTYPES[dtype]), motion)[0]))
    made = sampled(video)
    ModelSave().save(video, "saved")
    (path,) = tmp_path.glob("saved*.safetensors")
    again = unmapped(unet_loader.execute(path.name, role="unet").args[0])
    assert torch.equal(sampled(again), made)
    sampling = again.model.model_sampling
    assert float(sampling.sigma_max) == pytest.approx(25.146, abs=1e-3)
    for one, other in (
        (again.model.spec.to_metadata(), video.model.spec.to_metadata()),
        (again.model.info.config.to_dict(), video.model.info.config.to_dict()),
    ):
        assert one == other
    assert again.model.spec.betas == "linear"


@dataclass
class Watched:
    """A MODEL, and what the network has to be given for each frame of the whole video.

    Attributes:
        model: the MODEL with its AppearNet.
        key: name of the condition.
        whole: its value for all frames, in model space.
    """

    model: Any
    key: str
    whole: Tensor


AFFINITY = (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75)


def with_pia(anchor: str) -> Maker:
    """Return a maker of a `Watched` with PIA's AppearNet: the picture for each frame, and how like it is."""

    def make(stock: Maker, moving: Maker, **_: Any) -> Watched:
        from microcinema_core import adapter
        from microcinema_core.adapter.model import APPEARNET_INPUT

        given = {"first": 0, "centre": VIDEO // 2}[anchor]
        video, net = moving(stock(), "pia")
        model = adapter.apply_appearance(video, net, pictures(1, 4), anchor=anchor)
        likeness = torch.tensor([AFFINITY[min(abs(frame - given), 6)] for frame in range(VIDEO)])
        picture = (SCALE * pictures(1, 4)["samples"]).expand(VIDEO, -1, -1, -1)
        channel = likeness[:, None, None, None].expand(-1, 1, 8, 8)
        return Watched(model, APPEARNET_INPUT, torch.cat([picture, channel], dim=1))

    return make


def with_sparsectrl(*given: int) -> Maker:
    """Return a maker of a `Watched` with SparseCtrl: pictures at the given frames, zeros elsewhere, and a mask."""

    def make(stock: Maker, moving: Maker, folder: Path, **_: Any) -> Watched:
        from microcinema_core import adapter
        from microcinema_core.adapter.model import APPEARNET_INPUT

        last = pictures(1, 6) if len(given) > 1 else None
        net = sparsectrl(folder, of_motion("v3"))
        model = adapter.apply_appearance(
            moving(stock())[0], net, pictures(1, 4), anchor="first", last_frame=last
        )
        whole = torch.zeros(VIDEO, 5, 8, 8)
        for frame, picture in zip(given, (pictures(1, 4), last), strict=False):
            assert picture is not None
            whole[frame, :4], whole[frame, 4] = SCALE * picture["samples"][0], 1.0
        return Watched(model, APPEARNET_INPUT, whole)

    return make


def with_inflated(count: int) -> Maker:
    """Return a maker of a `Watched` with an inflated MODEL: one picture for all frames, or one for each."""

    def make(stock: Maker, inflated: Maker, **_: Any) -> Watched:
        from microcinema_core import adapter
        from microcinema_core.adapter.model import Z_C

        video, net = inflated(stock())
        model = adapter.apply_appearance(video, net, pictures(count, 4), lambda_=0.05, gamma=0.02)
        return Watched(model, Z_C, (SCALE * pictures(count, 4)["samples"]).repeat(VIDEO // count, 1, 1, 1))

    return make


SUBJECTS = {
    "PIA": with_pia("centre"),
    "PIA, first frame": with_pia("first"),
    "SparseCtrl, first frame": with_sparsectrl(0),
    "SparseCtrl, both ends": with_sparsectrl(0, VIDEO - 1),
    "inflated": with_inflated(1),
    "inflated, a picture for each frame": with_inflated(VIDEO),
}


@pytest.fixture(params=SUBJECTS)
def watched(
    request: pytest.FixtureRequest, stock: Maker, moving: Maker, inflated: Maker, tmp_path: Path
) -> Watched:
    return SUBJECTS[request.param](stock=stock, moving=moving, inflated=inflated, folder=tmp_path)


def slices_conditions() -> bool:
    """Whether the host's context windows work over the frames of a batch."""
    import comfy.model_base

    return hasattr(comfy.model_base.BaseModel, "resize_cond_for_context_window")


def windows(model: Any, **changes: Any) -> Any:
    """Return a MODEL with the stock node Context Windows (Manual)."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    options = {
        "context_length": WINDOW,
        "context_overlap": 8,
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "dim": 0,
    }
    newer = {"freenoise": False} if slices_conditions() else {}
    return ContextWindowsManualNode.execute(model, **{**options, **newer, **changes}).args[0]


def frames_of(window: Any) -> list[int]:
    """Return the indices of the frames that the network sees: the window's, after one that the host adds."""
    before = getattr(window, "causal_anchor_index", None)
    return [*([] if before is None or before < 0 else [before]), *window.index_list]


def by_hand(watched: Watched, whole: Tensor | None, seen: list[tuple[list[int], Tensor]]) -> Any:
    """Return the MODEL with each window's condition recorded, and replaced by its frames of `whole`."""
    model = windows(watched.model)

    def wrapper(apply: Any, given: dict[str, Any]) -> Tensor:
        c = dict(given["c"])
        frames = frames_of(c["transformer_options"]["context_window"])
        seen.append((frames, c[watched.key]))
        if whole is not None:
            c[watched.key] = whole[frames].repeat(len(given["cond_or_uncond"]), 1, 1, 1)
        return apply(given["input"], given["timestep"], **c)

    model.set_model_unet_function_wrapper(wrapper)
    return model


def test_each_window_sees_its_own_frames(watched: Watched) -> None:
    """Twenty-four frames in windows of sixteen: the second window does not hold the first frame."""
    if not slices_conditions():
        pytest.skip("this host's context windows do not work over a batch")
    made, seen = sampled(windows(watched.model), VIDEO), []
    assert made.isfinite().all()
    assert torch.equal(sampled(by_hand(watched, None, seen), VIDEO), made)
    assert [frames for frames, _ in seen[:2]] == [[*range(16)], [*range(7, 24)]]
    for frames, value in seen:
        torch.testing.assert_close(value, watched.whole[frames].repeat(2, 1, 1, 1))
    assert torch.equal(sampled(by_hand(watched, watched.whole, []), VIDEO), made)
    if not torch.equal(watched.whole, watched.whole.roll(1, 0)):
        shifted = watched.whole.roll(1, 0)
        assert not torch.allclose(sampled(by_hand(watched, shifted, []), VIDEO), made, atol=1e-3)


def test_windows_are_clips_of_their_own(stock: Maker, moving: Maker) -> None:
    """Without overlap, each window is the clip that its noise makes alone: frames are counted from its first one."""
    if not slices_conditions():
        pytest.skip("this host's context windows do not work over a batch")
    video, noise = moving(stock())[0], torch.randn(32, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    apart = {
        "context_schedule": "batched",
        "context_overlap": 0,
        "fuse_method": "flat",
        "causal_window_fix": False,
    }
    made = sampled(windows(video, **apart), noise=noise)
    clips = [sampled(video, noise=noise[start : start + WINDOW]) for start in (0, WINDOW)]
    assert_near(made, torch.cat(clips))


def test_an_older_host_is_told_in_a_sentence(watched: Watched) -> None:
    if slices_conditions():
        pytest.skip("this host's context windows work")
    with pytest.raises(ValueError, match=r"context windows of this ComfyUI do not work here for 24 frames"):
        sampled(windows(watched.model), VIDEO)


def test_fewer_frames_than_a_window_need_none(watched: Watched) -> None:
    """On every host; the frames of the video are then the window's."""
    assert sampled(windows(watched.model, context_length=32), VIDEO).isfinite().all()
