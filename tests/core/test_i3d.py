"""I3D: padding, shapes, features, and reading its weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from microcinema_core.files.paths import home_folder
from microcinema_core.metrics import i3d_weights
from microcinema_core.metrics.i3d import I3D, Pool, Unit, i3d_features, pad_same


@pytest.fixture(scope="module")
def model() -> I3D:
    torch.manual_seed(0)
    return I3D().eval().requires_grad_(False)


def flax_tree(model: I3D) -> dict[str, Any]:
    """Return the model's weights in the checkpoint's layout, with batch norms that change next to nothing."""
    names = {torch_name: name for name, torch_name in i3d_weights.BRANCHES.items()}
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Conv3d):
            continue
        assert layer.bias is not None
        kernel = layer.weight.permute(2, 3, 4, 1, 0).numpy().copy()
        _, _, path = name.partition(".")
        outer, _, inner = path.partition(".")
        if name == "head":
            tree["params"][i3d_weights.HEAD] = {"Conv_0": {"kernel": kernel, "bias": layer.bias.numpy()}}
            continue
        shape = (1, 1, 1, 1, layer.out_channels)
        params = {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": layer.bias.numpy().reshape(shape)}}
        var = np.full(shape, 1 - i3d_weights.NORM_EPSILON, dtype=np.float32)
        stats = {"BatchNorm_0": {"mean": np.zeros(shape, dtype=np.float32), "var": var}}
        for part, leaf in (("params", params), ("batch_stats", stats)):
            if inner:
                tree[part].setdefault(outer, {})[names[inner]] = leaf
            else:
                tree[part][outer] = leaf
    return tree


def test_same_padding_by_hand() -> None:
    # Kernel 3 and stride 2 make 2 values of 4; the one zero needed goes to the end. Of 5 they make 3: a zero each side.
    x = torch.arange(1.0, 6).view(1, 1, 1, 1, 5)
    kernel, stride = (1, 1, 3), (1, 1, 2)
    assert pad_same(x[..., :4], kernel, stride).flatten().tolist() == [1, 2, 3, 4, 0]
    assert pad_same(x, kernel, stride).flatten().tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert Pool(kernel, stride)(x[..., :4]).flatten().tolist() == [3, 4]
    assert pad_same(torch.ones(1, 1, 9, 224, 224), (7,) * 3, (2,) * 3).shape == (1, 1, 15, 229, 229)


def test_a_unit_pads_so_too() -> None:
    unit = Unit(1, 1, 3, stride=2).requires_grad_(False)
    assert unit.bias is not None
    unit.weight.fill_(1)
    unit.bias.fill_(-3)
    out = unit(torch.ones(1, 1, 4, 4, 4))
    # Windows begin at 0 and 2; the second contains one zero along each axis.
    assert out.shape == (1, 1, 2, 2, 2)
    assert (out[0, 0, 0, 0, 0], out[0, 0, 0, 0, 1], out[0, 0, 1, 1, 1]) == (24, 15, 5)


@pytest.mark.parametrize(("frames", "side"), [(9, 64), (17, 40), (33, 32)])
def test_logits_of_the_lengths_in_use(model: I3D, frames: int, side: int) -> None:
    logits = model(torch.rand(1, frames, 3, side, side + 8) * 2 - 1)
    assert logits.shape == (1, 400)
    assert logits.isfinite().all()


def test_the_size_is_the_published_one(model: I3D) -> None:
    assert sum(p.numel() for p in model.parameters()) == 12_689_984


def test_too_few_frames_are_refused(model: I3D) -> None:
    with pytest.raises(ValueError, match="9 frames"):
        model(torch.zeros(1, 8, 3, 32, 32))


def test_features_come_in_the_clips_order(model: I3D, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def forward(self: I3D, videos: torch.Tensor) -> torch.Tensor:
        sizes.append(len(videos))
        return videos.mean(dim=(1, 2, 3, 4))[:, None].expand(-1, 400)

    monkeypatch.setattr(I3D, "forward", forward)
    clips = torch.arange(5.0).view(5, 1, 1, 1, 1).expand(5, 9, 3, 4, 4)
    features = i3d_features(model, clips, batch=2)
    assert features[:, 0].tolist() == [0, 1, 2, 3, 4] and features.shape == (5, 400)
    assert sizes == [2, 2, 1]
    assert torch.equal(i3d_features(model, iter(clips), batch=5), features)
    with pytest.raises(ValueError, match="no clips"):
        i3d_features(model, [])


def test_weights_come_through_a_pickle_and_a_safetensors_file(
    model: I3D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(flax_tree(model))
    monkeypatch.setattr(i3d_weights, "fetch_archive", lambda downloads: downloads)
    monkeypatch.setattr(i3d_weights, "_read_member", lambda archive: data)
    first = i3d_weights.get_i3d(tmp_path)
    monkeypatch.delattr(i3d_weights, "fetch_archive")  # the second call must not need it
    second = i3d_weights.get_i3d(tmp_path)
    assert [file.name for file in (tmp_path / "models" / "i3d").iterdir()] == [i3d_weights.FILE_NAME]
    for name, weight in model.state_dict().items():
        assert torch.allclose(first.state_dict()[name], weight, atol=1e-6), name
        assert torch.equal(first.state_dict()[name], second.state_dict()[name])


def test_folding_is_convolution_and_batch_norm() -> None:
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 3, 2, 4)).astype(np.float32)
    bias, mean = (generator.normal(size=(1, 1, 1, 1, 4)).astype(np.float32) for _ in range(2))
    var = generator.uniform(0.001, 2, size=(1, 1, 1, 1, 4)).astype(np.float32)
    layer = {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": bias}}
    stats = {"BatchNorm_0": {"mean": mean, "var": var}}
    folded = i3d_weights.convert({"params": {"x": layer}, "batch_stats": {"x": stats}})
    x = torch.from_numpy(generator.normal(size=(1, 2, 5, 5, 5)).astype(np.float32))
    plain = F.conv3d(x, torch.from_numpy(kernel).permute(4, 3, 0, 1, 2))
    shift, centre, spread = (torch.from_numpy(array.ravel()) for array in (bias, mean, var))
    expected = F.batch_norm(plain, centre, spread, bias=shift, eps=1e-3)
    assert torch.allclose(F.conv3d(x, folded["trunk.x.weight"], folded["trunk.x.bias"]), expected, atol=1e-4)


class Malice:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(ValueError, match="nothing but numpy arrays"):
        i3d_weights.read_arrays(pickle.dumps({"params": np.ones(2), "more": Malice(mark)}))
    assert not mark.exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps({"a": np.ones(9)})[:-9]])
def test_broken_pickles_are_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="nothing but numpy arrays"):
        i3d_weights.read_arrays(data)


def test_other_trees_are_refused_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="not a dict"):
        i3d_weights.read_arrays(pickle.dumps([np.ones(1)]))
    with pytest.raises(ValueError, match="is not I3D's"):
        i3d_weights.convert({"params": {"Mixed_3b": {"Branch_9": {}}}, "batch_stats": {}})
    monkeypatch.setattr(i3d_weights, "fetch_archive", lambda downloads: downloads)
    head = {"Conv_0": {"kernel": np.ones((1, 1, 1, 2, 3)), "bias": np.ones(3)}}
    part = pickle.dumps({"params": {i3d_weights.HEAD: head}, "batch_stats": {}})
    monkeypatch.setattr(i3d_weights, "_read_member", lambda archive: part)
    with pytest.raises(ValueError, match="does not hold I3D's weights"):
        i3d_weights.get_i3d(tmp_path)
    assert not list((tmp_path / "models" / "i3d").iterdir())


def test_an_archive_with_another_hash_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / i3d_weights.ARCHIVE).write_bytes(b"something else")

    def wrong(folder: Path) -> Path:
        (folder / "received").write_bytes(b"something else again")
        return folder / "received"

    monkeypatch.setattr(i3d_weights, "_download", wrong)
    with pytest.raises(ValueError, match="sha256"):
        i3d_weights.fetch_archive(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_real_weights_prefer_few_classes() -> None:
    path = home_folder() / "models" / "i3d" / i3d_weights.FILE_NAME
    if not path.is_file():
        pytest.skip("the real weights are missing; an evaluation fetches them")
    real = i3d_weights.load_i3d(path)
    ramp = torch.linspace(-1, 1, 64).expand(1, 9, 3, 64, 64)
    logits = real(ramp)
    assert 1 < float(logits.std()) < 20
    assert float(logits.softmax(dim=1).amax()) > 20 / 400
