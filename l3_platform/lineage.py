"""Which stage needs what, and so where each dataset lies: the identity of every artifact in one table.

A stage's fingerprint hashes its code version, the settings that matter to it and the digests of its inputs' manifests.
Change a threshold and the dataset has another folder; change nothing and it is found, not made again.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l3_platform.mix import rules
from l3_platform.settings import Candidate, Classifier, Section, Settings, SettingsError, home
from l3_platform.store import Dataset, MissingDataset, Writer, files

EVERYTHING = "all"  # the one partition of a stage that spans all snapshots
CLASSIFIERS = ("quality", "code", "reasoning")
CANDIDATES = "data_value.candidates"  # of which a partition's own is what matters to it


@dataclass(frozen=True)
class Stage:
    """One asset: `settings` are the sections (or section.key) that change its output, `inputs` the stages it reads.

    `when` are inputs that it reads only where a setting has a value: stage to `section.key=value`. A stage `of_candidates` is
    made only where there are candidate sets; `by_candidate` gives it a partition each.
    """

    name: str
    version: str
    settings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    by_snapshot: bool = False
    of_candidates: bool = False
    by_candidate: bool = False
    when: Mapping[str, str] = field(default_factory=dict)


def _stages(*stages: Stage) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages}


def _classifier(section: str) -> tuple[str, ...]:
    """Settings that change a classifier: its section without what only the decision reads, and what it may be made with."""
    return (*(f"{section}.{name}" for name in Classifier.model_fields), "annotator", "encoder")


_SHARES = tuple(f"mix.{domain}" for domain in ("general", "math", "code", "multilingual"))
# How a small model of a sweep is made, whatever it is trained on.
_SMALL_MODEL = (*(f"scaling.{name}" for name in ("aspect", "seq_len", "batch_tokens", "learning_rate")), "model", "train.seed")
_SIGNATURE = ("dedup.num_perm", "dedup.ngram", "dedup.seed")

STAGES = _stages(
    # crawl: a partition a snapshot
    Stage("raw_crawl", "1", by_snapshot=True),
    # clean: a shard a WARC file, a sidecar a stage
    Stage("documents", "3", ("extract",), ("raw_crawl",), by_snapshot=True),
    Stage("url_policy", "1", ("url_policy",), ("documents",), by_snapshot=True),
    Stage("language_identifier", "1", tuple(f"languages.{name}" for name in ("model", "labelled", "epochs", "dim"))),
    Stage("languages", "2", ("languages.model",), ("documents", "language_identifier"), by_snapshot=True),
    Stage("text_heuristics", "2", ("heuristics.dirty_word_lists",), ("documents", "languages"), by_snapshot=True),
    Stage("pii", "2", (), ("documents",), by_snapshot=True),
    Stage("outlier_tokens", "1", ("outlier_tokens", "dedup.buckets"), ("documents", "languages")),
    # dedup: across snapshots
    Stage("url_versions", "1", ("dedup.buckets",), ("documents", "url_policy")),
    Stage("document_signatures", "1", _SIGNATURE, ("documents",), by_snapshot=True),
    Stage(
        "duplicate_documents",
        "3",
        (*_SIGNATURE, "dedup.threshold", "dedup.bands", "dedup.scope", "dedup.buckets"),
        ("documents", "document_signatures", "languages", "url_versions"),
    ),
    Stage(
        "repeated_lines",
        "2",
        ("dedup.line_max_count", "dedup.line_bucket_documents", "dedup.line_min_chars", "dedup.buckets"),
        ("documents", "languages", "url_versions", "duplicate_documents"),
    ),
    # quality
    Stage("quality_classifier", "2", _classifier("quality"), ("documents", "url_versions", "duplicate_documents")),
    Stage("quality_scores", "2", (), ("documents", "quality_classifier")),
    Stage("code_classifier", "1", _classifier("code"), ("documents", "url_versions", "duplicate_documents")),
    Stage("code_scores", "1", (), ("documents", "code_classifier")),
    Stage("reasoning_classifier", "1", _classifier("reasoning"), ("documents", "url_versions", "duplicate_documents")),
    Stage("reasoning_scores", "1", (), ("documents", "reasoning_classifier")),
    Stage("knowledge_domains", "1", (), ("documents", "languages")),
    # mix
    Stage("curation_decisions", "2", rules.SETTINGS, ("documents", *rules.SIDECARS)),
    Stage(
        "curated_documents",
        "1",
        (),
        ("documents", "curation_decisions", "languages", "repeated_lines", "quality_scores", "knowledge_domains"),
    ),
    Stage("tokenizer", "1", ("tokenizer", "mix.held_out_share"), ("curated_documents",)),
    Stage("token_shards", "2", ("mix.held_out_share", "mix.topic_weights"), ("curated_documents", "tokenizer")),
    Stage(
        "mixture_runs",
        "1",
        (*(f"mixture.{name}" for name in ("runs", "concentration", "layers", "budget", "seeds", "held_out_tokens")), *_SMALL_MODEL),
        ("token_shards", "tokenizer"),
    ),
    Stage(
        "mixture_law", "1", (*_SHARES, "mixture.target", "mixture.final_tokens", "mix.max_epochs"), ("mixture_runs", "token_shards")
    ),
    Stage("data_mix", "3", ("mix", "anneal.tokens"), ("token_shards",), when={"mixture_law": "mix.choose=law"}),
    # scaling
    Stage(
        "doremi",
        "1",
        ("mixture.runs", "mixture.doremi_seeds", "mixture.layers", "mixture.budget", "mixture.held_out_tokens", *_SMALL_MODEL),
        ("token_shards", "tokenizer"),
    ),
    Stage(
        "mixture_validation",
        "1",
        (*(f"mixture.validation_{name}" for name in ("layers", "budget", "seeds")), "mixture.held_out_tokens", *_SMALL_MODEL),
        ("mixture_law", "doremi", "token_shards", "tokenizer"),
    ),
    # data value: a partition a candidate set
    Stage(
        "half_trained",
        "1",
        ("data_value.layers", "data_value.budget", "mixture.held_out_tokens", *_SMALL_MODEL),
        ("data_mix", "token_shards", "tokenizer"),
        of_candidates=True,
    ),
    Stage(
        "candidate_tokens",
        "1",
        (CANDIDATES,),
        ("curated_documents", "token_shards", "tokenizer"),
        of_candidates=True,
        by_candidate=True,
    ),
    Stage(
        "data_value",
        "1",
        (
            *(f"data_value.{name}" for name in ("share", "tokens", "seeds", "layers", "budget")),
            *("mixture.held_out_tokens", "mixture.target", *_SHARES, *_SMALL_MODEL),
        ),
        ("half_trained", "candidate_tokens", "data_mix", "token_shards", "tokenizer"),
        of_candidates=True,
        by_candidate=True,
    ),
    # scaling laws
    Stage("isoflop_runs", "3", ("scaling", "model", "train.seed"), ("token_shards", "data_mix", "tokenizer")),
    Stage("scaling_laws", "2", (), ("isoflop_runs",)),
    Stage("training_plan", "2", ("scaling", "model", "train", "mix.max_epochs"), ("scaling_laws", "token_shards", "tokenizer")),
    # pretrain and evaluate
    Stage("pretrained", "2", ("train", "model"), ("training_plan", "token_shards", "data_mix", "tokenizer")),
    Stage("long_context", "2", ("train", "long_context"), ("pretrained", "training_plan", "token_shards", "data_mix", "tokenizer")),
    Stage(
        "annealed",
        "4",
        ("train", "anneal"),
        ("pretrained", "long_context", "training_plan", "token_shards", "data_mix", "tokenizer"),
    ),
    Stage("evaluation", "3", ("evaluate",), ("pretrained", "long_context", "annealed", "token_shards", "tokenizer")),
)

ANNOTATORS = ("simulated", "endpoint")  # what a classifier's `labels` may be beside a file

# Settings that name a file: what it holds enters the fingerprint, so a retrained model is never mistaken for the old one.
FILE_SETTINGS = {
    "languages.model",
    "languages.labelled",
    *(f"{section}.{name}" for section in CLASSIFIERS for name in ("model", "labels", "requirements")),
    "encoder.path",
    "url_policy.domain_lists",
    "url_policy.url_lists",
    "url_policy.ut1_folders",
    "heuristics.dirty_word_lists",
}

# Settings of how a run is carried out: they change its pace and its place, never what comes out.
OPERATIONAL_SETTINGS = {
    *("train.launcher", "train.max_restarts", "train.shutdown_seconds", "train.log_every_steps", "train.keep_checkpoints"),
    *("train.checkpoint_every_tokens", "train.peak_flops", "train.hang_seconds", "train.stall_seconds", "scaling.workers"),
    *("scaling.retry_failed", "long_context.required"),
    *("annotator.url", "annotator.api_key_variable", "annotator.timeout_seconds", "annotator.retries", "annotator.concurrency"),
    *("annotator.prompt_price", "annotator.completion_price"),
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
        if STAGES[stage].by_candidate:
            return list(self.settings.data_value.candidates)
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
        """What `stage` reads for `partition`: the same snapshot's or candidate set's datasets, or those of all."""
        return {
            name: [self.dataset(name, partition)] if _side_by_side(STAGES[name], STAGES[stage]) else self.datasets(name)
            for name in inputs_of(stage, self.settings)
        }

    def fingerprint(self, stage: str, partition: str = EVERYTHING) -> str:
        key = (stage, partition)
        if key not in self._fingerprints:
            identity = [stage, STAGES[stage].version, self.relevant(stage, partition), self.input_digests(stage, partition)]
            if STAGES[stage].by_snapshot and not STAGES[stage].inputs:
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

    def relevant(self, stage: str, partition: str = EVERYTHING) -> dict[str, Any]:
        """The settings that change what `stage` makes, as JSON; of candidate sets the partition's own."""
        idle = {*_idle(stage, self.settings), CANDIDATES}
        found = {path: _jsonable(path, self.settings) for path in STAGES[stage].settings if path not in idle}
        candidate = self.settings.data_value.candidates.get(partition)
        return found | {CANDIDATES: _candidate(candidate)} if candidate and CANDIDATES in STAGES[stage].settings else found

    def writer(self, stage: str, partition: str = EVERYTHING) -> Writer:
        return Writer(
            self.folder(stage, partition),
            asset=stage,
            partition=partition,
            code_version=STAGES[stage].version,
            settings=self.relevant(stage, partition),
            inputs=self.input_digests(stage, partition),
            compression_level=self.settings.store.compression_level,
            rows_per_group=self.settings.store.rows_per_group,
        )


