"""DoReMi's updates against algorithm 1 of Xie et al. 2023, written out plainly."""

import math

import pytest
import torch

from l3_platform.scaling.doremi import SMOOTHING, STEP_SIZE, _by_domain, _row_weights, ascend


def plainly(weights: list[float], excess: list[float]) -> list[float]:
    raised = [weight * math.exp(STEP_SIZE * one) for weight, one in zip(weights, excess, strict=True)]
    return [(1 - SMOOTHING) * one / sum(raised) + SMOOTHING / len(weights) for one in raised]


def test_a_step_is_the_paper_s():
    weights, excess = [0.5, 0.3, 0.2], [0.1, 0.9, 0.0]
    got = ascend(torch.tensor(weights, dtype=torch.float64), torch.tensor(excess, dtype=torch.float64))
    assert got.tolist() == pytest.approx(plainly(weights, excess))


def test_a_domain_that_lags_behind_gains_until_it_no_longer_does():
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(20):
        weights = ascend(weights, torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64))
    assert weights[1] > 0.99
    level = ascend(weights, torch.full((3,), 0.2, dtype=torch.float64))
    assert level[1] <= weights[1]


def test_no_domain_vanishes_however_long_it_is_ahead():
    weights = torch.full((2,), 0.5, dtype=torch.float64)
    for _ in range(1000):
        weights = ascend(weights, torch.tensor([5.0, 0.0], dtype=torch.float64))
    assert weights[1] >= SMOOTHING / 2


def test_excess_is_a_mean_over_the_rows_of_a_domain_and_stays_where_a_batch_has_none():
    lag, domain = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64), torch.tensor([0, 0, 2])
    before = torch.tensor([9.0, 7.0, 9.0], dtype=torch.float64)
    assert _by_domain(lag, domain, before).tolist() == [2.0, 7.0, 5.0]


def test_rows_of_a_domain_share_its_weight():
    weights, domain = torch.tensor([0.6, 0.4], dtype=torch.float64), torch.tensor([0, 0, 1, 0])
    assert _row_weights(weights, domain).tolist() == pytest.approx([0.2, 0.2, 0.4, 0.2])
