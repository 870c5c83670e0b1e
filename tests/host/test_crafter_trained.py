"""DynamiCrafter as training writes it, and the features that training sees, against the host's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from devtools.check.crafter_files import write_crafter
from microcinema_core.data.videos.vision import PictureEncoder
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.files.crafter import read_crafter
from tests.host.test_crafter import SMALL, picture
from tests.host.test_crafter_nodes import Nodes, encoded, inputs, nodes, vision

pytest.importorskip("transformers")
FILE = "dynamicrafter_512_fp16_pruned.safetensors"
assert nodes and vision


def test_features_are_the_hosts(vision: Any, tmp_path: Path) -> None:
    from nodes import CLIPVisionEncode

    path = tmp_path / "vision.safetensors"
    save_file({key: value.contiguous() for key, value in vision.model.state_dict().items()}, path)
    ours = PictureEncoder(path)
    for side in ((28, 28), (40, 96)):
        frames = torch.randint(
            0, 256, (2, 3, *side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
        )
        image = frames.movedim(1, -1).float() / 255
        theirs = CLIPVisionEncode().encode(vision, image, "none")[0]["last_hidden_state"].float()
        torch.testing.assert_close(ours.features(frames), theirs, rtol=1e-3, atol=1e-3)
    theirs = vision.encode_image(torch.full((1, 28, 28, 3), 0.5), crop=False)["last_hidden_state"]
    torch.testing.assert_close(ours.grey()[None], theirs.float(), rtol=1e-3, atol=1e-3)


def test_a_trained_file_needs_no_clip_vision_at_its_loader(
    nodes: Nodes,
    vision: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The grey picture's features are in the file: it samples what the published file samples with them."""
    from microcinema_core.adapter.crafter import grey_features

    read = read_crafter(write_crafter(tmp_path / FILE, SMALL))
    assert read.appearnet_config and read.appearnet_config.resampler and read.appearnet
    grey = grey_features(vision)
    assert grey is not None
    resampler = replace(read.appearnet_config.resampler, grey=grey.shape[1])
    write_checkpoint(
        tmp_path / "trained.safetensors",
        {"unet": read.unet, "appearnet": {**read.appearnet, "grey": grey[0]}},
        spec=replace(read.spec, origin=""),
        configs={"unet": read.config, "appearnet": replace(read.appearnet_config, resampler=resampler)},
        dtype=torch.float32,
    )

    def made(loaded: Any, appearnet: Any) -> torch.Tensor:
        given = {"model": loaded, "appearnet": appearnet, "centre_frame": picture(3), "frames": 0}
        run = nodes["MicroCinemaSampler"].execute(**given, **inputs(), clip_vision_output=encoded(vision))
        return run.args[0]["samples"]

    published = nodes["MicroCinemaCrafterLoader"].execute(file=FILE, use="auto", clip_vision=vision).args
    trained = nodes["MicroCinemaCheckpointLoader"].execute(file="trained.safetensors").args
    ours = made(trained[0], trained[3])
    torch.testing.assert_close(ours, made(published[0], published[2]), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="connect clip_vision_output"):
        nodes["MicroCinemaSampler"].execute(
            model=trained[0], appearnet=trained[3], centre_frame=picture(3), frames=0, **inputs()
        )
