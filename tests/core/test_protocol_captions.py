"""Captions of centre frames by tiny vision-language models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image

from devtools.run.home import ROOT
from microcinema_core.metrics.protocol import __main__ as command
from microcinema_core.metrics.protocol.captions import INSTRUCTION, LEAST_TRANSFORMERS, Captioner
from microcinema_core.metrics.protocol.prompts import read_texts
from microcinema_core.metrics.protocol.run_record import digest_of_files

INSTALLED = Version(transformers.__version__)
pytestmark = pytest.mark.skipif(
    Version(LEAST_TRANSFORMERS) > INSTALLED, reason=f"captions need transformers {LEAST_TRANSFORMERS}"
)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    return folder


def blip(folder: Path, seed: int = 0) -> Path:
    """Write a tiny BLIP with random weights, and its processor."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *(f"word{i}" for i in range(40))]
    (folder / "vocab.txt").write_text("\n".join(words))
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **size,
        "vocab_size": len(words),
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {**size, "image_size": 32, "patch_size": 16}
    config = BlipConfig(
        text_config={**text, "encoder_hidden_size": 32}, vision_config=vision, projection_dim=16
    )
    torch.manual_seed(seed)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


def test_pictures_are_captioned_once_and_the_file_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_pictures(tmp_path / "centres", 5)
    asked: list[str] = []
    original = Captioner.__call__

    def counted(self: Captioner, paths: list[Path]) -> list[str]:
        asked.extend(path.name for path in paths)
        if len(asked) > stop:
            raise KeyboardInterrupt
        return original(self, paths)

    monkeypatch.setattr(Captioner, "__call__", counted)
    arguments = ["ucf101", "captions", str(pictures), str(tmp_path / "c.jsonl"), "--batch", "2"]
    arguments += ["--model", str(blip(tmp_path / "blip"))]
    stop = 2
    assert command.main(arguments) == 130
    first = read_texts(tmp_path / "c.jsonl")
    assert sorted(first) == ["00000", "00001"]
    stop = 99
    asked.clear()
    assert command.main(arguments) == 0
    texts = read_texts(tmp_path / "c.jsonl")
    assert asked == ["00002.png", "00003.png", "00004.png"] and sorted(texts) == [
        f"{i:05d}" for i in range(5)
    ]
    assert {name: texts[name] for name in first} == first
    assert all("word" in text for text in texts.values())
    alone = tmp_path / "alone.jsonl"
    assert command.main([*arguments[:3], str(alone), "--model", str(tmp_path / "blip"), "--batch", "1"]) == 0
    assert read_texts(alone) == texts, "captions do not depend on the batch"
    alone.unlink()
    assert command.main([*arguments[:3], str(alone), "--model", str(pictures)]) == 2
    assert "cannot be opened" in capsys.readouterr().err
    assert not list(tmp_path.glob("alone.jsonl")), "nothing is written"


def llava(folder: Path) -> Path:
    """Write a tiny LLaVA with random weights, and its processor with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )  # fmt: skip

    words = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "<image>",
        "USER:",
        "ASSISTANT:",
        *(f"word{i}" for i in range(40)),
    ]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"], model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=32, patch_size=16),
        text_config=LlamaConfig(
            **size, vocab_size=len(words), pad_token_id=0, bos_token_id=1, eos_token_id=2
        ),
        image_token_index=4,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.lm_head.weight.data[:7] = 0  # it says words only
    model.save_pretrained(folder)
    square = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square), tokenizer, patch_size=16,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template="USER: <image> {{ messages[0]['content'][1]['text'] }} ASSISTANT:",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_model_that_chats_is_asked_and_its_answer_does_not_repeat_the_question(tmp_path: Path) -> None:
    write_pictures(tmp_path / "centres", 2)
    texts = {}
    for asked in ("word1 word2", "word30"):
        out = tmp_path / f"{asked}.jsonl"
        options = ["--model", str(tmp_path / "llava"), "--instruction", asked]
        if not (tmp_path / "llava").exists():
            llava(tmp_path / "llava")
        assert command.main(["ucf101", "captions", str(tmp_path / "centres"), str(out), *options]) == 0
        texts[asked] = read_texts(out)
    assert texts["word1 word2"] != texts["word30"], "the instruction is read"
    for asked, captions in texts.items():
        assert all(text and not text.startswith(f"USER: {asked}") for text in captions.values())


def test_the_text_that_is_asked_and_its_template_are_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A question of another version of this command, or another template, is another caption."""
    model, out = llava(tmp_path / "llava"), tmp_path / "c.jsonl"
    pictures = write_pictures(tmp_path / "centres", 1)
    arguments = ["ucf101", "captions", str(pictures), str(out), "--model", str(model)]
    assert command.main(arguments) == 0
    record = json.loads((tmp_path / "c.run.json").read_text())
    assert record["prompt"] == f"USER: <image> {INSTRUCTION} ASSISTANT:"
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("USER:", "ASSISTANT:"))
    capsys.readouterr()
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert "prompt was USER:" in said and "model was" in said


