"""Where a prompt list's text, seeds and picture go in a workflow, found by its links or named by title."""

from __future__ import annotations

from typing import Any

import pytest

from devtools.run.batch_samples import SEED_STRIDE, Graph
from devtools.run.home import Problem
from devtools.run.prompt_inputs import keep_only, picture_input, save_node, seed_inputs, text_inputs


def schema(inputs: dict[str, Any], *outputs: str, saves: bool = False) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": list(outputs), "output_node": saves}


CONDITIONING = ["CONDITIONING"]
INFO = {
    "CLIPTextEncode": schema({"text": ["STRING", {}], "clip": ["CLIP"]}, "CONDITIONING"),
    "CLIPTextEncodeSDXL": schema(
        {"text_g": ["STRING", {}], "text_l": ["STRING", {}], "width": ["INT", {}]}, "CONDITIONING"
    ),
    "Text": schema({"value": ["STRING", {}]}, "STRING"),
    "Captioner": schema({"prompt": ["STRING", {}], "image": ["IMAGE"]}, "STRING"),
    "ControlNet": schema(
        {"positive": CONDITIONING, "negative": CONDITIONING}, "CONDITIONING", "CONDITIONING"
    ),
    "Zero": schema({"conditioning": CONDITIONING}, "CONDITIONING"),
    "Guider": schema({"model": ["MODEL"], "conditioning": CONDITIONING}, "GUIDER"),
    "KSampler": schema(
        {"positive": CONDITIONING, "negative": CONDITIONING, "seed": ["INT", {}], "latent": ["LATENT"]},
        "LATENT",
    ),
    "Noise": schema({"noise_seed": ["INT", {}]}, "NOISE"),
    "Number": schema({"value": ["INT", {}]}, "INT"),
    "LoadImage": schema({"image": [["a.png"], {"image_upload": True}]}, "IMAGE", "MASK"),
    "MicroCinemaCentreFrame": schema({"image": ["IMAGE"], "vae": ["VAE"]}, "LATENT", "IMAGE"),
    "Decode": schema({"samples": ["LATENT"]}, "IMAGE"),
    "PreviewImage": schema({"images": ["IMAGE"]}, saves=True),
    "SaveImage": schema({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, saves=True),
    "SaveVideo": schema({"video": ["IMAGE"], "filename_prefix": ["STRING", {}]}, saves=True),
}


def node(kind: str, title: str = "", /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title or kind}}


def graph(**more: Any) -> dict[str, Any]:
    """A picture from text, past a ControlNet, and a preview of it."""
    return {
        "yes": node("CLIPTextEncode", "Words", text="a", clip=["0", 1]),
        "no": node("CLIPTextEncode", "Unwanted", text="b", clip=["0", 1]),
        "net": node("ControlNet", positive=["yes", 0], negative=["no", 0]),
        "sample": node("KSampler", positive=["net", 0], negative=["net", 1], seed=5),
        "decode": node("Decode", samples=["sample", 0]),
        "look": node("PreviewImage", images=["decode", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="x"),
        **more,
    }


def test_the_text_is_the_positive_one_even_past_a_node_with_both() -> None:
    assert text_inputs(graph(), INFO) == [("yes", "text")]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"yes": node("CLIPTextEncodeSDXL", text_g="a", text_l="a", width=1)}, [("yes", "text_g"), ("yes", "text_l")]),
        ({"yes": node("CLIPTextEncode", text=["t", 0]), "t": node("Text", value="a")}, [("t", "value")]),
        ({"sample": node("Guider", conditioning=["z", 0]), "z": node("Zero", conditioning=["yes", 0])},
         [("yes", "text")]),
        ({"yes": node("CLIPTextEncode", text=["c", 0]), "c": node("Captioner", prompt="what?", image=["decode", 0])},
         []),
    ],
)  # fmt: skip
def test_texts_are_found_through_other_nodes_but_no_question_to_a_captioner(more: Any, found: Any) -> None:
    assert text_inputs(graph(**more), INFO) == found


