"""Typed settings: one frozen tree, a profile in TOML, overrides as `section.key=value`.

A profile names only what differs from the defaults below, which are the demo's. `load` is the one way in;
every mistake in a setting becomes one `SettingsError` sentence that names the key and the nearest known one.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PROFILES = Path(__file__).parent / "profiles"


class SettingsError(ValueError):
    """A profile or override that cannot be used; the message is meant for a person."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Crawl(Section):
    """Where raw pages come from."""

    source: Literal["demo", "files", "common_crawl"] = "demo"
    paths: tuple[str, ...] = Field(default=(), description="files: globs or URLs of WARC and ARC files (.gz, .lz4, .zst)")
    snapshot: str = Field(default="files", description="files: the name of the partition that the paths become")
    snapshots: tuple[str, ...] = Field(default=(), description="common_crawl: snapshot ids such as CC-MAIN-2024-10")
    base_url: str = Field(
        default="https://data.commoncrawl.org", description="common_crawl: server of warc.paths.gz and WARC files"
    )
    warc_files: int = Field(default=1, ge=1, description="common_crawl: WARC files to take from each snapshot")
    retries: int = Field(default=5, ge=0, description="common_crawl: attempts after the first, with exponential back-off")
    demo_pages: int = Field(default=3000, ge=50, description="demo: pages over both snapshots")
    demo_warc_files: int = Field(default=4, ge=1, description="demo: WARC files a snapshot")
    demo_seed: int = 1


class Extract(Section):
    """HTML to text (Llama 3, section 3.1.1)."""

    engine: Literal["l3", "trafilatura", "resiliparse"] = "l3"
    max_html_bytes: int = Field(default=8 << 20, description="larger payloads are dropped as `too_large`, bytes")
    max_depth: int = Field(default=512, description="deeper element nesting is quarantined")
    max_seconds: float = Field(default=10.0, description="a page that takes longer is quarantined as `too_slow`")
    min_text_chars: int = Field(default=1, description="shorter texts are dropped as `empty_text`")


class UrlPolicy(Section):
    """Block lists (Llama 3, section 3.1.1: domains with much PII or adult content)."""

    domain_lists: tuple[str, ...] = Field(default=(), description="files in UT1 format, a domain a line; beside the built-in list")
    url_lists: tuple[str, ...] = Field(default=(), description="files in UT1 format, a URL a line, which blocks the pages under it")
    ut1_folders: tuple[str, ...] = Field(default=(), description="categories of UT1: folders of domains, urls and expressions")
    words: tuple[str, ...] = Field(default=("casino", "porn", "xxx", "viagra"), description="words of a URL that block it")
    max_pii_share: float = Field(default=0.5, description="domains with a larger share of pages holding PII are flagged")


class Languages(Section):
    """Language identification."""

    model: str = Field(default="", description="path of a fastText model such as lid.176.bin or GlotLID's; empty: see `labelled`")
    labelled: str = Field(
        default="", description="Parquet, CSV or TSV of text and language to train an identifier on; empty: the built-in identifier"
    )
    min_score: float = 0.5
    min_scores: dict[str, float] = Field(default_factory=dict, description="the same for single languages")
    epochs: int = 20
    dim: int = 32


class Heuristics(Section):
    """Rae et al. 2021, table A1, and Raffel et al. 2020, as thresholds over the scores of `text_heuristics`."""

    min_words: int = 20
    max_words: int = 100_000
    mean_word_length_min: float = 2.5
    mean_word_length_max: float = 12.0
    max_symbol_word_ratio: float = 0.25
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    dup_line_max: float = Field(default=0.30, description="share of characters in duplicate lines")
    dup_ngram_max: float = Field(default=0.35, description="share of characters in duplicated 5- to 10-grams, worst n")
    dirty_words_max: float = Field(default=0.01, description="dirty words a word")
    dirty_word_lists: dict[str, str] = Field(
        default_factory=dict, description="language to a file in LDNOOBW format, an entry a line; beside the built-in list"
    )
    min_alpha_words: float = Field(default=0.5, description="share of words with a letter")
    max_kl: float = Field(default=6.0, description="KL divergence of a document's words from its language's, nats (Llama 3, 3.1.1)")


