import math

import pyarrow as pa
import pytest

from l3_platform.model.config import parameters, presets
from l3_platform.scaling.laws import ScalingLaw
from l3_platform.scaling.plan import TrainingPlan, candidate, training_plan
from l3_platform.scaling.surface import LossSurface, fit_surface
from l3_platform.settings import Settings, SettingsError, Stage
from tests.scaling.test_parametric import sweep

LAW = ScalingLaw(method="isoflop", exponent=0.5, coefficient=0.4, minima=(), loss_exponent=-0.05, loss_coefficient=20.0)


def settings(**sections) -> Settings:
    return Settings.model_validate(sections)


def test_six_times_parameters_times_tokens_is_the_budget_to_a_sequence():
    plan = training_plan(LAW, settings(), 4096, 10**9)
    assert plan.budget - 6 * plan.parameters * 128 < plan.flops <= plan.budget


def test_no_other_depth_is_nearer_to_the_optimum():
    base = settings(train={"budget_flops": 1e17})
    plan = training_plan(LAW, base, 4096, 10**12)
    distance = abs(math.log(plan.parameters / plan.optimal_parameters))
    for layers in (plan.model.layers - 1, plan.model.layers + 1):
        assert distance <= abs(math.log(parameters(candidate(layers, base, 4096)) / plan.optimal_parameters))


def test_a_preset_fixes_the_shape_but_not_the_vocabulary():
    plan = training_plan(LAW, settings(model={"preset": "3m"}), 2048, 10**9)
    assert (plan.model.layers, plan.model.d_model, plan.model.vocab_size) == (4, presets["3m"].d_model, 2048)


def test_the_paper_s_flagship_gets_the_paper_s_tokens():
    flagship = settings(model={"preset": "405b"}, train={"budget_flops": 3.8e25, "ramp": [Stage(batch_tokens=8192, seq_len=8192)]})
    assert training_plan(LAW, flagship, 128_256, 10**13).total_tokens == pytest.approx(15.6e12, rel=0.001)


def test_a_cosine_that_ends_before_the_run_is_refused():
    short = settings(train={"cosine_tokens": 1000})
    with pytest.raises(SettingsError, match=r"train\.cosine_tokens: a cosine of 1,000 tokens ends before the plan's"):
        training_plan(LAW, short, 4096, 10**9)


def test_the_predicted_loss_is_the_surface_s_for_the_model_that_will_be_trained():
    surface = fit_surface(pa.table(dict(zip(("params", "tokens", "loss"), sweep(noise=0.01), strict=True))))
    assert isinstance(surface, LossSurface)
    plan = training_plan(LAW, settings(), 4096, 10**9, surface)
    assert plan.predicted_loss is not None
    assert tuple(plan.predicted_loss.model_dump().values()) == surface.predict(plan.parameters, plan.total_tokens)


def test_without_a_surface_no_loss_is_promised():
    assert training_plan(LAW, settings(), 4096, 10**9).predicted_loss is None


def test_too_little_data_is_said_in_words():
    (note,) = [note for note in training_plan(LAW, settings(), 4096, 1000).notes if "repeat the data" in note]
    assert "above mix.max_epochs 4" in note


def test_stages_of_the_ramp_that_never_begin_are_left_out():
    late = settings(train={"ramp": [Stage(), Stage(from_tokens=10**12)]})
    plan = training_plan(LAW, late, 4096, 10**9)
    assert plan.ramp == (Stage(),)
    assert "1 stage(s) of train.ramp begin after the last token and are left out" in plan.notes


def test_a_fallback_law_is_named_in_the_plan():
    law = LAW.model_copy(update={"method": "fallback", "notes": ("nothing was measured",)})
    assert "the law is a fallback: nothing was measured" in training_plan(law, settings(), 4096, 10**9).notes


def test_a_preset_far_from_the_optimum_is_said_in_words():
    plan = training_plan(LAW, settings(model={"preset": "tiny"}, train={"budget_flops": 1e18}), 4096, 10**15)
    assert any(note.startswith("preset tiny has") and "times the optimum" in note for note in plan.notes)


def test_a_plan_survives_json():
    plan = training_plan(LAW, settings(), 4096, 10**9)
    assert TrainingPlan.model_validate_json(plan.model_dump_json()) == plan


def test_an_unknown_preset_is_met_with_the_nearest_known_one():
    with pytest.raises(SettingsError, match=r"no preset '405bb'; did you mean '405b'"):
        training_plan(LAW, settings(model={"preset": "405bb"}), 4096, 10**9)


def test_a_budget_that_pays_for_no_sequence_is_refused():
    with pytest.raises(SettingsError, match=r"train\.budget_flops: 1e\+06 FLOPs do not pay for one sequence"):
        training_plan(LAW, settings(train={"budget_flops": 1e6}), 4096, 10**9)
