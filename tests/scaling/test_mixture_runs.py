import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.model.config import parameters
from l3_platform.scaling.mixture_runs import (
    RUNS,
    MixtureTask,
    mean_losses,
    natural_mixture,
    run_doremi,
    run_mixture,
    sampled_mixtures,
    shares_in,
)
from l3_platform.scaling.proxy import shape_and_tokens
from tests.scaling.small_corpus import SETTINGS, VOCAB, corpus


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> MixtureTask:
    model, tokens = shape_and_tokens(1, SETTINGS.mixture.budget, SETTINGS, VOCAB)
    shares = {"code": 0.5, "math": 0.5}
    return MixtureTask("even", shares, 7, model, tokens, corpus(tmp_path_factory.mktemp("streams")), SETTINGS)


@pytest.fixture(scope="module")
def row(task) -> dict:
    return run_mixture(task).table.to_pylist()[0]


def test_the_natural_mixture_is_that_of_the_tokens_at_hand():
    assert natural_mixture({"general": 60, "math": 0, "code": 20}) == {"general": 0.75, "code": 0.25}


def test_samples_scatter_around_the_natural_mixture():
    natural = {"general": 0.6, "math": 0.3, "code": 0.1}
    sampled = np.array([list(shares.values()) for shares in sampled_mixtures(natural, 4000, 4.0, seed=0)])
    assert sampled.mean(axis=0) == pytest.approx(list(natural.values()), abs=0.02)
    assert np.allclose(sampled.sum(axis=1), 1.0)


def test_a_larger_concentration_draws_nearer():
    natural = {"general": 0.6, "code": 0.4}
    near, far = (
        np.std([shares["code"] for shares in sampled_mixtures(natural, 500, concentration, seed=0)]) for concentration in (40, 4)
    )
    assert near < far / 2


def test_a_run_says_how_well_it_does_on_each_domain(row):
    assert shares_in(row) == {"general": 0.0, "math": 0.5, "code": 0.5, "multilingual": 0.0}
    assert row["loss_code"] < row["loss_math"]
    assert row["loss_general"] is None


def test_a_run_again_gives_the_same_row(task, row):
    assert run_mixture(task).table.to_pylist()[0] == row


def test_more_of_a_domain_lowers_its_loss(task, row):
    mostly = run_mixture(dataclasses.replace(task, shares={"code": 0.1, "math": 0.9})).table.to_pylist()[0]
    assert mostly["loss_math"] < row["loss_math"]
    assert mostly["loss_code"] > row["loss_code"]


def test_the_budget_is_spent_to_a_sequence(task, row):
    params = parameters(task.model)
    assert 0 <= SETTINGS.mixture.budget - 6 * params * row["tokens"] < 6 * params * SETTINGS.scaling.seq_len


def test_a_run_that_diverges_is_a_failure_with_its_reason(task):
    hot = SETTINGS.model_copy(update={"scaling": SETTINGS.scaling.model_copy(update={"learning_rate": 1e30})})
    output = run_mixture(dataclasses.replace(task, settings=hot))
    assert (output.table.num_rows, output.counts.failed) == (0, 1)
    assert output.quarantine.to_pylist()[0]["file"] == "even-seed-7"


def test_losses_are_means_over_seeds_and_mixtures_without_a_finite_one_are_left_out():
    rows = [("a", 1.0), ("a", 3.0), ("b", 2.0), ("b", None), ("c", float("nan")), ("d", 5.0)]
    runs = pa.Table.from_pylist([{"mixture": mixture, "loss_code": loss} for mixture, loss in rows], schema=RUNS)
    assert mean_losses(runs, "code") == {"a": 2.0, "d": 5.0}


def test_doremi_takes_shares_of_the_simplex_and_the_same_ones_again(task):
    first, again = (run_doremi(task).table.to_pylist()[0] for _ in range(2))
    assert first == again
    assert sum(shares_in(first).values()) == pytest.approx(1.0)
    assert shares_in(first)["general"] == 0.0