class OutlierTokens(Section):
    """Divergence of a document's tokens from its language's; the threshold is `heuristics.max_kl`."""

    min_tokens: int = Field(default=100, ge=1, description="shorter documents are not compared, words")
    min_corpus_tokens: int = Field(default=100_000, ge=1, description="nor those of a language with fewer words in the corpus")


class Pii(Section):
    """Personal data: masked in the text, and dense pages dropped."""

    max_density: float = Field(default=0.02, description="PII matches a word above which the document is dropped")


class Dedup(Section):
    """URL, document and line deduplication (Llama 3, section 3.1.1)."""

    num_perm: int = Field(default=128, description="MinHash permutations")
    ngram: int = Field(default=5, description="words a shingle")
    threshold: float = Field(default=0.8, description="true Jaccard similarity from which two documents are duplicates")
    bands: int = Field(default=0, ge=0, description="MinHash bands; 0 chooses them for the threshold")
    scope: Literal["global", "language"] = Field(default="global", description="compare all documents, or those of one language")
    seed: int = 1
    line_max_count: int = Field(default=6, description="lines seen more often in a bucket are removed (Llama 3: 6)")
    line_bucket_documents: int = Field(default=30_000_000, description="documents a line bucket (Llama 3: 30 M)")
    line_min_chars: int = Field(default=3, description="shorter lines are never counted")
    buckets: int = Field(default=8, description="shuffle buckets, at most")


class Classifier(Section):
    """One classifier of documents: who labels its sample, and what learns the labels (Llama 3, sections 3.1.1 and 3.1.2)."""

    kind: Literal["fasttext", "encoder"] = Field(
        default="fasttext", description="fastText, or the transformer of section `encoder`: better, and a thousand times the work"
    )
    model: str = Field(
        default="",
        description="path of a trained model: a fastText file, or an encoder's folder (config.json, model.safetensors, "
        "tokenizer.json); empty: train one",
    )
    labels: str = Field(
        default="simulated",
        description="who labels: `simulated`, a rule; `endpoint`, the model of section `annotator`; or a CSV of url, label",
    )
    requirements: str = Field(
        default="", description="endpoint: file of the requirements that a text is to meet; empty: the built-in"
    )
    sample_documents: int = Field(default=20_000, ge=20, description="documents the classifier is trained on, at most")
    epochs: int = Field(default=10, ge=1, description="fasttext: passes over the sample")
    dim: int = Field(default=16, ge=1, description="fasttext: width of a word's vector")


class Quality(Classifier):
    """Would this text be referenced by Wikipedia?"""

    min_score: float = Field(default=0.05, description="probability of `referenced` under which a document is dropped")


class Encoder(Section):
    """What classifiers of kind `encoder` are made of. Llama 3, sections 3.1.1 and 3.1.2: DistilRoBERTa."""

    path: str = Field(
        default="",
        description="folder of a pre-trained encoder (config.json, model.safetensors, tokenizer.json), such as DistilRoBERTa's; "
        "empty: a small one from random weights, of the sizes below",
    )
    layers: int = Field(default=1, ge=1)
    width: int = Field(default=64, description="a multiple of 16, the width of an attention head")
    vocab_size: int = Field(default=4096, ge=261, description="of the byte-level BPE learnt from the sample")
    max_tokens: int = Field(default=128, ge=8, description="read of a text, from its start (DistilRoBERTa: up to 512)")
    epochs: int = Field(default=3, ge=1)
    batch_documents: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-3, description="peak of AdamW's; 2e-5 to 5e-5 for a pre-trained encoder")
    seed: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=1, description="CPU threads a worker; the last bits of a score depend on it")


