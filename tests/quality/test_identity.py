"""What makes another classifier, and what only another way of making the same."""

import pytest

from l3_platform.lineage import Catalog
from l3_platform.settings import PROFILES, SettingsError, load


def relevant(stage: str, *overrides: str) -> dict:
    return Catalog(load("demo", overrides), ["s1"], str).relevant(stage)


ASKED = ("code.kind=encoder", "code.labels=endpoint")


@pytest.mark.parametrize("override", ["code.kind=fasttext", "encoder.epochs=9", "annotator.model=another", "code.labels=simulated"])
def test_another_learner_or_annotator_is_another_classifier(override):
    assert relevant("code_classifier", *ASKED, override) != relevant("code_classifier", *ASKED)


@pytest.mark.parametrize("override", ["encoder.epochs=9", "annotator.model=another"])
def test_an_encoder_or_annotator_that_is_not_used_does_not_matter(override):
    assert relevant("quality_classifier", override) == relevant("quality_classifier")


@pytest.mark.parametrize(
    "override", ["annotator.url=http://elsewhere/v1", "annotator.retries=1", "annotator.prompt_price=3", "annotator.concurrency=99"]
)
def test_how_an_annotator_is_reached_does_not_matter(override):
    assert relevant("code_classifier", *ASKED, override) == relevant("code_classifier", *ASKED)


def test_the_threshold_of_the_decision_trains_no_classifier():
    assert relevant("quality_classifier", "quality.min_score=0.5") == relevant("quality_classifier")


def test_an_encoders_folder_enters_with_its_contents(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = relevant("code_classifier", *ASKED, f"encoder.path={tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert relevant("code_classifier", *ASKED, f"encoder.path={tmp_path}") != first


def test_a_label_file_that_is_not_there_is_one_sentence():
    with pytest.raises(SettingsError, match=r"code\.labels: there is no file /no/such\.csv"):
        relevant("code_classifier", "code.labels=/no/such.csv")


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("llama3-*.toml")))
def test_the_papers_profiles_distil_encoders_from_an_annotator(profile):
    settings = load(profile)
    for section in (settings.code, settings.reasoning):
        assert (section.kind, section.labels) == ("encoder", "endpoint")
