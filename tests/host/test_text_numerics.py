"""Text encoder and autoencoder compute in the host's classes what they compute in training."""

from pathlib import Path

import torch

from microcinema_core.config import TextConfig, VAEConfig
from microcinema_core.networks.text import TextEncoder
from microcinema_core.networks.vae import FoldedVAE


def test_text_encoder_equals_the_hosts(comfy_in_process: Path) -> None:
    import comfy.clip_model
    import comfy.ops

    config = TextConfig(width=32, layers=2, heads=2)
    torch.manual_seed(0)
    ours = TextEncoder(config).eval()
    theirs = comfy.clip_model.CLIPTextModel(config.host_config(), torch.float32, "cpu", comfy.ops.manual_cast)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not missing and not unexpected
    tokens = torch.full((2, 77), 49407)
    tokens[:, 0] = 49406
    tokens[0, 1:9] = torch.arange(320, 328)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens)[0], atol=1e-5, rtol=1e-5)


def test_autoencoder_on_the_hosts_layers(comfy_in_process: Path) -> None:
    import comfy.ops

    config = VAEConfig(latent_channels=4, widths=(16, 16), res_blocks=1, decoder_blocks=1, norm_groups=8)
    torch.manual_seed(0)
    ours = FoldedVAE(config).eval()
    theirs = FoldedVAE(config, operations=comfy.ops.manual_cast, dtype=torch.float16).eval()
    theirs.load_state_dict(ours.half().state_dict())
    x = torch.rand(1, 3, 24, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours.float()(x), atol=1e-4, rtol=1e-4)