class Annotator(Section):
    """A model that labels documents, behind OpenAI's chat/completions (Llama 3: Llama 2 chat). The key is never stored."""

    url: str = Field(default="", description="base URL of the server, such as http://localhost:8000/v1")
    model: str = Field(default="", description="as the server names it")
    api_key_variable: str = Field(
        default="L3_ANNOTATOR_KEY", description="environment variable that holds the key, if there is one"
    )
    max_chars: int = Field(default=6000, ge=100, description="of a document that the model reads, from its start")
    max_tokens: int = Field(default=512, ge=1, description="of an answer; a word is asked for, but some models think first")
    timeout_seconds: float = Field(default=60.0, gt=0, description="for a whole answer")
    retries: int = Field(default=6, ge=0, description="attempts after the first, with exponential back-off or as Retry-After says")
    concurrency: int = Field(default=8, ge=1, description="questions at a time, over all workers (at least one each)")
    prompt_price: float = Field(default=0.0, ge=0, description="for a million tokens, in any currency")
    completion_price: float = Field(default=0.0, ge=0, description="for a million tokens")


class Curate(Section):
    """The one SQL decision over the sidecars."""

    languages: tuple[str, ...] = Field(default=(), description="keep only these; empty keeps all")
    quality_languages: tuple[str, ...] = Field(default=("en", "und"), description="languages the quality classifier may judge")
    pii_domain_pages: int = Field(default=20, description="pages from which a domain is judged by url_policy.max_pii_share")


class Tokenizer(Section):
    vocab_size: int = Field(default=2048, description="including the 256 special tokens (Llama 3: 128,256)")
    sample_bytes: int = Field(default=16 << 20, description="text that the BPE is trained on, bytes")


class MixChange(Section):
    """From `from_tokens` of pre-training on, other weights; those that are not named stay as they were (Llama 3, 3.4.1)."""

    from_tokens: int = Field(ge=1)
    general: float | None = None
    math: float | None = None
    code: float | None = None
    multilingual: float | None = None


class Mix(Section):
    """Shares of tokens a domain. Llama 3, section 3.1.2: 50 % general, 25 % maths and reasoning, 17 % code, 8 % multilingual."""

    general: float = 0.50
    math: float = 0.25
    code: float = 0.17
    multilingual: float = 0.08
    choose: Literal["settings", "law"] = Field(
        default="settings", description="who sets the pre-training shares: the four above, or `mixture_law`'s search"
    )
    changes: tuple[MixChange, ...] = Field(default=(), description="of the shares while pre-training goes on, by tokens")
    max_epochs: float = Field(default=4.0, description="repetitions of a domain above which its share is capped")
    held_out_share: float = Field(default=0.05, description="documents kept for evaluation, by hash of doc_id")
    topic_weights: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={"arts_and_entertainment": 0.5},
        description="share of a topic's training documents that stays, by hash of doc_id (Llama 3, section 3.1.2)",
    )
    anneal_general: float = 0.30
    anneal_math: float = 0.40
    anneal_code: float = 0.25
    anneal_multilingual: float = 0.05


class Mixture(Section):
    """Small models on many mixtures, from which `mixture_law` finds one (Llama 3, section 3.1.2; Liu et al. 2024, RegMix).

    Shape and recipe of the models are those of section `scaling`.
    """

    runs: int = Field(default=16, ge=0, description="mixtures, at least 10 (RegMix: 512); 0: no sweep, no law, no validation")
    concentration: float = Field(
        default=4.0, gt=0, description="of the Dirichlet around the natural mixture that they are drawn from: larger is nearer"
    )
    layers: int = Field(default=2, ge=1, description="size of the models")
    budget: float = Field(default=4e10, gt=0, description="training FLOPs of each, C = 6·N·D")
    seeds: int = Field(default=1, ge=1, description="trainings of each mixture, whose mean loss is the law's")
    held_out_tokens: int = Field(default=16_384, ge=1, description="of each domain, on which losses are measured")
    target: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="weight of each domain's held-out loss in what is minimised; empty: the shares of section `mix`"
    )
    final_tokens: int = Field(
        default=0,
        ge=0,
        description="of the run that the mixture is for: bounds shares by mix.max_epochs; 0: one pass over the data",
    )
    doremi_seeds: int = Field(default=1, ge=0, description="runs of DoReMi, beside the law for comparison; 0 leaves it out")
    validation_layers: int = Field(default=3, ge=1, description="the next size up, for the candidates")
    validation_budget: float = Field(default=8e10, gt=0, description="training FLOPs of each run there")
    validation_seeds: int = Field(default=4, ge=2, description="trainings of each candidate there, with the same seeds: pairs")

    @field_validator("runs")
    @classmethod
    def _enough_for_a_law(cls, runs: int) -> int:
        if 0 < runs < 10:
            raise ValueError("a law is chosen by cross-validation over at least 10 mixtures; 0 leaves the sweep out")
        return runs


