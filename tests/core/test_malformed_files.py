"""Malformed weight files: every one is refused with a sentence that names the file, whatever is wrong with it."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import TEMPORAL_LAYOUTS, AppearNetConfig, TextConfig, UNetConfig, VAEConfig
from microcinema_core.files.checkpoint import TOKEN_EMBEDDING, read_checkpoint
from microcinema_core.files.load_networks import load_text_encoder, load_vae, load_video_model
from microcinema_core.files.published import add_motion_lora, read_motion_module, read_sparsectrl
from microcinema_core.files.safetensors_io import fingerprint, read_header, read_tensors
from microcinema_core.files.stable_diffusion import read_stable_diffusion
from microcinema_core.model_spec import ModelSpec

NAME = "given.safetensors"
GOOD = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def raw(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    changed = {key: value for key, value in {**GOOD["weight"], **changes}.items() if value is not ...}
    return {"weight": changed}


HEADERS: dict[str, Any] = {
    "no offsets": entry(data_offsets=...),
    "no shape": entry(shape=...),
    "no dtype": entry(dtype=...),
    "shape of texts": entry(shape=["2"]),
    "shape of numbers with a point": entry(shape=[2.5]),
    "negative shape": entry(shape=[-2]),
    "shape null": entry(shape=None),
    "shape too large": entry(shape=[10**30]),
    "bytes that do not fit the shape": entry(shape=[3]),
    "reversed offsets": entry(data_offsets=[8, 0]),
    "negative offsets": entry(data_offsets=[-8, 0]),
    "three offsets": entry(data_offsets=[0, 4, 8]),
    "offsets of texts": entry(data_offsets=["0", "8"]),
    "beyond the end": entry(shape=[200], data_offsets=[0, 800]),
    "dtype a number": entry(dtype=7),
    "unknown dtype": entry(dtype="F12"),
    "entry null": {"weight": None},
    "entry a list": {"weight": [1]},
    "metadata a list": {**GOOD, "__metadata__": [1]},
    "metadata null": {**GOOD, "__metadata__": None},
    "metadata of numbers": {**GOOD, "__metadata__": {"a": 1}},
    "a list": [1],
    "a number": 3,
    "deep": b"[" * 99999,
    "deep objects": b'{"a":' * 99999,
    "not UTF-8": b'{"\xff": 1}',
    "nothing": b"",
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_malformed_header(tmp_path: Path, fault: str) -> None:
    path = raw(tmp_path / NAME, HEADERS[fault])
    with pytest.raises(ValueError, match=NAME):
        read_tensors(path)


def test_a_good_header_passes(tmp_path: Path) -> None:
    path = raw(tmp_path / NAME, {**GOOD, "__metadata__": {"a": "b"}})
    assert read_tensors(path)[0]["weight"].tolist() == [0.0, 0.0]


@cache
def family() -> dict[str, tuple[dict[str, Tensor], dict[str, str]]]:
    """Return tensors and metadata of the tiny files by role."""
    with TemporaryDirectory() as folder:
        tiny.write_family(Path(folder), dtype=torch.float32)
        files = {role: Path(folder) / f"tiny_{role}.safetensors" for role in ("image", "base", "tsr")}
        return {
            role: (load_file(str(file)), dict(read_header(file)["__metadata__"]))
            for role, file in files.items()
        }


def rewritten(
    folder: Path,
    role: str,
    *,
    metadata: dict[str, Any] | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
    tensors: Callable[[dict[str, Tensor]], None] | None = None,
) -> Path:
    """Write the tiny file of a role with other metadata, configurations or tensors."""
    good, entries = family()[role]
    held, entries = {key: tensor.clone() for key, tensor in good.items()}, dict(entries)
    if change is not None:
        configs = json.loads(entries["microcinema.config"])
        change(configs)
        entries["microcinema.config"] = json.dumps(configs)
    entries |= {f"microcinema.{key}": value for key, value in (metadata or {}).items()}
    if tensors is not None:
        tensors(held)
    save_file(held, str(folder / NAME), metadata=entries)
    return folder / NAME


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("terminal", "bogus"), ("terminal", "zero"), ("betas", "cosine"), ("prediction", "x0"), ("role", "film"),
        ("lambda", "nan"), ("lambda", "inf"), ("lambda", "-0.5"), ("lambda", "7"), ("lambda", "a"),
        ("residual", "nan"), ("residual", "-inf"), ("residual", "-1"), ("residual", "1e9"),
        ("fps", "nan"), ("fps", "0"), ("fps", "-2"), ("fps", "1e9"), ("fps", ""),
        ("frames", "0"), ("frames", "-3"), ("frames", "1000000000"), ("frames", "9.5"), ("frames", "x"),
        ("sampling", "["), ("sampling", "[]"), ("sampling", '{"steps": 0}'), ("sampling", '{"cfg": NaN}'),
        ("sampling", '{"steps": "20"}'), ("sampling", '{"speed": 1}'), ("sampling", '{"sampler": 3}'),
        ("window", '{"factor": 1}'), ("window", '{"pairs": 1000000}'), ("window", "null"), ("window", "[" * 99999),
        ("config", "[1]"), ("config", "3"), ("config", "{"), ("config", "[" * 99999), ("format", "2"),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_right(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ValueError, match=NAME) as refusal:
        read_checkpoint(rewritten(tmp_path, "base", metadata={key: value}))
    assert len(str(refusal.value)) < 600


def changed(part: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda configs: configs[part].update(fields)


def replaced(part: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda configs: configs.update({part: value})


UNET: list[dict[str, Any]] = [
    {"num_res_blocks": 10**9}, {"num_res_blocks": -1}, {"num_res_blocks": "2"}, {"num_res_blocks": None},
    {"model_channels": 0}, {"model_channels": 33}, {"model_channels": 10**12}, {"model_channels": True},
    {"channel_mult": 3}, {"channel_mult": []}, {"channel_mult": ["1", "2"]}, {"channel_mult": [1, -2]},
    {"channel_mult": [1] * 5000}, {"transformer_depth": [0, 10**9]}, {"context_dim": -1}, {"context_dim": 1.5},
    {"num_heads": 0, "num_head_channels": -1}, {"num_heads": 7, "num_head_channels": -1}, {"temporal_conv": "twice"},
    {"temporal_conv": 3}, {"position_encoding": None}, {"use_linear_in_transformer": 1}, {"temporal_stem": "yes"},
    {"surprise": 1}, {"temporal_heads": 0},
]  # fmt: skip


@pytest.mark.parametrize("fields", UNET, ids=str)
def test_configurations_that_cannot_be_right(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = rewritten(tmp_path, "base", change=changed("unet", **fields))
    with pytest.raises(ValueError, match=NAME):
        load_video_model(read_checkpoint(path))


@pytest.mark.parametrize(
    ("role", "part", "value"),
    [
        ("base", "unet", [1]), ("base", "unet", None), ("base", "unet", "U-Net"), ("base", "appearnet", 3),
        ("base", "appearnet", {"unet": 3}), ("base", "appearnet", {"injection": "all"}),
        ("base", "appearnet", {"unet": tiny.UNET.to_dict(), "hidden": -1}),
        ("base", "appearnet", {"unet": tiny.UNET.to_dict(), "own_encoder": []}),
        ("image", "vae", {"widths": [32]}), ("image", "vae", {"widths": "wide"}), ("image", "vae", {"norm_groups": 0}),
        ("image", "vae", {**tiny.VAE.to_dict(), "latent_rgb": [[1.0]]}), ("image", "vae", {"fold": 3}),
        ("image", "vae", {**tiny.VAE.to_dict(), "latent_rgb": "red"}), ("image", "vae", {"res_blocks": 10**9}),
        ("image", "text", {"vocab_size": 10**9}), ("image", "text", {"heads": 0}), ("image", "text", {"layers": -1}),
        ("image", "text", {"width": 33}), ("image", "text", []),
    ],
    ids=str,
)  # fmt: skip
def test_configurations_of_other_kinds(tmp_path: Path, role: str, part: str, value: Any) -> None:
    path = rewritten(tmp_path, role, change=replaced(part, value))
    load = {
        "unet": load_video_model,
        "appearnet": load_video_model,
        "vae": load_vae,
        "text": load_text_encoder,
    }
    with pytest.raises(ValueError, match=NAME):
        load[part](read_checkpoint(path))


def test_memory_follows_the_file_and_not_its_metadata(tmp_path: Path) -> None:
    wide = changed("unet", model_channels=8192, channel_mult=[1, 8], num_res_blocks=12, context_dim=32)
    path = rewritten(tmp_path, "base", change=wide)
    checkpoint = read_checkpoint(path)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(ValueError, match=f"the U-Net of {NAME}: .* misshapen"):
        load_video_model(checkpoint)
    assert tracemalloc.get_traced_memory()[1] < 200e6 and time.perf_counter() - started < 10
    tracemalloc.stop()


@pytest.mark.parametrize("where", ["dtype", "shape", "data_offsets", "key", "metadata"])
def test_what_a_header_says_at_length_is_cut_short(tmp_path: Path, where: str) -> None:
    """Libraries repeat what they cannot read, however long it is; a sentence does not."""
    long, path = "F" * 5000, rewritten(tmp_path, "base")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    key = next(key for key in header if key != "__metadata__")
    if where == "key":
        header[long] = header.pop(key)
    elif where == "metadata":
        header["__metadata__"]["microcinema.role"] = long
    else:
        header[key][where] = long
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(ValueError, match=f"{NAME}: ") as caught:
        load_video_model(read_checkpoint(path))
    assert len(str(caught.value)) < 800


def first_float(held: dict[str, Tensor]) -> str:
    return next(key for key in held if key.endswith("input_blocks.0.0.weight"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    def spoil(held: dict[str, Tensor]) -> None:
        held[first_float(held)].view(-1)[3] = value

    with pytest.raises(ValueError, match=f"{NAME}: .*input_blocks.* holds NaN or infinite values"):
        read_checkpoint(rewritten(tmp_path, "base", tensors=spoil))


@pytest.mark.parametrize("value", [65536.0, -1e21, 3e38])
def test_weights_beyond_float16_are_damage(tmp_path: Path, value: float) -> None:
    """A changed bit of an exponent: finite, and everything that it meets becomes infinite."""

    def spoil(held: dict[str, Tensor]) -> None:
        key = first_float(held)
        held[key] = held[key].float()
        held[key].view(-1)[3] = value

    with pytest.raises(ValueError, match=f"{NAME}: .*input_blocks.* holds values beyond 65504"):
        read_checkpoint(rewritten(tmp_path, "base", tensors=spoil))


def test_large_values_are_no_fault(tmp_path: Path) -> None:
    """The largest float16 is a weight, and what is no weight may be larger: no sum overflows on the way."""
    save_file({"weight": torch.full((400,), 65504.0)}, str(tmp_path / NAME))
    assert read_tensors(tmp_path / NAME)[0]["weight"][0] == 65504
    save_file({"weight": torch.full((400,), 3e38)}, str(tmp_path / NAME))
    assert read_tensors(tmp_path / NAME, largest=torch.inf)[0]["weight"][0] > 2e38


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_whole_numbers_as_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    def spoil(held: dict[str, Tensor]) -> None:
        held[first_float(held)] = held[first_float(held)].to(dtype)

    with pytest.raises(ValueError, match=f"{NAME}: .* floating-point weights were expected"):
        load_video_model(read_checkpoint(rewritten(tmp_path, "base", tensors=spoil)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.pop("rows"),
        lambda text: text.pop("ids"),
        lambda text: text.pop("size"),
        lambda text: text.update(ids=text["ids"] + 10**6),
        lambda text: text.update(ids=text["ids"] - 10**6),
        lambda text: text.update(ids=text["ids"][:-1]),
        lambda text: text.update(size=text["size"] * 0 + 10**9),
        lambda text: text.update(size=text["size"].repeat(2)),
        lambda text: text.update(rows=text["rows"][:, :-1].contiguous()),
        lambda text: text.update(rows=text["rows"].flatten()),
    ],
)
def test_damaged_token_embeddings(tmp_path: Path, spoil: Callable[[dict[str, Tensor]], Any]) -> None:
    def change(held: dict[str, Tensor]) -> None:
        prefix = f"cond_stage_model.{TOKEN_EMBEDDING}"
        text = {key: held.pop(prefix + key) for key in ("rows", "ids", "size")}
        spoil(text)
        held.update({prefix + key: value for key, value in text.items()})

    with pytest.raises(ValueError, match=NAME):
        load_text_encoder(read_checkpoint(rewritten(tmp_path, "image", tensors=change)))


def stable_diffusion() -> dict[str, Tensor]:
    config = UNetConfig(
        model_channels=32, channel_mult=(1, 1), num_res_blocks=1, transformer_depth=(1, 0), context_dim=8,
        num_heads=8, num_head_channels=-1, use_linear_in_transformer=False,
    ).as_2d()  # fmt: skip
    return {f"model.diffusion_model.{key}": value for key, value in tiny.unet_weights(config).items()}


NEEDED = ("out.2.weight", "input_blocks.0.0.weight", "middle_block.1.proj_in.weight",
          "middle_block.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.1.0.in_layers.2.weight")  # fmt: skip


@pytest.mark.parametrize("shape", [None, (), (1,), (4, 4), (0, 0, 0, 0)], ids=str)
@pytest.mark.parametrize("key", NEEDED)
def test_stable_diffusion_files_with_a_tensor_wrong(tmp_path: Path, key: str, shape: Any) -> None:
    from microcinema_core.files.inflate import inflate

    tensors = stable_diffusion()
    tensors.pop(f"model.diffusion_model.{key}")
    if shape is not None:
        tensors[f"model.diffusion_model.{key}"] = torch.zeros(shape)
    save_file(tensors, str(tmp_path / NAME))
    try:
        checkpoint = read_stable_diffusion(tmp_path / NAME)
        inflated = inflate(checkpoint.part("unet"), config=checkpoint.described("unet"))
        wrong = inflated.unet[key].shape != torch.Size(shape or ())
        assert not wrong, "the strict loader refuses what is left"
    except ValueError as error:
        assert len(str(error)) < 600


@pytest.mark.parametrize(
    "text", ["[", "[1]", "null", '{"prediction_type": 3}', '{"prediction_type": "sample"}', "[" * 99999]
)
def test_a_diffusers_folder_with_malformed_settings(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "model"
    for inner in ("unet", "scheduler"):
        (folder / inner).mkdir(parents=True)
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=8, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    save_file(net.state_dict(), str(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    read_stable_diffusion(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"model: scheduler_config\.json"):
        read_stable_diffusion(folder)


IMAGE = UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), num_res_blocks=1, context_dim=768, num_heads=8,
                   num_head_channels=-1, use_linear_in_transformer=False).as_2d()  # fmt: skip
PLACE = "down_blocks.3.motion_modules.0.temporal_transformer"


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{PLACE}.norm.weight": torch.zeros(4), "surprise": torch.zeros(1)},
        {f"{PLACE}.norm.weight": torch.zeros(4), "conv_in.weight": torch.zeros(4)},
        {f"{PLACE}.norm.weight": torch.zeros(4), "conv_in.weight": torch.zeros(32, 5, 3, 3)},
        {f"{PLACE}.norm.weight": torch.zeros(4), "conv_in.bias": torch.zeros(32)},
        {f"{PLACE}.norm.weight": torch.zeros(4, dtype=torch.int32)},
        {f"{PLACE}.norm.weight": torch.full((4,), float("nan"))},
        {
            f"{PLACE}.norm.weight": torch.zeros(4),
            "down_blocks.9.motion_modules.0.norm.weight": torch.zeros(4),
        },
        {f"{PLACE}.pos_encoder.pe": torch.zeros(3)},
    ],
    ids=lambda tensors: list(tensors)[-1],
)
def test_malformed_motion_modules(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, str(tmp_path / NAME))
    with pytest.raises(ValueError, match=NAME):
        read_motion_module(tmp_path / NAME, IMAGE)


@pytest.mark.parametrize(
    "tensors",
    [
        {"controlnet_cond_embedding.weight": torch.zeros(4, 5, 3, 3)},
        {"controlnet_cond_embedding.weight": torch.zeros(4)},
        {"input_hint_block.0.weight": torch.zeros(4, 5, 3, 3), "input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3),
         f"{PLACE}.norm.weight": torch.zeros(4)},
    ],
    ids=len,
)  # fmt: skip
def test_malformed_sparsectrls(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, str(tmp_path / NAME))
    with pytest.raises(ValueError, match=NAME):
        read_sparsectrl(tmp_path / NAME)


@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 4), (4, 4)), ((4,), (4,)), ((4, 4, 1), (4, 4, 1)), ((64, 4), (3, 64)), ((0,), (4, 64)), ((64, 4), (4,)),
        ((), ()), ((64, 4), ()),
    ],
    ids=str,
)  # fmt: skip
def test_malformed_motion_loras(tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    place = f"{PLACE}.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
    weights = {
        f"{place}.{way}.weight": torch.zeros(shape) for way, shape in zip(("up", "down"), shapes, strict=True)
    }
    save_file(weights, str(tmp_path / NAME))
    key, second = (
        "input_blocks.7.0.temporal.attns.0.to_q.weight",
        IMAGE.inflated(**TEMPORAL_LAYOUTS["animatediff_v2"]),
    )
    with pytest.raises(ValueError, match=rf"{NAME}: it changes .* which do not fit"):
        add_motion_lora({key: torch.zeros(64, 64)}, tmp_path / NAME, second, 1.0)


def test_a_motion_lora_that_overflows(tmp_path: Path) -> None:
    place = f"{PLACE}.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
    save_file(
        {
            f"{place}.up.weight": torch.full((64, 2), 300.0),
            f"{place}.down.weight": torch.full((2, 64), 300.0),
        },
        str(tmp_path / NAME),
    )
    second = IMAGE.inflated(**TEMPORAL_LAYOUTS["animatediff_v2"])
    module = {"input_blocks.7.0.temporal.attns.0.to_q.weight": torch.zeros(64, 64, dtype=torch.float16)}
    with pytest.raises(
        ValueError, match=rf"{NAME}: with a strength of 1, .* beyond 65504, the largest weight"
    ):
        add_motion_lora(module, tmp_path / NAME, second, 1.0)
    add_motion_lora(module, tmp_path / NAME, second, 0.1)


def test_a_file_that_is_overwritten_does_not_change_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / NAME
    save_file({"weight": torch.ones(1000)}, str(path))
    read, mapped = read_tensors(path)[0]["weight"], read_tensors(path, mapped=True)[0]["weight"]
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 4000)
        file.write(bytes(4000))
    assert bool((read == 1).all())
    assert bool((mapped == 0).all()), "this file was mapped: the test sees the difference"
    with path.open("r+b") as file:
        file.truncate(100)
    assert float(read.sum()) == 1000.0, "a mapped tensor would kill the process here"


def test_a_file_written_again_has_another_fingerprint(tmp_path: Path) -> None:
    import os

    path = tmp_path / NAME
    save_file({"weight": torch.zeros(4)}, str(path))
    first, times = fingerprint(path), path.stat()
    assert fingerprint(path) == first
    replacement = tmp_path / "other"
    save_file({"weight": torch.ones(4)}, str(replacement))
    os.utime(replacement, ns=(times.st_atime_ns, times.st_mtime_ns))
    replacement.replace(path)
    assert path.stat().st_mtime_ns == times.st_mtime_ns and path.stat().st_size == times.st_size
    assert fingerprint(path) != first
    (tmp_path / "empty").touch()
    assert fingerprint(tmp_path / "empty")


@pytest.mark.parametrize("name", ["a\udc80b.safetensors", "a\nb.safetensors", "\u202eb.safetensors"])
def test_names_that_no_log_can_write_are_escaped(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no such file") as refusal:
        read_header(tmp_path / name)
    str(refusal.value).encode("utf-8")


def test_written_configurations_pass() -> None:
    for config in (
        UNetConfig(),
        AppearNetConfig(),
        VAEConfig(),
        TextConfig(),
        tiny.UNET,
        tiny.VAE,
        tiny.TEXT,
    ):
        again = json.loads(json.dumps(config.to_dict()))
        assert type(config).from_dict(again) == config
    spec = ModelSpec("tsr", 0.03, 8.0, 5)
    assert ModelSpec.from_metadata(spec.to_metadata()) == spec


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_weights_are_told_from_damage_in_every_dtype(dtype: torch.dtype) -> None:
    from microcinema_core.files.safetensors_io import within

    values = torch.linspace(-3, 3, 1001)
    assert within(values.to(dtype)) and within(values[:0].to(dtype))
    for place in (0, 500, 1000):
        for bad in (float("nan"), float("inf"), -float("inf"), 70000.0, -70000.0, 50000.0):
            spoilt = values.clone()
            spoilt[place] = bad
            told = spoilt.to(dtype)
            assert within(told) == bool((told.float().abs() <= 65504).all())
