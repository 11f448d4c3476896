"""`mixture_runs`, `mixture_law`, `doremi` and `mixture_validation` as datasets. With mixture.runs = 0 all are empty."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from l3_platform.engine import Counts, Output, map_shards
from l3_platform.mix.data_mix import DOMAINS
from l3_platform.scaling.mixture_choice import (
    CANDIDATES,
    FOUND,
    METHODS,
    NATURAL,
    SETTINGS,
    UNSEEN,
    choose_mixture,
    mixture_of,
    predicted_target,
    target_weights,
)
from l3_platform.scaling.mixture_runs import (
    RUNS,
    WEIGHTS,
    MixtureTask,
    natural_mixture,
    run_doremi,
    run_mixture,
    sampled_mixtures,
    shares_in,
)
from l3_platform.scaling.mixture_validation import Difference, paired_difference, target_losses
from l3_platform.scaling.proxy import Corpus, shape_and_tokens
from l3_platform.settings import Settings, SettingsError
from l3_platform.store import Dataset, Writer, files
from l3_platform.store.dataset import read_table
from l3_platform.tokens.build import tokens_by_domain, vocabulary

Built = tuple[Sequence[str], Mapping[str, Any]]
DOREMI = "doremi"
OFF, FITS = "off", "fits.json"
COMPARISONS = ((FOUND, NATURAL), (SETTINGS, NATURAL), (DOREMI, NATURAL), (FOUND, SETTINGS), (FOUND, DOREMI))


def build_mixture_runs(token_shards: Sequence[Dataset], tokenizer: Sequence[Dataset], *, out: Writer, settings: Settings) -> Built:
    """A shard a training, so that a killed sweep resumes run by run; those that diverge have failed, with their reason."""
    sweep = settings.mixture
    if not sweep.runs:
        return _off(out, RUNS)
    natural = natural_mixture(tokens_by_domain(token_shards[0]))
    sampled = sampled_mixtures(natural, sweep.runs, sweep.concentration, settings.train.seed)
    mixtures = {f"mixture-{number:04d}": shares for number, shares in enumerate(sampled)}
    tasks = _tasks(mixtures, sweep.seeds, token_shards[0], tokenizer[0], settings)
    return _run(run_mixture, tasks, out, settings), {"mixtures": sweep.runs, **_size(tasks)}


def build_mixture_law(
    mixture_runs: Sequence[Dataset], token_shards: Sequence[Dataset], *, out: Writer, settings: Settings
) -> Built:
    """The mixtures side by side, with their predicted losses; how well each method predicts, as a file."""
    runs = mixture_runs[0].read()
    if not mixture_runs[0].manifest.counts.records_in:
        return _off(out, CANDIDATES)
    choice = choose_mixture(runs, tokens_by_domain(token_shards[0]), settings)
    fits = json.dumps({"methods": choice.methods.to_pylist(), "unseen": choice.unseen.to_pylist()}).encode()
    out.put("part-00000", Output(choice.candidates, Counts.annotated(choice.candidates.num_rows), files={FITS: fits}))
    chosen = {row["domain_group"]: row["method"] for row in choice.methods.to_pylist() if row["chosen"]}
    metrics: dict[str, Any] = {"law of each domain": chosen, "predicted target": predicted_target(choice.candidates)}
    return ["part-00000"], metrics | ({"notes": list(choice.notes)} if choice.notes else {})


def read_fits(mixture_law: Dataset) -> tuple[pa.Table, pa.Table]:
    """Tables of METHODS and UNSEEN; empty where the sweep is off."""
    fits = json.loads(files.read(mixture_law.file(FITS))) if mixture_law.files else {"methods": [], "unseen": []}
    return pa.Table.from_pylist(fits["methods"], schema=METHODS), pa.Table.from_pylist(fits["unseen"], schema=UNSEEN)


def found_mixture(mixture_law: Dataset) -> dict[str, float]:
    """The shares that the law found, of every domain. Raises SettingsError where the sweep is off."""
    found = mixture_of(mixture_law.read(), FOUND)
    if not found:
        raise SettingsError(
            "setting mix.choose: `law` has no law to follow while mixture.runs is 0; raise it (at least 10), or choose `settings`"
        )
    return dict.fromkeys(DOMAINS, 0.0) | found


def build_doremi(token_shards: Sequence[Dataset], tokenizer: Sequence[Dataset], *, out: Writer, settings: Settings) -> Built:
    """A shard a seed: a reference model on the natural mixture, and the shares that a proxy beside it takes."""
    sweep = settings.mixture
    if not (sweep.runs and sweep.doremi_seeds):
        return _off(out, WEIGHTS)
    mixtures = {DOREMI: natural_mixture(tokens_by_domain(token_shards[0]))}
    tasks = _tasks(mixtures, sweep.doremi_seeds, token_shards[0], tokenizer[0], settings)
    return _run(run_doremi, tasks, out, settings), _size(tasks)


def build_mixture_validation(
    mixture_law: Sequence[Dataset],
    doremi: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """Every candidate at the next size up, with the same seeds; the differences of their targets as metrics."""
    candidates, sweep = mixture_law[0].read(), settings.mixture
    if not candidates.num_rows:
        return _off(out, RUNS)
    mixtures = {name: mixture_of(candidates, name) for name in (FOUND, NATURAL, SETTINGS)}
    weights = [shares_in(row) for row in doremi[0].read().to_pylist()]
    if weights:
        mixtures[DOREMI] = {domain: sum(one[domain] for one in weights) / len(weights) for domain in mixtures[NATURAL]}
    tasks = _tasks(mixtures, sweep.validation_seeds, token_shards[0], tokenizer[0], settings, size="validation_")
    names = _run(run_mixture, tasks, out, settings)
    runs = pa.concat_tables([read_table(files.join(out.folder, f"{name}.parquet")) for name in names])
    losses = target_losses(runs, target_weights(candidates))
    means = {mixture: sum(by_seed.values()) / len(by_seed) for mixture, by_seed in losses.items()}
    pairs = [paired_difference(mixture, against, losses) for mixture, against in COMPARISONS]
    return names, {"target": means, "differences": [pair.model_dump() for pair in pairs if pair], **_size(tasks)}


def read_differences(mixture_validation: Dataset) -> list[Difference]:
    return [Difference.model_validate(one) for one in mixture_validation.manifest.metrics.get("differences", [])]


def _off(out: Writer, schema: pa.Schema) -> Built:
    out.put(OFF, Output(schema.empty_table(), Counts()))
    return [OFF], {}


def _tasks(
    mixtures: Mapping[str, Mapping[str, float]],
    seeds: int,
    token_shards: Dataset,
    tokenizer: Dataset,
    settings: Settings,
    size: str = "",
) -> dict[str, MixtureTask]:
    """Every mixture at every seed, by name. `size` begins the settings of layers and budget. Raises SettingsError."""
    words, sweep = vocabulary(tokenizer), settings.mixture
    layers, budget = getattr(sweep, f"{size}layers"), getattr(sweep, f"{size}budget")
    model, tokens = shape_and_tokens(layers, budget, settings, words.size)
    if tokens < settings.scaling.batch_tokens:
        raise SettingsError(
            f"setting mixture.{size}budget: {budget:.3g} FLOPs are not one batch of a model of {layers} layer(s); raise it"
        )
    corpus, first = Corpus.of(token_shards, words), settings.train.seed
    tasks = [
        MixtureTask(mixture, shares, seed, model, tokens, corpus, settings)
        for mixture, shares in mixtures.items()
        for seed in range(first, first + seeds)
    ]
    return {task.name: task for task in tasks}


def _run(fn: Callable[[MixtureTask], Output], tasks: Mapping[str, MixtureTask], out: Writer, settings: Settings) -> list[str]:
    return map_shards(fn, tasks, out, settings.engine.model_copy(update={"workers": settings.scaling.workers}))


def _size(tasks: Mapping[str, MixtureTask]) -> dict[str, Any]:
    task = next(iter(tasks.values()))
    return {"layers": task.model.layers, "tokens a run": task.tokens}