class Scaling(Section):
    """IsoFLOP sweep. The paper: ten budgets 6e18 to 1e22 FLOPs, models of 40 M to 16 B (section 3.2.1)."""

    budgets: tuple[float, ...] = Field(default=(1.5e11, 3e11, 6e11), description="training FLOPs, C = 6·N·D")
    layers: tuple[int, ...] = Field(
        default=(1, 2, 3, 4), description="sizes tried at each budget, as layers; width = aspect·layers"
    )
    aspect: int = Field(default=8, description="d_model a layer")
    seq_len: int = 128
    batch_tokens: int = 512
    learning_rate: float = 8e-3
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine", description="cosine: a run a point (Llama 3); wsd: one stable run a size, from which each budget branches"
    )
    decay_share: float = Field(default=0.2, gt=0, lt=1, description="wsd: of a point's tokens, those of its decay")
    workers: int = Field(default=2, description="points trained at a time")
    min_tokens: int = Field(default=8192, description="points with fewer training tokens are left out")
    max_epochs: float = Field(default=4.0, description="points that would repeat the data more often are left out")
    retry_failed: bool = Field(
        default=False, description="train points (of mixtures, too) again that failed before; the others stay"
    )


class Model(Section):
    """Shape when the plan does not choose it; `preset` is a key of `l3_platform.model.presets`."""

    preset: str = Field(default="", description="empty: the shape is what `training_plan` chooses")
    head_dim: int = 8
    kv_group: int = Field(default=2, description="query heads a KV head")
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5


class Stage(Section):
    """One row of the batch ramp: from `from_tokens` on, batches of `batch_tokens` in sequences of `seq_len`."""

    from_tokens: int = 0
    batch_tokens: int = 2048
    seq_len: int = 128


