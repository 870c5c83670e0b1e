"""torch.compile traces a whole step as one graph, without a read of a tensor's value."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from devtools.check import tiny
from microcinema_core.config import AppearNetConfig
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D

FRAMES, CLIPS = 3, 2
CONFIG = replace(tiny.ATTENDING, channel_mult=(1,), transformer_depth=(1,))


@pytest.mark.slow
@torch.no_grad()
def test_the_step_is_one_graph() -> None:
    """UNet3D with every kind of injection; `fullgraph` raises on a graph break."""
    torch.compiler.reset()
    net, appearnet = UNet3D(CONFIG), AppearNet(AppearNetConfig(CONFIG, hidden=16))
    for network in (net, appearnet):
        network.load_state_dict(tiny.random_weights(network))
    x, z_c = torch.randn(CLIPS * FRAMES, 8, 8, 8), torch.randn(CLIPS, 8, 8, 8)
    times, context = torch.full((len(x),), 500.0), torch.randn(len(x), 16, tiny.CONTEXT)
    injection = appearnet.inject(appearnet.features(z_c, times[:CLIPS], None, frames=1))
    assert injection.norms and injection.encoder and injection.given and injection.middle is not None
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    given = {"frames": FRAMES, "injection": injection}
    assert_close(compiled(x, times, context, **given), net(x, times, context, **given))
