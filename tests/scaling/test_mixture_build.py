"""The assets' datasets over two small domains: on, off, resumed, and what follows what."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.mix.data_mix import DOMAINS
from l3_platform.scaling import mixture_build
from l3_platform.scaling.mixture_build import (
    build_doremi,
    build_mixture_law,
    build_mixture_runs,
    build_mixture_validation,
    found_mixture,
    read_differences,
)
from l3_platform.scaling.mixture_runs import RUNS, MixtureTask
from l3_platform.settings import SettingsError
from l3_platform.store import Counts, Dataset, Output, Writer
from l3_platform.tokens.build import Vocabulary
from tests.scaling.small_corpus import BOS, EOS, SETTINGS, VOCAB, corpus

SWEEP = {"runs": 10, "doremi_seeds": 1, "validation_layers": 1, "validation_budget": 1e9, "validation_seeds": 2}


def settings(**mixture):
    changed = SETTINGS.mixture.model_copy(update=SWEEP | mixture)
    engine = SETTINGS.scaling.model_copy(update={"workers": 1})
    return SETTINGS.model_copy(update={"mixture": changed, "scaling": engine})


@pytest.fixture
def made(tmp_path, monkeypatch):
    """`make(stage, builder, *inputs, settings)`: commits the stage's dataset. Trainings are in memory, in this process."""
    words, streams = Vocabulary(VOCAB, BOS, EOS), corpus(tmp_path)
    monkeypatch.setattr(mixture_build, "vocabulary", lambda tokenizer: words)
    monkeypatch.setattr(mixture_build, "tokens_by_domain", lambda shards: {"code": 6000, "math": 4000})
    monkeypatch.setattr(mixture_build.Corpus, "of", classmethod(lambda cls, shards, tokenizer: streams))
    monkeypatch.setattr(mixture_build, "map_shards", in_this_process)

    def make(stage: str, builder, *inputs, settings) -> Dataset:
        out = Writer(f"{tmp_path}/{stage}", asset=stage, partition="all", code_version="1", settings={}, inputs={})
        return out.commit(*builder(*([one] for one in inputs), out=out, settings=settings))

    return make


def in_this_process(fn, tasks, out, engine) -> list[str]:
    for name in sorted(set(tasks) - out.finished()):
        out.put(name, fn(tasks[name]))
    return sorted(tasks)


def easily(task: MixtureTask) -> Output:
    """A training without its minute: losses that fall with the domain's share, shifted by the seed."""
    row = {"point": task.name, "mixture": task.mixture, "seed": task.seed, "params": 1, "tokens": task.tokens, "train_loss": 2.0}
    row |= {f"share_{domain}": task.shares.get(domain, 0.0) for domain in DOMAINS}
    row |= {f"loss_{domain}": 2.0 + 0.01 * task.seed + float(np.exp(-3 * share)) for domain, share in task.shares.items()}
    return Output(pa.Table.from_pylist([row], schema=RUNS), Counts.annotated(1))


def test_from_runs_over_the_law_to_a_validated_mixture(made, monkeypatch):
    monkeypatch.setattr(mixture_build, "run_mixture", easily)
    few = functools.partial(mixture_build.choose_mixture, methods=("linear", "exponential"))
    monkeypatch.setattr(mixture_build, "choose_mixture", few)
    asked = settings(target={"code": 0.5, "math": 0.5})
    runs = made("mixture_runs", build_mixture_runs, None, None, settings=asked)
    law = made("mixture_law", build_mixture_law, runs, None, settings=asked)
    weights = made("doremi", build_doremi, None, None, settings=asked)
    validation = made("mixture_validation", build_mixture_validation, law, weights, None, None, settings=asked)
    assert runs.manifest.rows == 10
    assert found_mixture(law)["code"] == pytest.approx(0.5, abs=0.05)  # the minimum of two equal, convex losses
    assert set(validation.read()["mixture"].to_pylist()) == {"found", "natural", "settings", "doremi"}
    (difference,) = [one for one in read_differences(validation) if (one.mixture, one.against) == ("found", "natural")]
    assert difference.pairs == 2
    assert difference.high < 0


def test_a_sweep_that_is_off_makes_empty_datasets_all_the_way(made):
    off = settings(runs=0)
    runs = made("mixture_runs", build_mixture_runs, None, None, settings=off)
    law = made("mixture_law", build_mixture_law, runs, None, settings=off)
    weights = made("doremi", build_doremi, None, None, settings=off)
    validation = made("mixture_validation", build_mixture_validation, law, weights, None, None, settings=off)
    assert [one.manifest.rows for one in (runs, law, weights, validation)] == [0, 0, 0, 0]
    with pytest.raises(SettingsError, match=r"mix\.choose: `law` has no law to follow"):
        found_mixture(law)


def test_a_budget_under_one_batch_is_refused_in_words(made):
    with pytest.raises(SettingsError, match=r"mixture\.budget: 1e\+06 FLOPs are not one batch"):
        made("mixture_runs", build_mixture_runs, None, None, settings=settings(budget=1e6))
