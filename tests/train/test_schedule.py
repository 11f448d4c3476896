"""Learning rates at the numbers of the papers."""

from itertools import pairwise
from typing import Any

import pytest

from l3_platform.settings import load
from l3_platform.train.schedule import learning_rate

SETTINGS = load("llama3-405b").train
TOTAL, BATCH = 15_600_000_000_000, 16_777_216


def llama3_405b(at: int, **changes: Any) -> float:
    """The rate of a batch that begins at token `at` of the profile's run."""
    recipe: dict[str, Any] = {
        "schedule": "cosine",
        "peak": SETTINGS.learning_rate,
        "min_ratio": SETTINGS.min_learning_rate_ratio,
        "warmup_tokens": SETTINGS.warmup_tokens,
        "total_tokens": TOTAL,
    }
    return learning_rate(at, BATCH, **(recipe | changes))


def test_llama_3_405b_warms_up_over_8000_steps_of_4_m_tokens_to_8e5() -> None:
    assert SETTINGS.warmup_tokens == 8000 * SETTINGS.ramp[0].batch_tokens
    assert llama3_405b(4000 * 4_194_304 - BATCH // 2) == pytest.approx(4e-5)
    assert llama3_405b(SETTINGS.warmup_tokens) == pytest.approx(8e-5, rel=1e-6)


def test_llama_3_405b_ends_its_cosine_at_8e7() -> None:
    assert llama3_405b(TOTAL - BATCH) == pytest.approx(8e-7, rel=1e-6)
    middle = (SETTINGS.warmup_tokens + TOTAL) // 2
    assert llama3_405b(middle - BATCH // 2) == pytest.approx((8e-5 + 8e-7) / 2, rel=1e-6)


def test_annealing_falls_linearly_from_where_the_cosine_ended_to_zero() -> None:
    anneal = {
        "schedule": "linear_to_zero",
        "peak": 8e-7,
        "warmup_tokens": 0,
        "total_tokens": TOTAL + 40 * BATCH,
        "branched_at": TOTAL,
    }
    rates = [llama3_405b(TOTAL + step * BATCH, **anneal) for step in range(40)]
    assert rates[0] == pytest.approx(8e-7 * (1 - 0.5 / 40)) and rates[-1] == pytest.approx(8e-7 * 0.5 / 40)
    assert [a - b for a, b in pairwise(rates)] == pytest.approx([8e-7 / 40] * 39, rel=1e-6)


def test_wsd_is_stable_until_its_decay_and_then_falls_linearly_to_the_floor() -> None:
    wsd = {"schedule": "wsd", "decay_tokens": TOTAL // 5}
    at = {share: llama3_405b(int(share * TOTAL), **wsd) for share in (0.01, 0.5, 0.79, 0.9)}
    assert at[0.01] == at[0.5] == at[0.79] == 8e-5
    assert at[0.9] == pytest.approx((8e-5 + 8e-7) / 2, rel=1e-4)
    assert llama3_405b(TOTAL - BATCH, **wsd) == pytest.approx(8e-7, rel=1e-3)


def test_wsd_without_a_decay_stays_at_its_peak_to_the_last_step() -> None:
    assert llama3_405b(TOTAL - BATCH, schedule="wsd") == 8e-5


def test_a_stable_run_does_not_know_how_long_it_will_be() -> None:
    """So that one of them serves branches of every length."""
    rates = [
        [llama3_405b(at, schedule="wsd", total_tokens=total) for at in (0, BATCH, TOTAL // 9)] for total in (TOTAL // 8, TOTAL)
    ]
    assert rates[0] == rates[1]
