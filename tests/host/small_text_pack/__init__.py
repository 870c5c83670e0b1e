"""A node pack for tests only: it makes the host build Wan's text encoder small, as the stand-in of its file is."""

from __future__ import annotations

from typing import Any

import comfy.text_encoders.wan as wan

SMALL = {"num_layers": 1, "num_heads": 1, "d_ff": 64, "vocab_size": 64}
"""In place of 24 layers with 5.7 B parameters; as in tests/host/video_model_files.py."""
NODE_CLASS_MAPPINGS: dict[str, type] = {}
_Published = wan.UMT5XXlModel


class _Small(_Published):  # type: ignore[misc, valid-type]
    def __init__(self, *args: Any, model_options: dict[str, Any], **named: Any) -> None:
        options = {**model_options, "umt5xxl_model_config": SMALL}
        super().__init__(*args, model_options=options, **named)


wan.UMT5XXlModel = _Small
