"""Workflows with nodes that only later versions of ComfyUI have.

They are no templates, so that older versions do not offer them; they lie in `workflows/newer`. Schemas of those nodes
stand here, since the files are written with the schemas of the oldest supported version.
"""

from __future__ import annotations

from typing import Any

from . import evaluation, evaluation_notes
from .templates import Template

SCHEMAS: dict[str, Any] = {
    "TextGenerate": {
        "input": {
            "required": {
                "clip": ["CLIP", {}],
                "prompt": ["STRING", {"default": "", "multiline": True, "dynamicPrompts": True}],
                "max_length": ["INT", {"default": 512, "min": 1, "max": 32768}],
                "sampling_mode": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {"options": [{"key": "off", "inputs": {"required": {}}}]},
                ],
            },
            "optional": {"image": ["IMAGE", {}]},
        },
        "output": ["STRING"],
        "output_name": ["generated_text"],
        "display_name": "Generate Text",
        "output_node": False,
    }
}
"""What the workflows here use of the nodes of ComfyUI 0.33.0, by class."""
NEWER = {
    "52 Captioned picture to video (SD 2)": Template(
        evaluation.captioned, evaluation_notes.CAPTIONED, evaluation.MAKES, (0.5,)
    ),
}
"""By title, numbered on from the templates."""
