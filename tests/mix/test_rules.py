"""The table of rules: what is derived from a line of it is all that the platform needs to know of a rule."""

from collections.abc import Mapping

import pytest

from l3_platform.engine import connect
from l3_platform.lineage import STAGES, Catalog
from l3_platform.mix.decision import RULED, judge, side_by_side, with_domains
from l3_platform.mix.rules import COLUMNS, PII_DOMAINS, REASONS, RULES, SETTINGS, SIDECARS, Rule, decision
from l3_platform.settings import Heuristics, Settings
from tests.mix.corpus import SETTINGS as ORDINARY_SETTINGS
from tests.mix.corpus import Corpus


def test_a_rule_says_itself_which_columns_and_settings_it_reads():
    rule = Rule("few_words", "text_heuristics.words", "< $heuristics.min_words", judges="languages.language <> 'en'")
    assert rule.columns == (("text_heuristics", "words"), ("languages", "language"))
    assert rule.settings == ("heuristics.min_words",)
    assert (rule.comparison, rule.limit) == ("<", "$heuristics.min_words")


def test_a_rule_without_a_limit_drops_whatever_it_judges():
    rule = Rule("url_version", "url_versions.versions", judges="NOT url_versions.newest")
    assert decision([rule]) == "CASE\n    WHEN (NOT url_versions.newest) THEN 'url_version'\nEND"


def test_reasons_are_unique_and_settings_exist():
    assert len(set(REASONS)) == len(RULES)
    for path in SETTINGS:
        section, _, key = path.partition(".")
        assert key in type(getattr(Settings(), section)).model_fields, path


def test_the_decision_depends_on_the_sidecars_and_settings_of_its_rules():
    stage = STAGES["curation_decisions"]
    assert set(stage.settings) == set(SETTINGS)
    assert set(stage.inputs) == {"documents", *SIDECARS} and set(COLUMNS) == {*SIDECARS, PII_DOMAINS}


@pytest.mark.parametrize("path", SETTINGS)
def test_a_threshold_is_no_part_of_what_the_scores_were_made_with(path):
    section, _, key = path.partition(".")
    value = getattr(getattr(Settings(), section), key)
    other = {"x": 0.5} if isinstance(value, Mapping) else ("x",) if isinstance(value, tuple) else (value or 0) + 1
    changed = Settings().model_copy(update={section: getattr(Settings(), section).model_copy(update={key: other})})
    now, then = (Catalog(settings, [], str) for settings in (Settings(), changed))
    assert [stage for stage in STAGES if now.relevant(stage) != then.relevant(stage)] == ["curation_decisions"]


def judged(page, settings=ORDINARY_SETTINGS):
    corpus = Corpus([page])
    beside = {name: datasets[0].shards[0] for name, datasets in corpus.datasets.items()}
    domains = corpus.datasets["url_policy"][0].read(["domain"])
    none = domains.slice(0, 0).append_column("pages", [[]]).append_column("pages_with_pii", [[]])
    (said,) = judge(connect(settings.engine), with_domains(side_by_side(beside, RULED), domains["domain"], none), settings)
    return {one.rule.reason: one for one in said}


def test_a_judgement_shows_the_score_beside_its_limit():
    said = judged({"text_heuristics": {"dup_ngram_max": 0.41234567, "words": 12345}})
    assert said["duplicate_ngrams"].failed and said["duplicate_ngrams"].evidence == "dup_ngram_max 0.4123 > 0.35"
    assert not said["few_words"].failed and said["few_words"].measured == "words 12,345"


def test_a_judgement_shows_the_limit_of_other_settings():
    settings = Settings(engine=ORDINARY_SETTINGS.engine, heuristics=Heuristics(min_words=200))
    assert judged({}, settings)["few_words"].evidence == "words 100 < 200"


def test_a_rule_says_of_whom_it_judges_nothing():
    said = judged({"languages": {"language": "und", "score": 0.0}, "quality_scores": {"score": 0.0, "code_share": 0.9}})
    assert not said["language_score"].judged and not said["quality"].judged and not said["quality"].failed


def test_a_document_without_a_score_fails_no_rule():
    assert not judged({"text_heuristics": {"dup_ngram_max": None}})["duplicate_ngrams"].failed
