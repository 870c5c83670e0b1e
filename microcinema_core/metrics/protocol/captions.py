"""Captions of centre frames by a vision-language model in a local folder (Table 3: LLaVA-1.5).

Any model that transformers opens as image-text-to-text will do: LLaVA, Florence-2, BLIP. No code of the folder is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ...files.atomic import atomic_write
from ...messages import one_line, reason
from .centres import PICTURE_SUFFIXES
from .prompts import read_texts
from .run_record import RECORD, describe_centres, digest_of_files, refuse_mixture, write_record

INSTRUCTION = "Describe this picture in one sentence."
"""Said to models that chat. The paper does not give its own."""
TASKS = {"florence2": "<CAPTION>"}
"""Said to models that know tasks instead, by their `model_type`."""
MOST_TOKENS = 77
"""Tokens of a caption; the text encoders read no more."""
LEAST_TRANSFORMERS = "4.56.0"
"""The first that takes `dtype=` and knows Florence-2; the extra `metrics` of pyproject.toml asks for it."""
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How transformers opens a folder: no download, and none of its code."""


@dataclass(frozen=True)
class CaptionOptions:
    """The checked options of the action `captions`.

    Attributes:
        pictures: folder of centre frames.
        out: JSONL file of `file_name` and `text`.
        model: folder of the model and its processor, as `save_pretrained` writes them.
        instruction: what the model is asked; None asks models that chat INSTRUCTION, models with tasks theirs, and
            others nothing.
        batch: pictures at a time.
        device: device of the model.
        dtype: precision of the model.
    """

    pictures: Path
    out: Path
    model: Path
    instruction: str | None = None
    batch: int = 4
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


def write_captions(options: CaptionOptions) -> int:
    """Caption all pictures that have no caption yet, and return the number of all captions.

    Raises:
        ValueError: the folder holds no picture, the model cannot be opened, or the captions that are there were made
            in another way.
        OSError: the file cannot be written.
    """
    _check_transformers()
    names = sorted(
        path.name for path in options.pictures.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES
    )
    if not names:
        raise ValueError(f"{one_line(options.pictures)} holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    processor, prompt = _open_processor(options)
    record, facts = options.out.with_name(f"{options.out.stem}.{RECORD}"), _facts(options, prompt)
    refuse_mixture(record, facts, [options.out], f"captions in {one_line(options.out)}")
    known = read_texts(options.out) if options.out.exists() else {}
    pending = [name for name in names if Path(name).stem not in known]
    found = {name: known[Path(name).stem] for name in names if Path(name).stem in known}
    if pending:
        captioner = Captioner(options, processor, prompt)
        write_record(record, facts)
        for part in _watched([pending[i : i + options.batch] for i in range(0, len(pending), options.batch)]):
            found |= zip(part, captioner([options.pictures / name for name in part]), strict=True)
            _write(options.out, {name: found[name] for name in names if name in found})
    return len(found)


def _check_transformers() -> None:
    import transformers
    from packaging.version import Version

    if Version(transformers.__version__) < Version(LEAST_TRANSFORMERS):
        raise ValueError(
            f"transformers {transformers.__version__} is installed, and captions need {LEAST_TRANSFORMERS} or later: "
            "pip install '.[metrics]' in this repository brings it"
        )


def _facts(options: CaptionOptions, prompt: str | None) -> dict[str, Any]:
    """Return all that the captions depend on."""
    return {
        "model": digest_of_files(options.model),
        "prompt": prompt,
        "pictures": describe_centres(options.pictures, options.out.parent),
        "dtype": str(options.dtype).removeprefix("torch."),
    }


def _watched(parts: Sequence[list[str]]) -> Any:
    from tqdm import tqdm

    return tqdm(parts, desc="captions", unit="batch", disable=not sys.stderr.isatty())


def _write(path: Path, captions: dict[str, str]) -> None:
    lines = [
        json.dumps({"file_name": name, "text": text}, ensure_ascii=False) for name, text in captions.items()
    ]
    with atomic_write(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _open_processor(options: CaptionOptions) -> tuple[Any, str | None]:
    """Return a model's processor and the text that goes with each picture, in its chat template where it has one.

    Raises:
        ValueError: the folder holds no model of transformers.
    """
    from transformers import AutoConfig, AutoProcessor

    try:
        processor: Any = AutoProcessor.from_pretrained(options.model, **LOCAL)
        kind = AutoConfig.from_pretrained(options.model, **LOCAL).model_type
    except Exception as error:  # a wrong folder raises almost anything in the library
        raise _not_opened(options.model, error) from error
    text = options.instruction
    if not getattr(processor, "chat_template", None):
        return processor, TASKS.get(kind) if text is None else text
    content = [{"type": "image"}, {"type": "text", "text": INSTRUCTION if text is None else text}]
    question = [{"role": "user", "content": content}]
    return processor, processor.apply_chat_template(question, add_generation_prompt=True)


def _not_opened(model: Path, error: Exception) -> ValueError:
    return ValueError(
        f"--model {one_line(model)} cannot be opened ({reason(error)}); expected a folder of a vision-language model "
        "with its processor and model.safetensors"
    )


class Captioner:
    """A vision-language model with its processor, and the text that goes with each picture."""

    def __init__(self, options: CaptionOptions, processor: Any, prompt: str | None) -> None:
        from transformers import AutoModelForImageTextToText

        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                options.model, use_safetensors=True, dtype=options.dtype, **LOCAL
            )
        except Exception as error:  # a wrong folder raises almost anything in the library
            raise _not_opened(options.model, error) from error
        self.model = model.eval().requires_grad_(False).to(options.device)
        self.processor, self.prompt, self.options = processor, prompt, options
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"  # generation continues at the right end

    @torch.inference_mode()
    def __call__(self, paths: Sequence[Path]) -> list[str]:
        """Return a caption for each picture, on one line.

        Raises:
            ValueError: a picture cannot be read.
        """
        pictures = [_open(path) for path in paths]
        text = {} if self.prompt is None else {"text": [self.prompt] * len(pictures), "padding": True}
        inputs = self.processor(images=pictures, return_tensors="pt", **text).to(self.options.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.options.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        given = inputs.get("input_ids", tokens[:, :0])
        start = tokens[:, : given.shape[1]]
        if start.shape == given.shape and torch.equal(start, given):
            tokens = tokens[:, given.shape[1] :]  # models without an encoder repeat the prompt
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise ValueError(f"{one_line(path)} cannot be read as a picture") from error
