"""JSON from files that anybody may have written."""

from __future__ import annotations

import json
from typing import Any


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text, as `json.loads`.

    Raises:
        ValueError: it is no JSON, or JSON that is nested too deeply, which `json.loads` answers with a RecursionError.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