class Train(Section):
    budget_flops: float = Field(default=1.5e12, description="compute of the final model (Llama 3 405B: 3.8e25)")
    nodes: int = Field(default=2, description="torchrun agents")
    processes_per_node: int = 1
    data_parallel_shard: int = Field(default=0, description="FSDP2 shard degree; 0: all data-parallel ranks")
    tensor_parallel: int = Field(default=1, ge=1, description="ranks that share every matrix, with sequence and loss parallelism")
    context_parallel: int = Field(default=1, ge=1, description="ranks that share every sequence, two chunks of it each")
    pipeline_parallel: int = Field(default=1, ge=1, description="ranks that share the layers")
    pipeline_schedule: Literal["1f1b", "interleaved", "zero_bubble"] = "1f1b"
    pipeline_stages_per_rank: int = Field(default=0, ge=0, description="0: one under 1f1b, two under the others")
    pipeline_micro_batches: int = Field(
        default=0, ge=0, description="of a data rank's batch; 0: of micro_batch_tokens each, or without them of one sequence"
    )
    ramp: tuple[Stage, ...] = (Stage(from_tokens=0, batch_tokens=1024), Stage(from_tokens=262_144, batch_tokens=2048))
    schedule: Literal["cosine", "wsd"] = Field(default="cosine", description="wsd: warm-up, stable, decay (Hu et al. 2024)")
    decay_share: float = Field(default=0.2, gt=0, le=1, description="wsd: of the tokens, those of the linear fall at the end")
    learning_rate: float = 6e-3
    min_learning_rate_ratio: float = Field(
        default=0.1, description="of the peak, at the end of the schedule (Llama 3: 8e-7 / 8e-5)"
    )
    warmup_tokens: int = 32_768
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: float = 1.0
    seed: int = 7
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    activation_checkpointing: bool = False
    document_mask: bool = True
    checkpoint_every_tokens: int = 262_144
    keep_checkpoints: int = 3
    log_every_steps: int = 1
    launcher: Literal["local", "hosts", "slurm", "kubernetes"] = Field(
        default="local", description="torchrun agents here, or on machines as the section of that name says"
    )
    max_restarts: int = Field(default=3, description="whole-job relaunches from the newest complete checkpoint")
    shutdown_seconds: float = Field(default=8.0, description="torchrun's grace between TERM and KILL; a checkpoint must fit in it")
    stall_seconds: float = Field(
        default=1800.0,
        ge=0,
        description="without a logged step, ten times as long before the first, that count as lost; 0: never",
    )
    threads: int = Field(default=1, description="CPU threads a rank")
    micro_batch_tokens: int = Field(default=0, description="tokens a rank and forward pass; 0: its whole batch at once")
    peak_flops: float = Field(default=0.0, description="of one device, FLOPs a second, for MFU in the metrics; 0: not reported")
    spike_zscore: float = Field(
        default=8.0, description="robust z-score of loss or gradient norm from which a step is skipped; 0: only if not finite"
    )
    spike_window: int = Field(default=64, description="steps that a step is compared with")
    max_skipped_steps: int = Field(
        default=5, description="skipped in a row before the run goes back to a checkpoint; 0: off, what is not finite ends the run"
    )
    max_rollbacks: int = Field(default=2, description="returns to a checkpoint in a run; beyond, it fails")
    hang_seconds: float = Field(
        default=300.0, description="without a finished step, after which ranks dump their stacks and all are relaunched; 0: never"
    )


class LongStage(Section):
    """One stage of growing length: so many tokens in sequences of `seq_len`."""

    seq_len: int = Field(ge=2)
    tokens: int = Field(ge=1)
    batch_tokens: int = Field(ge=2, description="a multiple of seq_len")


class LongContext(Section):
    """Continued pre-training on longer and longer sequences (Llama 3, section 3.4.2): a stage is over once the loss on short
    sequences has recovered and the needle is found at every length so far."""

    stages: tuple[LongStage, ...] = (
        LongStage(seq_len=256, tokens=24_576, batch_tokens=2048),
        LongStage(seq_len=512, tokens=24_576, batch_tokens=2048),
    )
    short_loss_tolerance: float = Field(
        default=0.03, ge=0, description="of the held-out loss in sequences as before, over the pre-trained model's, nats a token"
    )
    needle_accuracy: float | None = Field(
        default=None, ge=0, le=1, description="wanted at every length and depth (Llama 3: 1.0); none: measured, not judged"
    )
    needle_depths: int = Field(default=5, ge=1, description="places of the needle, from 0 to 100 % of the text")
    needle_trials: int = Field(default=4, ge=1, description="needles a length and depth")
    needle_choices: int = Field(default=4, ge=2, description="values to choose from: chance is one in so many")
    extra_slices: int = Field(default=2, ge=0, description="more training, at most, where a stage has not passed")
    extra_share: float = Field(default=0.25, gt=0, description="of the stage's tokens, in each")
    required: bool = Field(default=False, description="stop what comes after where the last length is not reached")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        lengths = [stage.seq_len for stage in self.stages]
        if lengths != sorted(set(lengths)):
            raise ValueError(f"the lengths of the stages must grow, they are {lengths}")
        for stage in self.stages:
            if stage.batch_tokens % stage.seq_len:
                raise ValueError(f"batch_tokens {stage.batch_tokens} is no multiple of seq_len {stage.seq_len}")
            if stage.tokens < stage.seq_len:
                raise ValueError(f"{stage.tokens} tokens are less than one sequence of {stage.seq_len}")
        return self


