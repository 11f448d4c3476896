"""What `l3 run` tells a person whose settings cannot work, and when."""

import dagster as dg
import pytest

from l3_platform.orchestration import headless
from l3_platform.settings import SettingsError
from l3_platform.store import MissingDataset


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in (headless.PROFILE, headless.OVERRIDES, "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")  # a run sets them
    monkeypatch.setenv("L3_HOME", str(tmp_path))
    return tmp_path


def lines_of(error: Exception) -> list[str]:
    """What is printed where the step `pretrained` raises this."""

    @dg.op
    def pretrained():
        raise error

    @dg.job
    def rebuild():
        pretrained()

    return headless._errors(rebuild.execute_in_process(raise_on_error=False))


@pytest.mark.parametrize("select", ["*", "*pretrained", "annealed"])
def test_a_mesh_that_cannot_be_is_refused_before_anything_is_made(home, select):
    with pytest.raises(SettingsError, match=r"2 ranks cannot hold whole models of 3 ranks .* lower train\.tensor_parallel"):
        headless.run("demo", ["train.tensor_parallel=3"], select)
    assert not (home / "data").exists()


def test_an_unknown_preset_is_refused_before_anything_is_made(home):
    with pytest.raises(SettingsError, match=r"no preset '7b'; did you mean '70b'\?"):
        headless.run("demo", ["model.preset=7b"], "*pretrained")
    assert not (home / "data").exists()


def test_a_sentence_that_names_a_setting_stands_without_python_s_word_for_it():
    sentence = "mesh: 7 query heads cannot be cut over 2 tensor-parallel ranks; set train.tensor_parallel to a divisor of 7"
    assert lines_of(ValueError(sentence)) == [f"pretrained: {sentence}"]


def test_what_is_no_sentence_about_a_setting_keeps_it():
    assert lines_of(ValueError("max() arg is an empty sequence")) == ["pretrained: ValueError: max() arg is an empty sequence"]


def test_a_missing_input_comes_with_the_selection_that_makes_it():
    said = "training_plan/all is not materialized with these settings (profile demo)"
    assert lines_of(MissingDataset(said)) == [f"pretrained: {said} (with --select: '*pretrained' makes what it needs first)"]
