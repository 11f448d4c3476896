"""Settings: typed, documented, and a typo is one sentence."""

import re

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
        ("train.threads=0", "setting train.threads: input should be greater than or equal to 1 (got 0)"),
        ("train.warmup_tokens=-5", "train.warmup_tokens: input should be greater than or equal to 0"),
        ("train.learning_rate=-1", "train.learning_rate: input should be greater than 0"),
        ("train.learning_rate=Infinity", "train.learning_rate: input should be a finite number"),
        ("train.gradient_clip=0", "train.gradient_clip: input should be greater than 0"),
        ("train.log_every_steps=0", "train.log_every_steps: input should be greater than or equal to 1"),
        ("train.keep_checkpoints=0", "train.keep_checkpoints: input should be greater than or equal to 1"),
        ("train.micro_batch_tokens=-1", "train.micro_batch_tokens: input should be greater than or equal to 0"),
        ("train.budget_flops=0", "train.budget_flops: input should be greater than 0"),
        ("train.betas=[2,3]", "train.betas.0: input should be less than 1 (got 2)"),
        ("train.weight_decay=-1", "train.weight_decay: input should be greater than or equal to 0"),
        ("train.shutdown_seconds=-1", "train.shutdown_seconds: input should be greater than or equal to 0"),
        ("train.max_restarts=-1", "train.max_restarts: input should be greater than or equal to 0"),
        ("train.nodes=0", "train.nodes: input should be greater than or equal to 1"),
        ("train.processes_per_node=0", "train.processes_per_node: input should be greater than or equal to 1"),
        ("anneal.checkpoints=0", "anneal.checkpoints: input should be greater than or equal to 1"),
        ("tokenizer.vocab_size=0", "tokenizer.vocab_size: input should be greater than or equal to 512 (got 0)"),
        ("scaling.seq_len=0", "scaling.seq_len: input should be greater than or equal to 2"),
        ("scaling.budgets=1e9,0", "scaling.budgets.1: input should be greater than 0 (got 0)"),
        ("scaling.batch_tokens=500", "setting scaling: batch_tokens 500 is no multiple of seq_len 128"),
        ("train.ramp=[{", "setting train.ramp: should be a list (got '[{')"),
        ("train.ramp=[]", "setting train.ramp: the ramp has no stage"),
        ('train.ramp=[{"seq_len": 0}]', "train.ramp.0.seq_len: input should be greater than or equal to 2"),
        ('train.ramp=[{"batch_tokens": 0}]', "train.ramp.0.batch_tokens: input should be greater than or equal to 1"),
        ('train.ramp=[{"from_tokens": 5}]', "setting train.ramp: from_tokens must begin at 0 and increase (got [5])"),
        ('train.ramp=[{}, {"from_tokens": 9}, {"from_tokens": 9}]', "train.ramp: from_tokens must begin at 0 and increase"),
        (
            'train.ramp=[{"batch_tokens": 1000}]',
            "train.ramp: batch_tokens 1000 at 0 tokens must be a multiple of the longest seq_len, 128",
        ),
        ('train.ramp=[{"seqlen": 128}]', "setting train.ramp.0.seqlen: there is no such key; did you mean 'seq_len'?"),
        (
            'data_value.candidates={"good": {"file": "x"}}',
            "data_value.candidates.good.file: there is no such key; did you mean 'files'?",
        ),
        (
            "train.ramp=banana",
            """train.ramp.0: should be {"from_tokens": ..., "batch_tokens": ..., "seq_len": ...} (got 'banana')""",
        ),
        ("train.nodes", "not of the form section.key=value"),
    ],
)
def test_a_mistake_names_the_setting_and_the_way_out(override, says):
    with pytest.raises(SettingsError, match=re.escape(says)):
        load("demo", [override])


def test_zero_stays_the_way_to_leave_a_thing_out():
    off = ["checkpoint_every_tokens", "micro_batch_tokens", "max_skipped_steps", "max_rollbacks", "max_restarts", "warmup_tokens"]
    train = load("demo", [f"train.{name}=0" for name in off]).train
    assert [getattr(train, name) for name in off] == [0] * len(off)


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
