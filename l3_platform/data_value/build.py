"""`half_trained`, `candidate_tokens` and `data_value` as datasets; the latter two have a partition a candidate set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from l3_platform.data_value.annealing import branches, run_branch, run_trunk, trunk_job
from l3_platform.data_value.candidate import SelectTask, check_condition, known_texts, matching, select
from l3_platform.data_value.value import OPEN, domains_judged, value_of
from l3_platform.dedup.shards import aligned, step
from l3_platform.engine import map_shards
from l3_platform.pretrain import last_checkpoint
from l3_platform.scaling.mixture_choice import weights_of
from l3_platform.scaling.proxy import Corpus
from l3_platform.settings import Settings, SettingsError, home
from l3_platform.store import Dataset, Writer, files
from l3_platform.store.dataset import read_table
from l3_platform.tokens.build import TOKENIZER, vocabulary
from l3_platform.tokens.shards import read_tokens, stream_urls
from l3_platform.tokens.split import HELD_OUT
from l3_platform.train.job import run_folder
from l3_platform.train.streams import mixtures_of

Built = tuple[Sequence[str], Mapping[str, Any]]


def build_half_trained(
    data_mix: Sequence[Dataset], token_shards: Sequence[Dataset], tokenizer: Sequence[Dataset], *, out: Writer, settings: Settings
) -> Built:
    """Train the model that all annealings branch from, on the pre-training mix; its checkpoint lies under L3_HOME."""
    words = vocabulary(tokenizer[0])
    job = trunk_job(
        str(run_folder(out.asset, out.folder.rsplit("/", 1)[-1])),
        mixtures_of(data_mix[0], "pretrain")[0].shares,
        Corpus.of(token_shards[0], words),
        settings,
        words.size,
    )
    names = map_shards(run_trunk, {"part-00000": job}, out, settings.engine)
    return names, {"layers": job.model.layers, "tokens": job.total_tokens}


def build_candidate_tokens(
    curated_documents: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """The candidate set's documents without those held out. Raises SettingsError where none is left."""
    candidate = settings.data_value.candidates[out.partition]
    beside = aligned(curated_documents, token_shards=token_shards)
    if candidate.where:
        check_condition(out.partition, candidate.where)
        sources = {shards["documents"].name: shards["documents"] for shards in beside.values()}
    else:
        paths = matching(out.partition, candidate.files)
        sources = {f"part-{number:05d}": path for number, path in enumerate(paths)}
    known = step(out, "known", lambda writer: map_shards(known_texts, beside, writer, settings.engine))
    url = tokenizer[0].file(TOKENIZER)
    tasks = {name: SelectTask(source, name, candidate, tuple(known.shards), url) for name, source in sources.items()}
    names = map_shards(select, tasks, out, settings.engine)
    documents = _finished(out, names)
    if not documents.num_rows:
        raise SettingsError(
            f"setting data_value.candidates: no document of {out.partition} is left (selected by "
            f"{candidate.where or candidate.files!r}, not held out, not empty); widen the set"
        )
    return names, {
        "tokens": sum(documents["tokens"].to_pylist()),
        "also in the default mix": sum(documents["in_default_mix"].to_pylist()),
    }


def build_data_value(
    half_trained: Sequence[Dataset],
    candidate_tokens: Sequence[Dataset],
    data_mix: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """A shard an annealing; the differences between those of the same seed are the candidate set's value."""
    words, (candidate,), asked = vocabulary(tokenizer[0]), candidate_tokens, settings.data_value
    tasks = branches(
        out.partition,
        _local_streams(candidate),
        mixtures_of(data_mix[0], "pretrain")[0].shares,
        Corpus.of(token_shards[0], words),
        settings,
        vocab_size=words.size,
        parent=last_checkpoint(half_trained[0], "run"),
        shared_folder=run_folder(half_trained[0].manifest.asset, half_trained[0].folder.rsplit("/", 1)[-1]),
        own_folder=run_folder(out.asset, out.folder.rsplit("/", 1)[-1]),
    )
    names = map_shards(run_branch, tasks, out, settings.engine.model_copy(update={"workers": settings.scaling.workers}))
    runs = _finished(out, names)
    tokens = candidate.manifest.metrics["tokens"]
    facts = {"candidate tokens": tokens, "times each is read": round(asked.share * asked.tokens / tokens, 3)}
    if not runs.num_rows:
        return names, facts | {"verdict": OPEN}
    weights, notes = weights_of(settings, domains_judged(runs))
    value = value_of(out.partition, runs, weights)
    by_domain = {domain: found.mean for domain in weights if (found := value_of(out.partition, runs, {domain: 1.0}))}
    seen = value.model_dump(exclude_none=True, exclude={"candidate"}) | {"verdict": value.verdict} if value else {"verdict": OPEN}
    return names, facts | seen | {"by domain": by_domain} | ({"notes": notes} if notes else {})


def held_out_in(candidate_tokens: Dataset, token_shards: Dataset) -> int:
    """Documents of the candidate's streams that are held out, token for token: what went in is looked at, not how."""
    held_out = [url for urls in stream_urls(token_shards, HELD_OUT).values() for url in urls]
    return len(_documents(_streams(candidate_tokens)) & _documents(held_out))


def _documents(urls: Sequence[str]) -> set[int]:
    """A hash of each document. Each begins with the token that its stream begins with, which stands nowhere else."""
    found: set[int] = set()
    for url in urls:
        stream = read_tokens(url)
        starts = np.flatnonzero(stream == stream[0])
        found |= {xxhash.xxh3_64_intdigest(one.tobytes()) for one in np.split(stream, starts[1:])}
    return found


def _streams(candidate_tokens: Dataset) -> list[str]:
    return [candidate_tokens.file(name.removeprefix("files/")) for name in sorted(candidate_tokens.files)]


def _local_streams(candidate_tokens: Dataset) -> list[str]:
    cache = home() / "cache" / candidate_tokens.digest
    return [str(files.local_copy(url, cache)) for url in _streams(candidate_tokens)]


def _finished(out: Writer, names: Sequence[str]) -> pa.Table:
    """Rows of shards already put, before the dataset is committed."""
    return pa.concat_tables([read_table(files.join(out.folder, f"{name}.parquet")) for name in names])