class Hosts(Section):
    """train.launcher=hosts: machines without a scheduler, which see this package and `L3_HOME` under the same paths."""

    names: tuple[str, ...] = Field(default=(), description="train.nodes machines; the first carries the rendezvous")
    command: str = Field(
        default="ssh -o BatchMode=yes -o ServerAliveInterval=15 {host} {command}",
        description="runs `{command}`, one line of shell, on `{host}`, and passes its standard input on",
    )
    rendezvous: str = Field(default="", description="address of the first host as the others reach it; empty: its name")
    port: int = Field(default=29400, description="of the rendezvous")
    interface: str = Field(default="", description="network interface of the collectives, the same on all; empty: theirs to choose")
    silence_seconds: float = Field(default=120.0, gt=0, description="agents that do not hear from the client for so long end")


class Slurm(Section):
    """train.launcher=slurm: what sbatch asks for. `L3_HOME` and this package must be on storage that all nodes see."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time_limit: str = Field(default="", description="as sbatch takes it, such as 2-00:00:00; empty: the partition's")
    gpus_per_node: int = Field(default=0, ge=0, description="0: none asked for")
    cpus_per_node: int = Field(default=0, ge=0, description="0: none asked for")
    exclusive: bool = Field(default=False, description="whole nodes")
    stop_seconds: int = Field(default=0, ge=0, description="before the time limit, to save and be requeued; 0: as shutdown needs")
    options: tuple[str, ...] = Field(default=(), description="further options of sbatch, such as --reservation=llama")
    setup: tuple[str, ...] = Field(default=(), description="lines of shell before training, such as `module load cuda`")
    poll_seconds: float = Field(default=10.0, gt=0, description="between questions to Slurm's controller")


class Kubernetes(Section):
    """train.launcher=kubernetes: a JobSet (jobset.x-k8s.io), one pod a node, by kubectl."""

    image: str = Field(default="", description="with this package installed; required")
    namespace: str = "default"
    context: str = Field(default="", description="of kubectl's configuration; empty: its current one")
    claim: str = Field(default="", description="PersistentVolumeClaim (ReadWriteMany) that holds L3_HOME; required")
    mount: str = Field(default="", description="where pods mount the claim; empty: at L3_HOME as it is here")
    gpus: int = Field(default=0, ge=0, description="a pod, as nvidia.com/gpu")
    cpus: str = Field(default="", description="requested a pod, such as 64 or 500m")
    memory: str = Field(default="", description="requested a pod and its limit, such as 900Gi")
    shared_memory: str = Field(default="16Gi", description="size of /dev/shm, at most")
    service_account: str = ""
    queue: str = Field(default="", description="Kueue's LocalQueue; empty: no Kueue")
    priority_class: str = ""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerate: tuple[str, ...] = Field(default=(), description="keys of taints that pods tolerate, such as nvidia.com/gpu")
    environment: dict[str, str] = Field(default_factory=dict, description="variables of every pod, such as NCCL's")
    exclusive_topology: str = Field(default="", description="node label that one JobSet has for itself, such as a rack's")
    port: int = Field(default=29400, description="of the rendezvous")
    poll_seconds: float = Field(default=10.0, gt=0, description="between questions to the API server")


class Anneal(Section):
    """Learning rate linearly to zero on the annealing mix; the mean of its checkpoints is the result (section 3.4.3)."""

    tokens: int = 98_304
    checkpoints: int = Field(default=3, description="averaged")


class Evaluate(Section):
    batch_sequences: int = 16
    max_tokens_per_domain: int = 100_000


class Engine(Section):
    """Where shards are made; nothing here changes what is in them."""

    backend: Literal["local", "ray"] = Field(default="local", description="processes of this machine, or Ray Core (extra `ray`)")
    ray_address: str = Field(default="", description="`auto`, host:port or ray://host:port; empty: a cluster of this machine only")
    workers: int = Field(default=0, description="shards at a time; 0: one a core, on Ray of the cluster")
    memory_limit: str = Field(default="1GB", description="DuckDB's, a worker")
    attempts: int = Field(default=3, ge=1, description="tries of a shard whose worker died")


class Store(Section):
    root: str = Field(default="", description="fsspec URL of the datasets; empty: $L3_HOME/data")
    compression_level: int = 3
    rows_per_group: int = 8192


class Mlflow(Section):
    tracking_uri: str = Field(default="", description="empty: the server that `l3 up` or `l3 demo` starts")
    experiment: str = "l3"
    port: int = 5000


class Retention(Section):
    """What `l3 clean` and the retention asset keep."""

    versions: int = Field(default=3, description="newest versions of a dataset kept")
    days: int = Field(default=30, description="versions younger than this are kept too")


class Settings(Section):
    """The whole tree. Only sections that a stage names enter its fingerprint (`l3_platform.lineage`)."""

    profile: str = "demo"
    crawl: Crawl = Crawl()
    extract: Extract = Extract()
    url_policy: UrlPolicy = UrlPolicy()
    languages: Languages = Languages()
    heuristics: Heuristics = Heuristics()
    outlier_tokens: OutlierTokens = OutlierTokens()
    pii: Pii = Pii()
    dedup: Dedup = Dedup()
    quality: Quality = Quality()
    code: Classifier = Classifier()
    reasoning: Classifier = Classifier(kind="encoder", sample_documents=500)
    encoder: Encoder = Encoder()
    annotator: Annotator = Annotator()
    curate: Curate = Curate()
    tokenizer: Tokenizer = Tokenizer()
    mix: Mix = Mix()
    mixture: Mixture = Mixture()
    scaling: Scaling = Scaling()
    model: Model = Model()
    train: Train = Train()
    long_context: LongContext = LongContext()
    hosts: Hosts = Hosts()
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes = Kubernetes()
    anneal: Anneal = Anneal()
    evaluate: Evaluate = Evaluate()
    engine: Engine = Engine()
    store: Store = Store()
    mlflow: Mlflow = Mlflow()
    retention: Retention = Retention()


def home() -> Path:
    """The one root of run-time state, `L3_HOME` or `.l3`, absolute. Not created here."""
    return Path(os.environ.get("L3_HOME") or ".l3").absolute()


def load(profile: str = "demo", overrides: Sequence[str] | Mapping[str, Any] = ()) -> Settings:
    """Settings of a profile with `section.key=value` overrides. Raises SettingsError."""
    path = PROFILES / f"{profile}.toml"
    known = sorted(p.stem for p in PROFILES.glob("*.toml"))
    if profile not in known:
        raise SettingsError(f"profile {profile!r} does not exist; there are {', '.join(known)}{nearest(profile, known)}")
    tree: dict[str, Any] = tomllib.loads(path.read_text()) | {"profile": profile}
    items = overrides.items() if isinstance(overrides, Mapping) else (_split(item) for item in overrides)
    for key, value in items:
        _put(tree, key, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {where}: {first['msg'].lower()} (got {first['input']!r})") from None


def _split(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise SettingsError(f"override {item!r} is not of the form section.key=value")
    return key.strip(), value.strip()


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, key = dotted.partition(".")
    sections = [name for name in Settings.model_fields if name != "profile"]
    if section not in sections:
        raise SettingsError(f"setting {dotted!r}: there is no section {section!r}{nearest(section, sections)}")
    model = Settings.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, Section)
    if key not in model.model_fields:
        raise SettingsError(f"setting {dotted!r}: {section} has no key {key!r}{nearest(key, list(model.model_fields))}")
    tree.setdefault(section, {})[key] = _parse(value, str(model.model_fields[key].annotation))


def _parse(value: Any, annotation: str) -> Any:
    """A command-line string as what the field wants: JSON where it reads as JSON, `a,b` for tuples, else the string."""
    if not isinstance(value, str):
        return value
    if annotation.startswith("tuple") and not value.startswith("["):
        return [_scalar(part) if "str" not in annotation else part for part in value.split(",") if part]
    return value if annotation == "<class 'str'>" else _scalar(value)


def _scalar(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the known one that it resembles, else all where they are few."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if len(known) < 40 else ""
