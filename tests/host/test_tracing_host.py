"""torch.compile under the host: our network is one graph, as the stock one is; features are looked up before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from devtools.check import tiny

FRAMES = 3
CONFIG = replace(tiny.UNET, channel_mult=(1,), transformer_depth=(1,))


def random_network(kind: Callable[..., Any], **settings: Any) -> Any:
    import comfy.ops

    net = kind(**settings, operations=comfy.ops.disable_weight_init, dtype=torch.float32, device="cpu")
    net.load_state_dict(tiny.random_weights(net))
    return net.eval().requires_grad_(False)


def stock() -> Any:
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    from microcinema_core.adapter.network import host_unet_config

    settings = host_unet_config(CONFIG.as_2d()) | {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
    }
    del settings["microcinema"]
    return random_network(UNetModel, **settings)


def random_injector() -> Any:
    import comfy.ops

    from microcinema_core.adapter.feature_cache import FeatureCache, Injector
    from microcinema_core.adapter.network import host_attention
    from microcinema_core.config import AppearNetConfig
    from microcinema_core.networks.appearnet import AppearNet

    net = AppearNet(
        AppearNetConfig(CONFIG, hidden=16),
        operations=comfy.ops.disable_weight_init,
        dtype=torch.float32,
        device="cpu",
        attend=host_attention,
    )
    net.load_state_dict(tiny.random_weights(net))
    return Injector(net.eval().requires_grad_(False), 1.0, True, FeatureCache())


class Graphs:
    """A backend that counts the graphs with any operation, and runs them unchanged."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += any(node.op.startswith("call") for node in graph.graph.nodes)
        return graph.forward


def given(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * FRAMES, 8, 8, 8, generator=generator)
    return x, torch.full((len(x),), 500.0), torch.randn(len(x), 16, tiny.CONTEXT, generator=generator)


@pytest.mark.slow
@torch.no_grad()
def test_the_stock_network_is_one_graph(comfy_in_process: Path) -> None:
    torch.compiler.reset()
    graphs = Graphs()
    torch.compile(stock(), backend=graphs)(*given(0), transformer_options={})
    assert graphs.count == 1


@pytest.mark.slow
@torch.no_grad()
def test_our_network_is_one_graph_for_all_steps_and_runs(comfy_in_process: Path) -> None:
    """A second step, and a second run with another centre frame, reuse the first graph and are correct."""
    from microcinema_core.adapter.feature_cache import INJECTOR, with_cache_key
    from microcinema_core.adapter.model import APPEARNET_INPUT
    from microcinema_core.adapter.network import HostUNet

    torch.compiler.reset()
    graphs, injector = Graphs(), random_injector()
    net = random_network(HostUNet, microcinema=CONFIG)
    compiled = torch.compile(net, backend=graphs)
    clips = []
    for run in range(2):
        injector.cache.clear()
        z_c = with_cache_key(given(run)[0][:1].repeat(2 * FRAMES, 1, 1, 1), object())
        for _ in range(2):
            outs = [
                network(
                    *given(0),
                    transformer_options={"cond_or_uncond": [0, 1], INJECTOR: injector},
                    **{APPEARNET_INPUT: z_c},
                )
                for network in (compiled, net)
            ]
            assert_close(*outs)
            clips.append(outs[0])
    assert graphs.count == 1
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[1], clips[2])
