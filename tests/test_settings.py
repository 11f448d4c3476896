"""Settings: typed, documented, and a typo is one sentence."""

import pytest

from l3_platform.model.config import parameters
from l3_platform.scaling.plan import candidate
from l3_platform.settings import PROFILES, SettingsError, load


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_every_profile_loads(profile):
    assert load(profile).profile == profile


def test_an_override_wins_over_the_profile():
    assert load("demo", ["dedup.threshold=0.7"]).dedup.threshold == 0.7


def test_lists_are_written_with_commas_or_as_json():
    assert load("demo", ["crawl.paths=a*.gz,b"]).crawl.paths == ("a*.gz", "b")
    assert load("demo", ["scaling.budgets=[1e9, 2e9]"]).scaling.budgets == (1e9, 2e9)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("crawl.pats=x", "did you mean 'paths'?"),
        ("crwl.paths=x", "did you mean 'crawl'?"),
        ("train.nodes=many", "train.nodes: input should be a valid integer"),
        ("crawl.source=ftp", "crawl.source: input should be 'demo', 'files' or 'common_crawl'"),
        ("mixture.runs=9", "at least 10 mixtures"),
        ("train.nodes", "not of the form section.key=value"),
    ],
)
def test_a_mistake_names_the_setting_and_the_way_out(override, says):
    with pytest.raises(SettingsError, match=says.replace("?", r"\?")):
        load("demo", [override])


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(SettingsError, match="llama3-405b"):
        load("lama")


def test_the_paper_profile_has_the_papers_numbers():
    settings = load("llama3-405b")
    assert settings.train.learning_rate == 8e-5
    assert [stage.batch_tokens for stage in settings.train.ramp] == [4 << 20, 8 << 20, 16 << 20]
    assert settings.dedup.line_bucket_documents == 30_000_000


@pytest.mark.parametrize("profile", ["llama3-8b", "llama3-70b", "llama3-405b"])
def test_long_context_has_six_stages_to_128k_of_800_b_tokens_and_a_perfect_needle(profile):
    """Llama 3, section 3.4.2."""
    recipe = load(profile).long_context
    assert len(recipe.stages) == 6 and recipe.stages[-1].seq_len == 131_072
    assert sum(stage.tokens for stage in recipe.stages) == 800_000_000_000
    assert (recipe.needle_accuracy, recipe.short_loss_tolerance, recipe.required) == (1.0, 0.0, True)


@pytest.mark.parametrize("profile", ["llama3-8b", "llama3-70b", "llama3-405b"])
def test_data_value_anneals_half_of_an_8_b_training_on_40_b_tokens_with_30_percent_new(profile):
    """Llama 3, section 3.1.3."""
    settings = load(profile)
    asked, shape = settings.data_value, candidate(settings.data_value.layers, settings, settings.tokenizer.vocab_size)
    assert (asked.share, asked.tokens) == (0.30, 40_000_000_000)
    assert parameters(shape) == pytest.approx(8.03e9, rel=0.03)
    assert asked.budget / (6 * parameters(shape)) == pytest.approx(15.6e12, rel=0.03)


def test_the_demo_measures_the_needle_and_does_not_judge_by_it():
    assert load("demo").long_context.needle_accuracy is None
