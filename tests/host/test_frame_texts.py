"""A text for each part of a video: from the schedule's node through Sampler and TSR; and loops of TSR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from devtools.run.server import ComfyServer
from microcinema_core.frames.schedule import Mixed, mix_parts, read_parts
from tests.host.test_bad_input import files, node, slow_motion  # noqa: F401  (a fixture)
from tests.host.test_models_tsr import interpolated
from tests.host.tiny_family import applied, empty, ksampler, settings


def texts(count: int, seed: int = 3) -> Any:
    return [[torch.randn(count, 77, 32, generator=torch.Generator().manual_seed(seed)), {}]]


def on_a_line(rows: Tensor, frames: int) -> Tensor:
    """Interpolate rows `n l d` to so many, the ends in place: torch's own interpolation is the oracle."""
    flat = rows.flatten(1).T[None]
    return F.interpolate(flat, size=frames, mode="linear", align_corners=True)[0].T.reshape(
        -1, *rows.shape[1:]
    )


@pytest.mark.parametrize("rounds", [1, 2])
def test_texts_of_key_frames_are_those_of_all_frames_on_a_line(family: Any, rounds: int) -> None:
    given = texts(3)
    all_ = [[on_a_line(given[0][0], 2 * 4**rounds + 1), {}]]
    run = {"rounds": rounds, "steps": 1, "cfg": 3.0, "chunk": 1}
    short, long = (interpolated(family, positive=one, **run) for one in (given, all_))
    assert_close(short, long, rtol=1e-3, atol=1e-3 * float(long.std()))
    one = interpolated(family, positive=texts(1), **run)
    assert float((short - one).abs().max()) > 0.01 * float(one.std()), "the text matters here"


def test_equal_texts_of_key_frames_are_one_text(family: Any) -> None:
    one = texts(1)
    many = [[one[0][0].repeat(3, 1, 1), {}]]
    first, second = (interpolated(family, positive=given, cfg=3.0, chunk=1) for given in (one, many))
    assert torch.equal(first, second)


