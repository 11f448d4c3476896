"""Documents of tokens that the corpus hardly knows (Llama 3, section 3.1.1: "a token-distribution Kullback-Leibler divergence to
filter out documents containing excessive numbers of outlier tokens compared to the training corpus distribution").

Two passes: tokens are counted by language over all snapshots, then each document is compared with the others of its language.
The vocabulary is hashed into BINS, so that a corpus of any size is 512 KiB of counts a language. A divergence depends on how
many tokens it is taken over, so it is the mean over stretches of about STRETCH tokens: one threshold serves short and long
documents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.curate.languages import UNKNOWN
from l3_platform.engine import Output, map_actors, shuffle
from l3_platform.settings import OutlierTokens, Settings
from l3_platform.store import Dataset, MissingDataset, Shard, Writer, files

SIDECAR = pa.schema([("doc_id", pa.uuid()), ("kl", pa.float32()), ("outlier_share", pa.float32())])
COUNTS = pa.schema([("language", pa.string()), ("bin", pa.int32()), ("tokens", pa.int64())])

BITS = 16
BINS = 1 << BITS
STRETCH = 200  # tokens
SMOOTHING = 0.5  # added to the count of each bin
RARE = 1e-5  # share of the corpus's tokens below which one is an outlier

ADD_UP = "SELECT language, bin, sum(tokens)::BIGINT AS tokens FROM rows GROUP BY ALL ORDER BY language, bin"

Pages = tuple[Shard, Shard]  # documents, languages


def build_outlier_tokens(
    documents: Sequence[Dataset], languages: Sequence[Dataset], *, out: Writer, settings: Settings
) -> tuple[list[str], dict[str, Any]]:
    """SIDECAR of every document; metrics say which languages have a corpus to compare with, and its tokens."""
    identified = {dataset.manifest.partition: dataset for dataset in languages}
    tasks = {
        shard.key: (shard, identified[dataset.manifest.partition].shard(shard.name))
        for dataset in documents
        for shard in dataset.shards
    }
    scratch = dataclasses.replace(out, folder=files.join(out.scratch("steps"), "corpus"))
    try:
        corpus = Dataset.open(scratch.folder)
    except MissingDataset:
        buckets = settings.dedup.buckets
        corpus = scratch.commit(shuffle(counted, tasks, "bin", buckets, added_up, scratch, settings.engine))
    compare = functools.partial(Comparison, corpus, settings.outlier_tokens)
    names = map_actors(compare, tasks, out, settings.engine)
    totals = {language: int(counts.sum()) for language, counts in corpus_counts(corpus, settings.outlier_tokens).items()}
    return names, {"corpus_tokens": dict(sorted(totals.items()))}


def counted(task: Pages) -> pa.Table:
    """COUNTS of one shard."""
    from l3_platform.curate.outlier_kernels import count_tokens

    texts, codes = _read(task)
    languages, group = np.unique(np.array(codes, object), return_inverse=True)
    counts = np.zeros((len(languages), BINS), np.int64)
    count_tokens(*token_bins(texts), group.astype(np.int64), counts)
    rows, bins = np.nonzero(counts)
    columns = [pa.array(languages[rows], pa.string()), pa.array(bins, pa.int32()), pa.array(counts[rows, bins], pa.int64())]
    return pa.table(columns, schema=COUNTS)


def added_up(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
    return Output.annotated(connection.sql(ADD_UP).to_arrow_table().cast(COUNTS))


class Comparison:
    """The corpus's counts in a worker's memory: `Comparison(corpus, settings)(task) -> Output` with SIDECAR."""

    def __init__(self, corpus: Dataset, settings: OutlierTokens) -> None:
        counts = corpus_counts(corpus, settings)
        self.settings = settings
        self.groups = {language: group for group, language in enumerate(counts)}
        self.counts = np.stack(list(counts.values())) if counts else np.zeros((0, BINS), np.int64)

    def __call__(self, task: Pages) -> Output:
        texts, codes = _read(task)
        kl, outliers = self.compare(texts, codes)
        doc_id = task[0].read(["doc_id"])["doc_id"]
        columns = [doc_id, *(pa.array(values, pa.float32(), from_pandas=True) for values in (kl, outliers))]
        return Output.annotated(pa.table(columns, schema=SIDECAR))

    def compare(self, texts: pa.ChunkedArray, codes: Sequence[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """KL divergence and share of outliers; NaN for a text too short, or of a language with too small a corpus."""
        from l3_platform.curate.outlier_kernels import divergences

        bins, bounds = token_bins(texts)
        group = np.array([self.groups.get(code, -1) for code in codes], np.int64)
        group[np.diff(bounds) < self.settings.min_tokens] = -1
        kl, outliers = np.full(len(group), np.nan), np.full(len(group), np.nan)
        divergences(bins, bounds, group, self.counts, self.counts.sum(axis=1), SMOOTHING, RARE, STRETCH, kl, outliers)
        return kl, outliers


def corpus_counts(corpus: Dataset, settings: OutlierTokens) -> Mapping[str, npt.NDArray[np.int64]]:
    """Tokens of each bin, [BINS], by language, of those with enough of them. Documents without a language are like all others
    together."""
    counts: dict[str, npt.NDArray[np.int64]] = {}
    for shard in corpus.shards:
        table = shard.read()
        languages, group = np.unique(table["language"].to_numpy(zero_copy_only=False), return_inverse=True)
        bins, tokens = table["bin"].to_numpy(), table["tokens"].to_numpy()
        for number, language in enumerate(languages):
            mine = group == number
            counts.setdefault(language, np.zeros(BINS, np.int64))[bins[mine]] += tokens[mine]
    counts[UNKNOWN] = np.sum(list(counts.values()), axis=0) if counts else np.zeros(BINS, np.int64)
    return {language: counts[language] for language in sorted(counts) if counts[language].sum() >= settings.min_corpus_tokens}


def token_bins(texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Bin of each word of the texts, one text after another, and where each text's begin; words without a letter share one."""
    from l3_platform.curate import kernels
    from l3_platform.curate.buffers import strings
    from l3_platform.curate.characters import word_classes

    data, offsets = strings(texts)
    bins, bounds = np.empty(offsets[-1] - offsets[0] + 1, np.uint32), np.zeros(len(offsets), np.int64)
    kernels.token_bins(data, offsets, *word_classes(), BITS, bins, bounds)
    return bins, bounds


def _read(task: Pages) -> tuple[pa.ChunkedArray, list[str]]:
    pages, identified = task
    codes = identified.read(["language"])["language"].to_pylist()
    return pages.read(["text"])["text"], [code or UNKNOWN for code in codes]
