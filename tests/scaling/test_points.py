import pytest

from l3_platform.model.config import parameters
from l3_platform.scaling.isoflop import points
from l3_platform.settings import Settings


def sweep(**scaling) -> Settings:
    shape = {"budgets": (1e11, 1e10), "layers": (4, 1), "aspect": 32, "min_tokens": 1}
    return Settings.model_validate({"scaling": shape | scaling, "model": {"head_dim": 32}})


def test_every_budget_meets_every_size_cheapest_and_smallest_first():
    got = [(point.budget, point.model.layers) for point in points(sweep(), 4096, 10**9)]
    assert got == [(1e10, 1), (1e10, 4), (1e11, 1), (1e11, 4)]


def test_tokens_spend_the_budget_to_a_sequence():
    for point in points(sweep(), 4096, 10**9):
        assert 0 <= point.budget - 6 * point.params * point.tokens < 6 * point.params * 128


def test_parameters_are_counted_exactly_with_embeddings():
    assert all(point.params == parameters(point.model) for point in points(sweep(), 4096, 10**9))


def test_points_with_too_few_tokens_are_left_out_with_the_reason():
    reasons = {point.name: point.left_out for point in points(sweep(min_tokens=5000), 4096, 10**9)}
    assert reasons["flops-1.000e+10-layers-004"] == "896 tokens are fewer than scaling.min_tokens 5,000"
    assert reasons["flops-1.000e+11-layers-001"] == ""


def test_points_that_repeat_the_data_too_often_are_left_out_with_the_reason():
    reasons = [point.left_out for point in points(sweep(max_epochs=2.0), 4096, 10_000)]
    assert "would repeat the 10,000 at hand more than scaling.max_epochs 2 times" in reasons[2]
    assert reasons[3] == ""


def test_names_are_unique():
    names = [point.name for point in points(sweep(budgets=(1.5e10, 1.51e10), layers=(1, 10, 100)), 4096, 10**9)]
    assert len(set(names)) == 6


@pytest.mark.parametrize("key,value", [("rope_theta", 10_000.0), ("norm_eps", 1e-6)])
def test_the_model_section_reaches_the_shapes(key, value):
    settings = sweep().model_copy(update={"model": Settings().model.model_copy(update={key: value})})
    assert getattr(points(settings, 4096, 10**9)[0].model, key) == value