def inputs_of(stage: str, settings: Settings) -> tuple[str, ...]:
    """The stages that `stage` reads as it is set."""

    def chosen(condition: str) -> bool:
        path, _, value = condition.partition("=")
        section, _, key = path.partition(".")
        return str(getattr(getattr(settings, section), key)) == value

    return (*STAGES[stage].inputs, *(name for name, condition in STAGES[stage].when.items() if chosen(condition)))


def stages_of(settings: Settings) -> list[str]:
    """What there is to make: stages of candidate sets only where there are any."""
    return [name for name, stage in STAGES.items() if settings.data_value.candidates or not stage.of_candidates]


def _side_by_side(read: Stage, made: Stage) -> bool:
    """Whether a partition of the one belongs to a partition of the other."""
    return (read.by_snapshot and made.by_snapshot) or (read.by_candidate and made.by_candidate)


def _candidate(candidate: Candidate) -> dict[str, Any]:
    """With the contents of its files."""
    return candidate.model_dump() | {"files": [_contents(CANDIDATES, path) for path in sorted(glob.glob(candidate.files))]}


def _idle(stage: str, settings: Settings) -> set[str]:
    """Sections that a classifier may be made with, but as it is set is not."""
    section, classifier, _ = stage.partition("_classifier")
    if not classifier or section not in CLASSIFIERS:
        return set()
    own: Classifier = getattr(settings, section)
    used = {"encoder": own.kind == "encoder", "annotator": own.labels == "endpoint"}
    return {name for name in used if not used[name]}


def _jsonable(path: str, settings: Settings) -> Any:
    section, _, key = path.partition(".")
    model: Section = getattr(settings, section)
    values = {
        name: value
        for name, value in model.model_dump(mode="json").items()
        if f"{section}.{name}" not in OPERATIONAL_SETTINGS
        and key in ("", name)
        and (key or f"{section}.{name}" not in rules.SETTINGS)  # a threshold leaves the scores as they are
    }
    values |= {name: _contents(f"{section}.{name}", values[name]) for name in values if f"{section}.{name}" in FILE_SETTINGS}
    return values[key] if key else values


def _contents(setting: str, paths: str | Sequence[str] | Mapping[str, str]) -> Any:
    if isinstance(paths, Mapping):
        return {name: _contents(setting, path) for name, path in sorted(paths.items())}
    if not isinstance(paths, str):
        return [_contents(setting, path) for path in paths]
    if paths in ("", *ANNOTATORS):
        return paths
    if Path(paths).is_dir():
        return [[file.name, _contents(setting, str(file))] for file in sorted(Path(paths).iterdir()) if file.is_file()]
    if not Path(paths).is_file():
        raise SettingsError(f"setting {setting}: there is no file {paths}; give the path of one, or leave the setting out")
    with open(paths, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