def test_all_files_of_a_tokenizer_are_in_a_digest(tmp_path: Path) -> None:
    digests = {digest_of_files(tmp_path)}
    for name in ("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja"):
        (tmp_path / name).write_text("x")
        digests.add(digest_of_files(tmp_path))
    assert len(digests) == 6


def florence(folder: Path) -> Path:
    """Write a tiny Florence-2 with random weights, and its processor: a picture is 4 tokens and their mean."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BartConfig,
        BartTokenizerFast,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        PreTrainedTokenizerFast,
    )  # fmt: skip

    words = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "What", "does", "the", "image", "describe?"]
    words += [f"word{i}" for i in range(40)]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    kind = (
        BartTokenizerFast if Version("5") > INSTALLED else PreTrainedTokenizerFast
    )  # its processor checks it
    tokenizer = kind(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    tokenizer.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    text = BartConfig(
        vocab_size=len(words), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, forced_eos_token_id=2, init_std=1.0,
    )  # fmt: skip
    vision = {
        "depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
        "patch_prenorm": (False, True), "embed_dim": (16, 32), "num_heads": (2, 2), "num_groups": (2, 2),
        "window_size": 2, "projection_dim": 32,
    }  # fmt: skip
    torch.manual_seed(0)
    config = Florence2Config(
        text_config=text.to_dict(), vision_config=vision, image_token_id=4, tie_word_embeddings=False
    )
    model = Florence2ForConditionalGeneration(config)
    head = torch.zeros(len(words), 32).index_fill_(0, torch.tensor([0, 1, 2, 3, 4]), -9.0)
    torch.nn.init.normal_(head[5:], generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(
        head
    )  # says words; with tied weights it would say its last token again
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"height": 16, "width": 16}, do_center_crop=False)
    images.image_seq_length = 5
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


def test_a_model_with_tasks_is_given_its_own_for_captions(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "centres", 3)
    model, texts = florence(tmp_path / "florence"), []
    for more in ([], ["--instruction", "<CAPTION>"], ["--instruction", "word1"]):
        out = tmp_path / f"{len(texts)}.jsonl"
        arguments = [
            "ucf101",
            "captions",
            str(pictures),
            str(out),
            "--model",
            str(model),
            "--batch",
            "2",
            *more,
        ]
        assert command.main(arguments) == 0
        texts.append(read_texts(out))
    assert texts[0] == texts[1] != texts[2] and sorted(texts[0]) == ["00000", "00001", "00002"]


def test_captions_made_otherwise_are_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.jsonl"
    for name in ("centres", "others"):
        write_pictures(tmp_path / name, 2)

    def caption(pictures: str = "centres", model: str = "blip", **more: str) -> int:
        options = [f"--{name}={value}" for name, value in more.items()]
        folders = [str(tmp_path / pictures), str(out), "--model", str(tmp_path / model)]
        return command.main(["ucf101", "captions", *folders, *options])

    blip(tmp_path / "blip")
    blip(tmp_path / "second", seed=1)
    assert caption() == caption() == 0
    made = out.read_text()
    for told, more in (
        (r"captions in .*c\.jsonl .*prompt was None and is word1\)", {"instruction": "word1"}),
        (r"prompt was None and is \)", {"instruction": ""}),
        (r"model was \w+ and is \w+\)", {"model": "second"}),
        (r"pictures was centres and is others\)", {"pictures": "others"}),
        (r"dtype was float32 and is bfloat16\)", {"dtype": "bf16"}),
    ):
        capsys.readouterr()
        assert caption(**more) == 2 and out.read_text() == made
        assert re.search(f"{told}; give another OUT", capsys.readouterr().err)
    (tmp_path / "c.run.json").unlink()
    assert caption() == 2
    assert "no c.run.json that says how they were made" in capsys.readouterr().err
    out.unlink()
    assert caption(instruction="word1") == 0, "without captions there is nothing to mix"


def test_a_model_that_cannot_be_opened_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, model = write_pictures(tmp_path / "centres", 1), tmp_path / "model"
    model.mkdir()
    for content in ("", "{}", '{"model_type": "blip"}', '{"model_type": "unheard of"}'):
        (model / "config.json").write_text(content)
        arguments = ["ucf101", "captions", str(pictures), str(tmp_path / "c.jsonl"), "--model", str(model)]
        assert command.main(arguments) == 2
        said = capsys.readouterr().err
        assert "cannot be opened" in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"centres", "model"}


def test_older_libraries_are_refused_and_the_extra_asks_for_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (extra,) = re.findall(r"^metrics = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    (asked,) = re.findall(r"transformers>=([\d.]+)", extra)
    assert Version(asked) == Version(LEAST_TRANSFORMERS)
    monkeypatch.setattr("transformers.__version__", "4.50.3")  # by name: transformers may replace itself
    pictures = write_pictures(tmp_path / "centres", 1)
    arguments = ["ucf101", "captions", str(pictures), str(tmp_path / "c.jsonl"), "--model", str(tmp_path)]
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("transformers 4.50.3 is installed, and captions need 4.56.0 or later: pip install")
    assert said.count("\n") == 1
