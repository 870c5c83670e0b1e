"""Motion weights of diffusers' networks under the keys of the other published layouts, for tests."""

from __future__ import annotations

import re

from torch import Tensor

from microcinema_core.files.stable_diffusion import from_diffusers


def original_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a diffusers motion module under the original's keys, with its table of positions at each attention."""
    out = {}
    for key, value in tensors.items():
        if ".motion_modules." not in key:
            out[key] = value
            continue
        head, number, rest = (
            key.partition(".motion_modules.")[0],
            *key.partition(".motion_modules.")[2].split(".", 1),
        )
        names = {
            "attn1": "attention_blocks.0",
            "attn2": "attention_blocks.1",
            "norm1": "norms.0",
            "norm2": "norms.1",
        }
        if rest.endswith("pos_embed.pe"):
            for k in range(2):
                place = f"transformer_blocks.0.attention_blocks.{k}.pos_encoder.pe"
                out[f"module.{head}.motion_modules.{number}.temporal_transformer.{place}"] = value.clone()
            continue
        parts = [{**names, "norm3": "ff_norm"}.get(part, part) for part in rest.split(".")]
        out[f"module.{head}.motion_modules.{number}.temporal_transformer.{'.'.join(parts)}"] = value
    return out


def in_webui_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a SparseCtrl of diffusers under the keys of AnimateDiff's WebUI extension: those of a ControlNet."""
    places = {
        r"controlnet_down_blocks\.(\d+)\.": r"zero_convs.\1.0.",
        r"controlnet_mid_block\.": "middle_block_out.0.",
        r"controlnet_cond_embedding\.": "input_hint_block.0.",
    }
    moved = {}
    for key, value in original_names(state).items():
        for pattern, to in places.items():
            key = re.sub(f"^{pattern}", to, key)
        moved[key.removeprefix("module.")] = value
    spatial = {
        key: moved.pop(key)
        for key in list(moved)
        if key.startswith(("down_blocks", "mid_block", "conv_in", "time_embedding"))
        and ".motion_modules." not in key
    }
    return {**moved, **from_diffusers(spatial)}
