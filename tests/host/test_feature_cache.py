"""The feature cache: lookup by key is as exact as comparing latents at each step, without synchronisation."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from devtools.check import tiny
from tests.host.tiny_family import applied, ksampler, load_family

STEPS = 2
"""Steps of a run: the host's context windows need as many noise levels as frames, which is steps + 1."""
WAITS = {"equal", "_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"}
"""Operations whose result the CPU reads, so that it waits for the device."""


@pytest.fixture(scope="module")
def family(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    return load_family(tmp_path_factory.mktemp("family"))


class Watched(TorchDispatchMode):
    """A dispatch mode that records the operations for which the CPU would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def watch_steps(family: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that collects, for each coming call of our model, the operations that wait."""
    seen: list[list[str]] = []
    inner = type(family.base.model.model)
    original = inner._apply_model

    def watched(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        with Watched() as mode:
            out = original(self, *args, **kwargs)
        seen.append(mode.waits)
        return out

    monkeypatch.setattr(inner, "_apply_model", watched)
    return seen


def text(seed: int, **options: Any) -> list[Any]:
    return [[torch.randn(1, 16, tiny.CONTEXT, generator=torch.Generator().manual_seed(seed)), options]]


def half(start: int, **options: Any) -> dict[str, Any]:
    """Return conditioning for the left (0) or right (4) half of the picture."""
    return {"area": (8, 4, 0, start), "strength": 1.0, **options}


def windows(model: Any) -> Any:
    """Add context windows of two of the three frames."""
    import comfy.context_windows as host

    schedule = host.get_matching_context_schedule(host.ContextSchedules.STATIC_STANDARD)
    fuse = host.get_matching_fuse_method("pyramid")
    model.model_options["context_handler"] = host.IndexListContextHandler(schedule, fuse, 2, 1)
    return model


def rolled(model: Any) -> Any:
    """Add a third-party wrapper that passes the centre frame's other half to the network first."""

    def wrapper(apply: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        c = dict(given["c"])
        if (z_c := c.get("microcinema_z_c")) is not None:
            c["microcinema_z_c"] = z_c.roll(4 * int(float(given["timestep"][0]) < 5), dims=-1)
        return apply(given["input"], given["timestep"], **c)

    model.set_model_unet_function_wrapper(wrapper)
    return model


def centre_for_each_frame(family: Any) -> Any:
    keys = family.keys
    return family.adapter.apply_appearance(family.base.model, family.base.appearnet, keys, gamma=0.05)


def drop() -> dict[str, bool]:
    from microcinema_core.adapter.model import DROP

    return {DROP: True}


CASES: dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]] = {
    "plain": lambda family: (applied(family), {}),
    "two areas of one size": lambda family: (
        applied(family),
        {"positive": [*text(1, **half(0)), *text(3, **half(4))], "negative": text(2)},
    ),
    "an area beside the whole": lambda family: (
        applied(family),
        {"positive": [*text(1), *text(3, **half(4))], "negative": text(2, **half(0))},
    ),
    "masks": lambda family: (
        applied(family),
        {"positive": [*text(1, mask=torch.eye(64)[None]), *text(3)], "negative": text(2)},
    ),
    "one branch without": lambda family: (
        applied(family),
        {"positive": text(1), "negative": text(2, **drop())},
    ),
    "context windows": lambda family: (windows(applied(family)), {}),
    "a frame for each": lambda family: (centre_for_each_frame(family), {}),
    "a frame for each, in windows": lambda family: (windows(centre_for_each_frame(family)), {}),
    "changed on the way": lambda family: (rolled(applied(family)), {}),
}


@pytest.fixture
def counted(family: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of frames in each call of AppearNet."""
    calls: list[int] = []
    net = family.base.appearnet.patcher.model
    original = net.features

    def features(z_c: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(z_c.shape[0])
        return original(z_c, *args, **kwargs)

    monkeypatch.setattr(net, "features", features)
    yield calls


@pytest.mark.parametrize("case", CASES)
def test_names_are_as_exact_as_comparing(
    family: Any, counted: list[int], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The clip is bit-identical to that without keys, and takes as many evaluations of AppearNet."""
    from microcinema_core.adapter import feature_cache
    from microcinema_core.adapter.model import SLICES_CONDITIONS

    if case == "a frame for each, in windows" and not SLICES_CONDITIONS:
        pytest.skip("refused on this host")
    model, changes = CASES[case](family)
    by_name = ksampler(family, model, steps=STEPS, **changes)
    calls = list(counted)
    counted.clear()
    monkeypatch.setattr(feature_cache, "cache_key_of", lambda latents: None)
    model, changes = CASES[case](family)
    assert torch.equal(ksampler(family, model, steps=STEPS, **changes), by_name)
    assert counted == calls and calls


def test_names_say_entry_part_and_number(family: Any) -> None:
    from microcinema_core.adapter.feature_cache import AppearanceCond, cache_key_of

    z_c = torch.zeros(1, 8, 8, 8)
    one, other, nameless = (AppearanceCond(z_c, name) for name in ("one", "other", None))

    def name(*conds: Any, size: int = 3, area: Any = None) -> Any:
        first, *rest = [cond.process_cond(batch_size=size, area=area) for cond in conds]
        return cache_key_of(first.concat(rest))

    names = [
        name(one),
        name(other),
        name(one, size=4),
        *(name(one, area=[8, 4, 0, start]) for start in (0, 4)),
        name(one, other),
        name(other, one),
        name(one, one),
    ]
    assert len(set(names)) == len(names) and None not in names
    assert name(one, other, area=[8, 4, 0, 4]) == name(one, other, area=[8, 4, 0, 4])
    assert name(nameless) is None and name(one, nameless) is None
    latents = one.process_cond(batch_size=3, area=None).concat([])
    assert (
        cache_key_of(latents) and cache_key_of(latents[:2]) is None and cache_key_of(latents.double()) is None
    )


@pytest.mark.parametrize("case", ["plain", "two areas of one size", "one branch without", "a frame for each"])
def test_only_the_first_step_waits(family: Any, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    model, changes = CASES[case](family)
    seen = watch_steps(family, monkeypatch)
    ksampler(family, model, steps=STEPS, **changes)
    first = len(seen) // STEPS
    assert any(seen[:first]) == (case != "one branch without"), (
        "branches are compared once, where there are two"
    )
    assert seen[first:] == [[]] * (len(seen) - first)


def test_what_is_changed_on_the_way_is_compared(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without usable keys, every step compares latents and therefore waits."""
    model, changes = CASES["changed on the way"](family)
    seen = watch_steps(family, monkeypatch)
    ksampler(family, model, steps=STEPS, **changes)
    assert len(seen) == STEPS and all("equal" in waits for waits in seen)


def test_another_frame_in_the_next_run(family: Any) -> None:
    """Keys of one run are not found in the next."""
    first, second = (
        family.adapter.apply_appearance(family.base.model, family.base.appearnet, {"samples": frame})
        for frame in family.keys["samples"][:2].split(1)
    )
    clips = [ksampler(family, model) for model in (first, second, first)]
    assert torch.equal(clips[0], clips[2]) and not torch.equal(clips[0], clips[1])


def test_latents_beyond_the_room_leave_the_others_theirs(comfy_in_process: Path) -> None:
    """Each step looks up all latents in turn, so evicting the oldest entry would make every lookup miss."""
    from microcinema_core.adapter.feature_cache import FeatureCache
    from microcinema_core.networks.injection import NO_INJECTION

    cache = FeatureCache(limit=2)
    latents = [torch.full((1, 4, 2, 2), float(k)) for k in range(3)]
    found = []
    for _ in range(2):  # steps
        for k, z_c in enumerate(latents):
            hit = cache.find(z_c, 1.0, 1, k)
            found.append(hit is not None)
            if hit is None:
                cache.keep(z_c, 1.0, 1, k, NO_INJECTION)
    assert found == [False, False, False, True, True, False]
