"""Learning rates at the numbers of the papers."""

import math
from itertools import pairwise
from typing import Any

import pytest

from l3_platform.pretrain import rate_at_end
from l3_platform.scaling.plan import TrainingPlan
from l3_platform.settings import load
from l3_platform.train.data_order import step_at
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
        "horizon_tokens": SETTINGS.cosine_tokens,
    }
    return learning_rate(at, BATCH, **(recipe | changes))


def test_llama_3_405b_warms_up_over_8000_steps_of_4_m_tokens_to_8e5() -> None:
    assert SETTINGS.warmup_tokens == 8000 * SETTINGS.ramp[0].batch_tokens
    assert llama3_405b(4000 * 4_194_304 - BATCH // 2) == pytest.approx(4e-5)
    assert llama3_405b(SETTINGS.warmup_tokens) == pytest.approx(8e-5, rel=1e-6)


def test_llama_3_405b_s_cosine_falls_to_8e7_over_1_2_m_steps_of_its_ramp() -> None:
    horizon = SETTINGS.cosine_tokens
    last = step_at(SETTINGS.ramp, 2 * horizon, horizon - 1)
    assert last is not None and (last.index + 1, last.end) == (1_200_000, horizon)
    assert llama3_405b(last.start) == pytest.approx(8e-7, rel=1e-6)
    middle = (SETTINGS.warmup_tokens + horizon) // 2
    assert llama3_405b(middle - BATCH // 2) == pytest.approx((8e-5 + 8e-7) / 2, rel=1e-6)


def test_llama_3_405b_ends_before_its_cosine_does() -> None:
    done = (TOTAL - BATCH / 2 - SETTINGS.warmup_tokens) / (SETTINGS.cosine_tokens - SETTINGS.warmup_tokens)
    by_hand = 8e-7 + (8e-5 - 8e-7) * math.cos(math.pi / 2 * done) ** 2
    assert llama3_405b(TOTAL - BATCH) == pytest.approx(by_hand) and by_hand > 2e-6


def test_without_a_horizon_the_cosine_ends_with_the_run() -> None:
    assert llama3_405b(TOTAL - BATCH, horizon_tokens=0) == pytest.approx(8e-7, rel=1e-6)
    assert llama3_405b(TOTAL // 2, horizon_tokens=TOTAL) == llama3_405b(TOTAL // 2, horizon_tokens=0)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("horizon", [0, SETTINGS.cosine_tokens])
def test_what_follows_pre_training_goes_on_at_the_rate_where_that_ended(schedule: str, horizon: int) -> None:
    train = SETTINGS.model_copy(update={"schedule": schedule, "cosine_tokens": horizon})
    plan = TrainingPlan.model_construct(learning_rate=8e-5, total_tokens=TOTAL, warmup_tokens=train.warmup_tokens)
    last = llama3_405b(TOTAL - 2, schedule=schedule, decay_tokens=TOTAL // 5, horizon_tokens=horizon)
    assert rate_at_end(plan, train) == pytest.approx(last, rel=1e-3)
    if not (horizon and schedule == "cosine"):
        assert rate_at_end(plan, train) == 8e-5 * 0.01


def test_annealing_falls_linearly_from_where_pre_training_ended_to_zero() -> None:
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
