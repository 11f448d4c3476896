"""Which stage needs what, and so where each dataset lies: the identity of every artifact in one table.

A stage's fingerprint hashes its code version, the settings that matter to it and the digests of its inputs' manifests.
Change a threshold and the dataset has another folder; change nothing and it is found, not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l3_platform.settings import Section, Settings, SettingsError, home
from l3_platform.store import Dataset, MissingDataset, Writer, files

EVERYTHING = "all"  # the one partition of a stage that spans all snapshots


@dataclass(frozen=True)
class Stage:
    """One asset: `settings` are the sections (or section.key) that change its output, `inputs` the stages it reads."""

    name: str
    version: str
    settings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    by_snapshot: bool = False


def _stages(*stages: Stage) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages}


STAGES = _stages(
    # crawl: a partition a snapshot
    Stage("raw_crawl", "1", by_snapshot=True),
    # clean: a shard a WARC file, a sidecar a stage
    Stage("documents", "1", ("extract",), ("raw_crawl",), by_snapshot=True),
    Stage("url_policy", "1", ("url_policy",), ("documents",), by_snapshot=True),
    Stage("languages", "1", ("languages",), ("documents",), by_snapshot=True),
    Stage("text_heuristics", "1", ("heuristics.dirty_word_list",), ("documents", "languages"), by_snapshot=True),
    Stage("pii", "1", (), ("documents",), by_snapshot=True),
    # dedup: across snapshots
    Stage("url_versions", "1", ("dedup.buckets",), ("documents", "url_policy")),
    Stage("duplicate_documents", "1", ("dedup",), ("documents", "url_versions")),
    Stage("repeated_lines", "1", ("dedup",), ("documents", "languages", "url_versions", "duplicate_documents")),
    # quality
    Stage("quality_classifier", "1", ("quality",), ("documents", "url_versions", "duplicate_documents")),
    Stage("quality_scores", "1", (), ("documents", "quality_classifier")),
    Stage("knowledge_domains", "1", (), ("documents", "languages")),
    # mix
    Stage(
        "curation_decisions",
        "1",
        ("curate", "heuristics", "languages.min_score", "pii", "quality.min_score", "url_policy.max_pii_share"),
        (
            *("documents", "url_policy", "languages", "text_heuristics", "pii"),
            *("url_versions", "duplicate_documents", "quality_scores"),
        ),
    ),
    Stage(
        "curated_documents",
        "1",
        (),
        ("documents", "curation_decisions", "languages", "repeated_lines", "quality_scores", "knowledge_domains"),
    ),
    Stage("tokenizer", "1", ("tokenizer", "mix.held_out_share"), ("curated_documents",)),
    Stage("token_shards", "1", ("mix.held_out_share",), ("curated_documents", "tokenizer")),
    Stage("data_mix", "1", ("mix", "anneal.tokens"), ("token_shards",)),
    # scaling
    Stage("isoflop_runs", "1", ("scaling", "model", "train.seed"), ("token_shards", "data_mix", "tokenizer")),
    Stage("scaling_laws", "1", (), ("isoflop_runs",)),
    Stage("training_plan", "1", ("scaling", "model", "train", "mix.max_epochs"), ("scaling_laws", "token_shards", "tokenizer")),
    # pretrain and evaluate
    Stage("pretrained", "1", ("train", "model"), ("training_plan", "token_shards", "data_mix", "tokenizer")),
    Stage("annealed", "1", ("train", "anneal"), ("pretrained", "training_plan", "token_shards", "data_mix", "tokenizer")),
    Stage("evaluation", "1", ("evaluate",), ("pretrained", "annealed", "token_shards", "data_mix", "tokenizer")),
)

# Settings that name a file: what it holds enters the fingerprint, so a retrained model is never mistaken for the old one.
FILE_SETTINGS = {
    "languages.model",
    "quality.model",
    "quality.labels",
    "url_policy.domain_lists",
    "url_policy.url_lists",
    "heuristics.dirty_word_list",
}

# Settings of how a run is carried out: they change its pace and its place, never what comes out.
OPERATIONAL_SETTINGS = {
    *("train.launcher", "train.max_restarts", "train.shutdown_seconds", "train.log_every_steps", "train.keep_checkpoints"),
    *("train.checkpoint_every_tokens", "train.peak_flops", "scaling.workers"),
}


@dataclass
class Catalog:
    """Finds and opens datasets for one tree of settings. `identity(snapshot)` names what a snapshot consists of."""

    settings: Settings
    snapshots: Sequence[str]
    identity: Callable[[str], str]
    _fingerprints: dict[tuple[str, str], str] = field(default_factory=dict)
    _open: dict[str, Dataset] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return self.settings.store.root or str(home() / "data")

    def partitions(self, stage: str) -> list[str]:
        return list(self.snapshots) if STAGES[stage].by_snapshot else [EVERYTHING]

    def folder(self, stage: str, partition: str = EVERYTHING) -> str:
        """Where the dataset lies or will lie. Raises MissingDataset when an input is not finished."""
        return files.join(self.root, stage, partition, self.fingerprint(stage, partition))

    def dataset(self, stage: str, partition: str = EVERYTHING) -> Dataset:
        """The finished dataset. Raises MissingDataset, naming the asset to materialize."""
        folder = self.folder(stage, partition)
        if folder not in self._open:
            try:
                self._open[folder] = Dataset.open(folder)
            except MissingDataset:
                raise MissingDataset(
                    f"{stage}/{partition} is not materialized with these settings (profile {self.settings.profile}); "
                    f"materialize {stage}, or run the whole job"
                ) from None
        return self._open[folder]

    def find(self, stage: str, partition: str = EVERYTHING) -> Dataset | None:
        try:
            return self.dataset(stage, partition)
        except MissingDataset:
            return None

    def datasets(self, stage: str) -> list[Dataset]:
        """One a partition, oldest snapshot first."""
        return [self.dataset(stage, partition) for partition in self.partitions(stage)]

    def inputs(self, stage: str, partition: str = EVERYTHING) -> dict[str, list[Dataset]]:
        """What `stage` reads for `partition`: the same snapshot's datasets, or those of all."""
        return {
            name: [self.dataset(name, partition)] if STAGES[name].by_snapshot and STAGES[stage].by_snapshot else self.datasets(name)
            for name in STAGES[stage].inputs
        }

    def fingerprint(self, stage: str, partition: str = EVERYTHING) -> str:
        key = (stage, partition)
        if key not in self._fingerprints:
            identity = [stage, STAGES[stage].version, self.relevant(stage), self.input_digests(stage, partition)]
            if not STAGES[stage].inputs:
                identity.append(self.identity(partition))
            content = json.dumps(identity, sort_keys=True).encode()
            self._fingerprints[key] = hashlib.sha256(content).hexdigest()[:20]
        return self._fingerprints[key]

    def input_digests(self, stage: str, partition: str = EVERYTHING) -> dict[str, str]:
        return {
            f"{name}/{dataset.manifest.partition}": dataset.digest
            for name, datasets in self.inputs(stage, partition).items()
            for dataset in datasets
        }

    def relevant(self, stage: str) -> dict[str, Any]:
        """The settings that change what `stage` makes, as JSON."""
        return {path: _jsonable(path, self.settings) for path in STAGES[stage].settings}

    def writer(self, stage: str, partition: str = EVERYTHING) -> Writer:
        return Writer(
            self.folder(stage, partition),
            asset=stage,
            partition=partition,
            code_version=STAGES[stage].version,
            settings=self.relevant(stage),
            inputs=self.input_digests(stage, partition),
            compression_level=self.settings.store.compression_level,
            rows_per_group=self.settings.store.rows_per_group,
        )


def _jsonable(path: str, settings: Settings) -> Any:
    section, _, key = path.partition(".")
    model: Section = getattr(settings, section)
    values = {
        name: value for name, value in model.model_dump(mode="json").items() if f"{section}.{name}" not in OPERATIONAL_SETTINGS
    }
    values |= {name: _contents(f"{section}.{name}", values[name]) for name in values if f"{section}.{name}" in FILE_SETTINGS}
    return values[key] if key else values


def _contents(setting: str, paths: str | Sequence[str]) -> Any:
    if not isinstance(paths, str):
        return [_contents(setting, path) for path in paths]
    if not paths:
        return ""
    if not Path(paths).is_file():
        raise SettingsError(f"setting {setting}: there is no file {paths}; give the path of one, or leave the setting out")
    return hashlib.sha256(Path(paths).read_bytes()).hexdigest()