def test_two_prompts_are_ambiguous_unless_named() -> None:
    two = graph(
        other=node("CLIPTextEncode", "Motion", text="c"),
        second=node("KSampler", positive=["other", 0], negative=["no", 0], seed=6),
    )
    with pytest.raises(
        Problem, match=r"Several nodes hold a prompt: 'Words', 'Motion'; name each .* --prompt-node"
    ):
        text_inputs(two, INFO)
    assert text_inputs(two, INFO, ["Motion"]) == [("other", "text")]
    assert text_inputs(two, INFO, ["Motion", "Words"]) == [("other", "text"), ("yes", "text")]
    with pytest.raises(Problem, match="--prompt-node names 'Musik', but the workflow has 'Words', "):
        text_inputs(two, INFO, ["Musik"])
    with pytest.raises(Problem, match="'CLIPTextEncode', which 3 nodes are called"):
        text_inputs(two, INFO, ["CLIPTextEncode"])
    with pytest.raises(Problem, match="'Decode', which has no text"):
        text_inputs(two, INFO, ["Decode"])


def test_each_sampling_node_gets_a_seed_that_no_other_sample_has() -> None:
    prompt = graph(noise=node("Noise", noise_seed=["n", 0]), n=node("Number", value=3))
    assert seed_inputs(prompt) == [("sample", "seed")]
    assert seed_inputs(prompt, ["Number"]) == [("n", "value")]
    del prompt["sample"]
    with pytest.raises(Problem, match="no seed"):
        seed_inputs(prompt)
    two = Graph(
        graph(), "save", [("yes", "text")], {("sample", "seed"): 0, ("no", "seed"): 1}, None, "picture"
    )
    seeds = [
        node["inputs"]["seed"]
        for s in (7, 8)
        for node in two.filled("", s).values()
        if "seed" in node["inputs"]
    ]
    assert sorted(seeds) == [7, 8, 7 + SEED_STRIDE, 8 + SEED_STRIDE]


def test_a_sample_leaves_the_graph_as_it_was() -> None:
    given = graph()
    filled = Graph(given, "save", [("yes", "text")], {("sample", "seed"): 0}, None, "picture").filled(
        "new", 9, "", "00003"
    )
    assert given == graph()
    assert filled["yes"]["inputs"]["text"] == "new" and filled["sample"]["inputs"]["seed"] == 9
    assert filled["save"]["inputs"]["filename_prefix"].endswith("/00003")


def test_the_picture_goes_into_the_loader_or_takes_the_place_of_a_drawn_centre_frame() -> None:
    centre = node("MicroCinemaCentreFrame", image=["decode", 0])
    loading = graph(load=node("LoadImage", image="a.png"), centre=centre)
    assert picture_input(loading, INFO) == ("load", "image")
    drawn = graph(centre=centre, save=node("SaveVideo", video=["centre", 1]))
    key, name = picture_input(drawn, INFO)
    assert name == "image" and drawn["centre"]["inputs"]["image"] == [key, 0]
    keep_only(drawn, "save")
    assert set(drawn) == {"save", "centre", key}, "what drew it is not run"
    with pytest.raises(Problem, match="takes no picture"):
        picture_input(graph(), INFO)
    two = graph(a=node("LoadImage", "First", image="a"), b=node("LoadImage", "Last", image="a"))
    with pytest.raises(Problem, match="'First', 'Last'; name one with --picture-node"):
        picture_input(two, INFO)
    assert picture_input(two, INFO, "Last") == ("b", "image")


def test_one_node_saves_and_previews_do_not() -> None:
    assert save_node(graph(), INFO) == "save"
    two = graph(film=node("SaveVideo", video=["decode", 0]))
    with pytest.raises(Problem, match="'SaveImage', 'SaveVideo'; name one with --save-node, or say --kind"):
        save_node(two, INFO)
    assert save_node(two, INFO, kind="picture") == "save" and save_node(two, INFO, kind="video") == "film"
    assert save_node(graph(), INFO, kind="video") == "save", "pictures may become a video"
    assert save_node(two, INFO, "SaveVideo") == "film"
    with pytest.raises(Problem, match="saves nothing"):
        save_node({key: one for key, one in graph().items() if key != "save"}, INFO)
    with pytest.raises(Problem, match="needs the node Unknown"):
        save_node({"1": node("Unknown")}, INFO)
