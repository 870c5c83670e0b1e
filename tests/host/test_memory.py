"""Memory: true sizes are reported to the host, chunks shrink when memory runs out, runs free it; precisions."""

from __future__ import annotations

import gc
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from devtools.check import tiny
from devtools.run.host import Host
from devtools.run.server import ComfyServer
from tests.host.test_bad_input import slow_motion

KEYS = 6


@pytest.fixture(scope="module")
def family(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    folder = tmp_path_factory.mktemp("family")
    tiny.write_family(folder, dtype=torch.float32)
    family = load(folder)
    family.image = family.adapter.load_checkpoint(folder / "tiny_image.safetensors")
    return family


def load(folder: Path) -> types.SimpleNamespace:
    from microcinema_core import adapter

    parts = {name: adapter.load_checkpoint(folder / f"tiny_{name}.safetensors") for name in ("base", "tsr")}
    return types.SimpleNamespace(adapter=adapter, folder=folder, **parts)


def latent(frames: int) -> dict[str, Tensor]:
    return {"samples": torch.randn(frames, 8, 8, 8, generator=torch.Generator().manual_seed(5))}


def settings(family: Any) -> Any:
    def text(seed: int) -> Any:
        return [[torch.randn(1, 16, tiny.CONTEXT, generator=torch.Generator().manual_seed(seed)), {}]]

    return family.adapter.SamplerSettings(
        positive=text(1), negative=text(2), seed=7, steps=2, cfg=4.0, sampler_name="euler", scheduler="normal"
    )


def interpolated(family: Any, chunk: int = 0) -> Tensor:
    with torch.inference_mode():
        return family.adapter.interpolate_video(
            family.tsr.model,
            family.tsr.appearnet,
            latent(KEYS),
            settings(family),
            rounds=1,
            lambda_=-1,
            gamma=0,
            chunk=chunk,
        )["samples"]


def video(family: Any) -> Tensor:
    with torch.inference_mode():
        return family.adapter.sample_video(
            family.base.model,
            family.base.appearnet,
            latent(1),
            settings(family),
            frames=3,
            lambda_=-1,
            gamma=0.02,
        )[0]["samples"]


class Limited:
    """A wrapper that simulates limited memory: a batch of more than `most` pictures raises `error`."""

    def __init__(self, run: Callable[..., Tensor], most: int, error: Exception) -> None:
        self.run, self.most, self.error = run, most, error
        self.batches: list[int] = []

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.batches.append(x.shape[0])
        if x.shape[0] > self.most:
            raise self.error
        return self.run(x, *args, **kwargs)


ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "mps", "cpu"])
def test_tsr_halves_its_chunk_and_goes_on(
    family: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    whole = interpolated(family, chunk=5)
    net = family.tsr.model.model.diffusion_model
    limited = Limited(net._run_video, most=2 * 2 * 5, error=error)
    monkeypatch.setattr(net, "_run_video", limited)
    assert_close(interpolated(family, chunk=5), whole, rtol=1e-3, atol=1e-3)
    failed = [batch for batch in limited.batches if batch > limited.most]
    assert failed == [50, 30], (
        "five pairs in both branches, then three; two fit, and no more than two are tried again"
    )


def test_one_pair_too_many_is_the_users_to_know(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = family.tsr.model.model.diffusion_model
    for error in (ERRORS[0], RuntimeError("something else broke")):
        limited = Limited(net._run_video, most=0, error=error)
        with monkeypatch.context() as patch:
            patch.setattr(net, "_run_video", limited)
            with pytest.raises(RuntimeError, match=str(error)[:20].replace("(", ".")):
                interpolated(family, chunk=4)
        expected = [40, 20, 10] if error is ERRORS[0] else [40]
        assert limited.batches == expected


def test_free_memory_decides_the_chunk(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management

    from microcinema_core.adapter.tsr_windows import WindowBatchSize

    shape = torch.Size((8, 64, 64))
    one = family.tsr.model.memory_required([10, *shape])
    monkeypatch.setattr(management, "is_device_cpu", lambda device: False)
    for pairs in (1, 3, 7):
        monkeypatch.setattr(
            management, "get_free_memory", lambda device, pairs=pairs: 1.5 * one * (pairs + 0.5)
        )
        at_once = WindowBatchSize(family.tsr.model, family.tsr.appearnet, requested=0)
        assert (at_once(100, shape), at_once(2, shape)) == (pairs, min(pairs, 2))
    monkeypatch.setattr(management, "get_free_memory", lambda device: 0.0)
    assert WindowBatchSize(family.tsr.model, family.tsr.appearnet, requested=0)(5, shape) == 1


def test_the_decoder_halves_its_batch(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import nodes

    vae = family.image.vae
    with torch.inference_mode():
        whole = nodes.VAEDecode().decode(vae, latent(5))[0]
        encoded = nodes.VAEEncode().encode(vae, whole)[0]["samples"]
        decoder = Limited(vae.first_stage_model.decoder.forward, most=2, error=ERRORS[0])
        encoder = Limited(vae.first_stage_model.encoder.forward, most=2, error=ERRORS[0])
        monkeypatch.setattr(vae.first_stage_model.decoder, "forward", decoder)
        monkeypatch.setattr(vae.first_stage_model.encoder, "forward", encoder)
        assert_close(nodes.VAEDecode().decode(vae, latent(5))[0], whole, rtol=1e-5, atol=1e-5)
        assert_close(nodes.VAEEncode().encode(vae, whole)[0]["samples"], encoded, rtol=1e-4, atol=1e-4)
    assert max(decoder.batches) > 2 and min(decoder.batches) <= 2


def test_the_host_sees_true_sizes(family: Any) -> None:
    """The sizes that the host plans with count all parameters, AppearNet's and the U-Net's."""

    def size(module: torch.nn.Module) -> int:
        return sum(t.nbytes for t in [*module.parameters(), *module.buffers()])

    base = family.base
    for patcher in (base.model, base.appearnet.patcher, family.image.vae.patcher, family.image.clip.patcher):
        assert patcher.model_size() == pytest.approx(size(patcher.model), rel=0.01)
    model = family.adapter.apply_appearance(base.model, base.appearnet, latent(1))
    (attached,) = model.get_additional_models_with_key("microcinema_appearnet")
    assert attached.model is base.appearnet.patcher.model
    stock = super(type(base.model.model), base.model.model).memory_required([6, 8, 8, 8])
    assert base.model.memory_required([6, 8, 8, 8]) >= stock


def test_all_is_unloaded(family: Any) -> None:
    import comfy.model_management as management

    video(family)
    assert management.current_loaded_models
    management.unload_all_models()
    assert not management.current_loaded_models
    assert not family.base.model.model.feature_cache.entries


def test_ten_runs_leave_memory_flat(comfy_in_process: Path, family: Any) -> None:
    """Load both files, sample, interpolate, decode and release everything, ten times."""
    import comfy.model_management as management

    import nodes

    def once() -> int:
        fresh = load(family.folder)
        with torch.inference_mode():
            frames = {"samples": video(fresh)}
            nodes.VAEDecode().decode(family.image.vae, frames)
        interpolated(fresh)
        del fresh, frames
        management.unload_all_models()
        gc.collect()
        return psutil.Process().memory_info().rss

    sizes = [once() for _ in range(10)]
    loaded = sum((family.folder / f"tiny_{name}.safetensors").stat().st_size for name in ("base", "tsr"))
    assert max(sizes[5:]) - sizes[4] < 2 * loaded, "what stayed behind would be there five times"


FLAGS = {
    "fp8_e4m3fn_unet": (torch.float8_e4m3fn, 0.3),
    "fp8_e5m2_unet": (torch.float8_e5m2, 0.5),
    "bf16_unet": (torch.bfloat16, 0.05),
    "fp16_unet": (torch.float16, 0.01),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_precisions(family: Any, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """Each flag sets the dtype of the stored weights, AppearNet's too; the clip is equal within that precision."""
    from comfy.cli_args import args

    exact = video(family)
    monkeypatch.setattr(args, flag, True)
    dtype, tolerance = FLAGS[flag]
    changed = load(family.folder)
    for module in (changed.base.model.model.diffusion_model, changed.base.appearnet.patcher.model):
        assert {p.dtype for p in module.parameters()} == {dtype}
    clip = video(changed)
    assert clip.isfinite().all()
    assert float((clip - exact).norm() / exact.norm()) < tolerance
    assert not torch.equal(clip, exact)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "dtype"), [("--fp8_e4m3fn-unet", "float8_e4m3fn"), ("--bf16-unet", "bfloat16")]
)
def test_a_host_started_with_the_flag_runs_a_graph(comfyui: Host, flag: str, dtype: str) -> None:
    """The host's log reports that precision for all U-Nets, and the whole graph gives a finite clip."""
    with ComfyServer(sys.executable, comfyui, arguments=(flag,)) as server:
        (server.models_dir / "microcinema").mkdir()
        tiny.write_family(server.models_dir / "microcinema")
        outputs = server.run(slow_motion())
        (file,) = outputs["save"]["latents"]
        clip = load_file(server.output_dir / file["subfolder"] / file["filename"])["latent_tensor"]
        said = re.findall(r"model weight dtype torch\.(\w+)", server.log)
    assert clip.shape[0] == 9 and clip.isfinite().all() and clip.std() > 0
    assert said == [dtype] * 3


def test_little_memory_for_weights(family: Any) -> None:
    """As under --lowvram and --novram: layers left off the device are cast one by one as they are used."""
    exact = video(family)
    for patcher in (family.base.model, family.base.appearnet.patcher):
        patcher.detach(unpatch_all=True)
        patcher.load(torch.device("cpu"), lowvram_model_memory=1024)
        layers = [m for m in patcher.model.modules() if getattr(m, "comfy_cast_weights", False)]
        assert len(layers) > 10
    assert_close(video(family), exact, rtol=1e-4, atol=1e-4)
    for patcher in (family.base.model, family.base.appearnet.patcher):
        patcher.detach(unpatch_all=True)
