"""Muon beside AdamW: orthogonal steps for matrices, AdamW's own for everything else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microcinema_core.train.optimizer import MuonAdamW, is_matrix, orthogonal


@pytest.mark.parametrize("shape", [(3, 24, 60), (2, 60, 24), (1, 32, 32)])
def test_the_nearest_orthogonal_matrix_is_found_roughly(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    answer = orthogonal(x).float()
    values = torch.linalg.svdvals(answer)
    assert values.min() > 0.4 and values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    alike = (answer * (u @ v)).sum((1, 2)) / (answer.norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2)))
    assert alike.min() > 0.95


def test_what_is_no_matrix_takes_adamw_s_step() -> None:
    kernel = nn.Parameter(torch.randn(16, 4, 3, 3))
    assert is_matrix(kernel) and not is_matrix(torch.zeros(64)) and not is_matrix(torch.zeros(8, 64))
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    optimizer = MuonAdamW([{"params": [ours]}, {"params": [kernel], "muon": True}], lr=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.1)
    before = kernel.detach().clone()
    for _ in range(3):
        for parameter in (ours, theirs, kernel):
            parameter.grad = parameter.detach() * 2
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)
    assert kernel.shape == before.shape and not torch.equal(kernel, before)
    assert set(optimizer.state[kernel]) == {"momentum"}


def test_both_kinds_take_steps_of_one_size() -> None:
    """With a fresh momentum Muon's change has about the root mean square that its scale promises."""
    kernel = nn.Parameter(torch.zeros(32, 64))
    optimizer = MuonAdamW([{"params": [kernel], "muon": True}], lr=1e-2, weight_decay=0.0)
    kernel.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    assert float(kernel.square().mean().sqrt()) == pytest.approx(0.2e-2, rel=0.3)