def test_each_window_gets_the_texts_of_its_frames(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched where the host is called: two rounds, one window at a time."""
    from microcinema_core.adapter import interpolating

    seen: list[Tensor] = []
    sample = interpolating.comfy.sample.sample_custom

    def watched(*given: Any, **more: Any) -> Any:
        seen.append(given[5][0][0].clone())  # model, noise, cfg, sampler, sigmas, positive
        return sample(*given, **more)

    monkeypatch.setattr(interpolating.comfy.sample, "sample_custom", watched)
    given = texts(3)
    all_ = on_a_line(given[0][0], 33)
    interpolated(family, positive=given, rounds=2, steps=1, chunk=1)
    expected = [all_[16 * place : 16 * place + 17 : 4] for place in range(2)]
    expected += [all_[4 * place : 4 * place + 5] for place in range(8)]
    assert len(seen) == len(expected)
    for got, rows in zip(seen, expected, strict=True):
        assert_close(got, rows)


@pytest.mark.parametrize(("count", "words"), [(4, "positive has 4 texts"), (2, "positive has 2 texts")])
def test_another_number_of_texts_is_refused_by_tsr(family: Any, count: int, words: str) -> None:
    with pytest.raises(
        ValueError, match=f"{words}.*for the whole video, 3, one for each key frame, or 9, one"
    ):
        interpolated(family, positive=texts(count))


def test_another_number_of_texts_is_refused_by_the_sampler(family: Any) -> None:
    def sampled(positive: Any) -> Tensor:
        run = settings(family, positive=positive)
        with torch.inference_mode():
            return family.adapter.sample_video(
                family.base.model, family.base.appearnet, family.centre, run, frames=6
            )[0]["samples"]

    for count in (2, 3, 7):
        with pytest.raises(ValueError, match=f"positive has {count} texts, and the video has 6 frames"):
            sampled(texts(count))
    assert bool(sampled(texts(6)).isfinite().all())


class Clip:
    """A stand-in for the host's CLIP: a text of n letters has n tokens, each of them the number n."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> Any:
        length = len(text)
        return [
            [torch.full((1, length, 2), float(length)), {"pooled_output": torch.full((1, 3), 10.0 * length)}]
        ]


def test_a_schedule_is_encoded_row_by_row(comfy_in_process: Path) -> None:
    from microcinema_core.adapter import scheduled

    ((rows, more),) = scheduled(
        Clip(), ["ab", "abc"], [Mixed(0, 0, 0.0), Mixed(0, 1, 0.25), Mixed(1, 1, 0.0)]
    )
    assert rows.shape == (3, 6, 2), "texts of different lengths are repeated to a common one"
    assert_close(rows[:, 0, 0], torch.tensor([2.0, 2.25, 3.0]))
    assert_close(more["pooled_output"], torch.tensor([20.0, 22.5, 30.0])[:, None].expand(3, 3))


def test_a_schedule_of_one_text_samples_what_the_stock_encoder_does(family: Any) -> None:
    import nodes

    clip = family.image.clip
    (stock,) = nodes.CLIPTextEncode().encode(clip, "a red horse")
    parts = read_parts("0: a red horse", 3)
    made = family.adapter.scheduled(clip, [parts[0].text], mix_parts(parts, 3, blend=True))
    assert made[0][0].shape == (3, *stock[0][0].shape[1:])
    one, three = (ksampler(family, applied(family), empty(3), positive=given) for given in (stock, made))
    assert_close(one, three, rtol=1e-4, atol=1e-4 * float(one.std()))


def schedule(**inputs: Any) -> dict[str, dict[str, Any]]:
    """Return the prompt of a video with a schedule in place of the prompt, through both samplers."""
    prompt = slow_motion()
    given = {
        "text": "0: a horse\n2: a house",
        "frames": 3,
        "between": "blend",
        "prefix": "red",
        "suffix": ".",
    }
    prompt["positive"] = node("MicroCinemaPromptSchedule", clip=["image", 1], **(given | inputs))
    return prompt


def test_the_node_and_its_errors(host: ComfyServer, files: Path) -> None:  # noqa: F811
    host.run(schedule())
    host.run(schedule(between="hold", prefix="", text="0-1: a"))
    for inputs, words in (
        ({"text": "0: a\nb"}, "line 2 of text is 'b'; expected a frame or a span"),
        ({"text": "5: a"}, "line 1 of text is for frame 5, and frames is 3"),
        ({"frames": 4}, "positive has 4 texts, and the video has 3 frames"),
    ):
        said = host.run_expect_error(schedule(**inputs))
        assert words in said and "\n" not in said, said


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_loop_is_the_run_with_the_first_frame_at_the_end(
    family: Any, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {"rounds": rounds, "steps": 1, "cfg": 3.0, "chunk": 1}
    given = texts(3)
    made = interpolated(family, loop=True, positive=given, **run)
    assert made.shape[0] == 3 * 4**rounds
    closed = {"samples": torch.cat([family.keys["samples"], family.keys["samples"][:1]])}
    monkeypatch.setattr(family, "keys", closed)
    rows = [[torch.cat([given[0][0], given[0][0][:1]]), {}]]
    whole = interpolated(family, positive=rows, **run)
    assert torch.equal(made, whole[:-1])
    assert not torch.equal(made[-1], made[-2])
    each = [[on_a_line(rows[0][0], len(whole))[:-1], {}]]
    monkeypatch.setattr(family, "keys", {"samples": closed["samples"][:3]})
    assert_close(interpolated(family, loop=True, positive=each, **run), made, rtol=1e-3, atol=1e-3)


def test_a_loop_needs_two_frames(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "keys", family.centre)
    with pytest.raises(ValueError, match="at least 2"):
        interpolated(family, loop=True)


@pytest.mark.parametrize("entry", [0, 1])
def test_a_text_that_is_encoded_to_nan_is_named(comfy_in_process: Path, entry: int) -> None:
    """As the host's encoder makes it of `(a:nan)` and `(a:1e39)`: in the tokens, or in the pooled output."""
    from microcinema_core.adapter import scheduled

    class Spoilt(Clip):
        def encode_from_tokens_scheduled(self, text: str) -> Any:
            (made,) = super().encode_from_tokens_scheduled(text)
            if "nan" in text:
                made[0 if entry == 0 else 1] = (
                    made[0] * torch.nan if entry == 0 else {"pooled_output": torch.tensor([[torch.inf]])}
                )
            return [made]

    mixed = [Mixed(0, 1, 0.5), Mixed(1, 1, 0.0)]
    with pytest.raises(ValueError, match=r"the text '\(a:nan\)' is encoded to NaN or infinite values"):
        scheduled(Spoilt(), ["b", "(a:nan)"], mixed)


def test_texts_whose_common_length_takes_gigabytes_are_refused(comfy_in_process: Path) -> None:
    from microcinema_core.adapter import scheduled

    def of_lengths(*lengths: int, frames: int = 4) -> Any:
        return scheduled(Clip(), ["a" * length for length in lengths], [Mixed(0, 0, 0.0)] * frames)

    ((rows, _),) = of_lengths(231, 308, 385)
    assert rows.shape == (4, 4620, 2)
    with pytest.raises(
        ValueError, match=r"encoded to 539, 847, 1001, 1309 tokens.* take 1310309 for each of 4 frames"
    ):
        of_lengths(77 * 7, 77 * 11, 77 * 13, 77 * 17)
    assert of_lengths(77, 154, frames=1024)[0][0].shape == (1024, 154, 2)
    with pytest.raises(ValueError, match="for each of 1024 frames; at most 512 were expected"):
        of_lengths(231, 308, frames=1024)


def test_a_cancel_is_obeyed_between_texts(comfy_in_process: Path) -> None:
    import comfy.model_management as management

    from microcinema_core.adapter import scheduled

    seen: list[str] = []

    class Cancelled(Clip):
        def tokenize(self, text: str) -> str:
            seen.append(text)
            management.interrupt_current_processing()
            return text

    with pytest.raises(management.InterruptProcessingException):
        scheduled(Cancelled(), ["a", "bb", "ccc"], [Mixed(0, 0, 0.0)])
    assert seen == ["a"]
