"""`python -m benchmarks.dedup`: deduplication beside datasketch, rensa, Daft and datatrove, the same texts, ratios from one run.

Signatures are timed from text, the peers' shingling included, on one core. Whole deduplication goes from Parquet files to the list
of what stays, on two cores; datatrove's last step, which writes the kept documents, is left out of its time.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import itertools
import logging
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from l3_platform.crawl.demo.harvest import articles
from l3_platform.dedup import signatures
from l3_platform.dedup.minhash import build_document_signatures, build_duplicate_documents
from l3_platform.dedup.shingles import shingle_texts
from l3_platform.settings import Dedup, Engine, Settings
from l3_platform.store import Dataset, Output, Writer

ROUNDS = 5
SHARDS = WORKERS = 2
WORDS = re.compile(r"\w+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--documents", type=int, default=20_000, help="documents of the whole deduplication; a fifth are near copies"
    )
    options = parser.parse_args()
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    cores = os.sched_getaffinity(0)
    texts = corpus(options.documents)
    os.sched_setaffinity(0, {min(cores)})
    sample = texts[:2000]
    shingles = sum(len(shingle_texts(text)) for text in sample)
    show("MinHash signatures from text, 128 permutations of 5 words, one core", "shingles/s", shingles, signing(sample))
    os.sched_setaffinity(0, cores)
    show_whole(texts)


def corpus(documents: int, seed: int = 1) -> list[str]:
    """Real paragraphs out of the installed packages' documentation, drawn anew into documents; a fifth are edited copies."""
    draw = random.Random(seed)
    pool = [part for article in itertools.islice(articles(seed), 800) for part in article.text.split("\n\n") if len(part) > 80]
    texts: list[str] = []
    for number in range(documents):
        if number % 5 or not texts:
            texts.append("\n\n".join(draw.sample(pool, draw.randrange(3, 25))))
        else:
            words = draw.choice(texts[-1000:]).split(" ")
            for _ in range(max(1, len(words) // draw.choice((40, 100, 400)))):
                words[draw.randrange(len(words))] = f"edited{draw.randrange(10**6)}"
            texts.append(" ".join(words))
    return texts


def signing(texts: Sequence[str]) -> dict[str, Callable[[], object]]:
    """Ours first. Peers are given the same lower-cased words; Daft's own shingling splits at spaces and lower-cases nothing."""
    array = pa.array(texts)
    ways: dict[str, Callable[[], object]] = {"l3": lambda: signatures(array)}
    ways.update(_datasketch(texts))
    ways.update(_rensa(texts))
    ways.update(_daft(array))
    return ways


def shingled(text: str) -> list[str]:
    words = WORDS.findall(text.lower())
    return [" ".join(words[start : start + 5]) for start in range(max(1, len(words) - 4))]


def _datasketch(texts: Sequence[str]) -> dict[str, Callable[[], object]]:
    import xxhash
    from datasketch import MinHash

    def sign(**options: object) -> list[object]:
        found = []
        for text in texts:
            found.append(MinHash(num_perm=128, **options))  # type: ignore[arg-type]
            found[-1].update_batch([shingle.encode() for shingle in shingled(text)])
        return found

    version = metadata.version("datasketch")
    return {f"datasketch {version}": sign, f"datasketch {version}, xxhash": lambda: sign(hashfunc=xxhash.xxh32_intdigest)}


def _rensa(texts: Sequence[str]) -> dict[str, Callable[[], object]]:
    if (rensa := _peer("rensa")) is None:
        return {}

    def one_by_one() -> list[object]:
        found = []
        for text in texts:
            found.append(rensa.RMinHash(num_perm=128, seed=1))
            found[-1].update(shingled(text))
            found[-1].digest()
        return found

    version = metadata.version("rensa")
    batch = lambda: rensa.RMinHash.digest_matrix_from_token_sets([shingled(text) for text in texts], 128, 1)  # noqa: E731
    return {f"rensa {version}": one_by_one, f"rensa {version}, batch": batch}


def _daft(texts: pa.Array) -> dict[str, Callable[[], object]]:
    if (daft := _peer("daft")) is None:
        return {}
    from daft.functions import minhash

    table = daft.from_arrow(pa.table({"text": texts}))
    ways = {
        f"daft {metadata.version('daft')}, {name}": (
            lambda name=name: table.select(minhash(daft.col("text"), num_hashes=128, ngram_size=5, hash_function=name)).to_arrow()
        )
        for name in ("xxhash", "murmurhash3")
    }
    return ways


def show_whole(texts: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = OurPipeline(Path(folder, "l3"), texts)
        ways: dict[str, Callable[[], object]] = {"l3": ours.run}
        if _peer("datatrove") is not None:
            theirs = Datatrove(Path(folder, "datatrove"), texts)
            name = f"datatrove {metadata.version('datatrove')}"
            ways[rf"{name}, \w+ for words"] = lambda: theirs.run(_plain_words())
            if _peer("spacy") is not None:
                ways[f"{name}, its English words"] = lambda: theirs.run("en")
        show("Whole deduplication, Parquet to keep list, two workers", "documents/s", len(texts), ways, rounds=2)


class OurPipeline:
    """The stages `document_signatures` and `duplicate_documents`, their inputs ready; a fresh folder each run."""

    def __init__(self, root: Path, texts: Sequence[str]) -> None:
        self.root, self.runs = root, itertools.count()
        self.settings = Settings(dedup=Dedup(), engine=Engine(workers=WORKERS))
        ids = pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([number.to_bytes(16) for number in range(len(texts))], pa.binary(16))
        )
        documents = pa.table({"doc_id": ids, "text": pa.array(texts)})
        time_of_fetch = pa.array(np.arange(len(texts)), pa.timestamp("us", "UTC"))
        self.documents = self._dataset("documents", documents.append_column("fetch_time", time_of_fetch))
        newest = documents.select(["doc_id"]).append_column("newest", pa.array(np.ones(len(texts), bool)))
        self.versions = self._dataset("url_versions", newest)
        self.languages = self._dataset(
            "languages", documents.select(["doc_id"]).append_column("language", pa.repeat("en", len(texts)))
        )

    def _dataset(self, asset: str, table: pa.Table) -> Dataset:
        out = self._writer(asset, "inputs")
        rows = -(-table.num_rows // SHARDS)
        names = [f"part-{shard:05d}" for shard in range(SHARDS)]
        for shard, name in enumerate(names):
            out.put(name, Output.annotated(table.slice(shard * rows, rows)))
        return out.commit(names)

    def _writer(self, asset: str, folder: str) -> Writer:
        return Writer(str(self.root / folder / asset), asset, "bench", code_version="1", settings={}, inputs={})

    def run(self) -> Dataset:
        folder = f"run-{next(self.runs)}"
        out = self._writer("document_signatures", folder)
        signed = out.commit(*build_document_signatures([self.documents], out=out, settings=self.settings))
        out = self._writer("duplicate_documents", folder)
        built = build_duplicate_documents(
            [self.documents], [signed], [self.languages], [self.versions], out=out, settings=self.settings
        )
        return out.commit(*built)


class Datatrove:
    """MinhashDedupSignature, Buckets and Cluster, with the defaults of FineWeb: 14 buckets of 8 hashes of 5 words."""

    def __init__(self, root: Path, texts: Sequence[str]) -> None:
        logging.disable(logging.INFO)
        self.root, self.runs = root, itertools.count()
        rows = -(-len(texts) // SHARDS)
        for shard in range(SHARDS):
            part = texts[shard * rows : (shard + 1) * rows]
            (root / "input").mkdir(parents=True, exist_ok=True)
            table = pa.table({"text": list(part), "id": [str(shard * rows + number) for number in range(len(part))]})
            pq.write_table(table, root / "input" / f"{shard:05d}.parquet", compression="zstd")

    def run(self, language: object) -> None:
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
        from datatrove.pipeline.readers import ParquetReader

        folder = self.root / f"run-{next(self.runs)}"
        signature = MinhashDedupSignature(str(folder / "signatures"), language=language)  # type: ignore[arg-type]
        steps = [
            ([ParquetReader(str(self.root / "input")), signature], SHARDS),
            ([MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"))], 14),
            ([MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"))], 1),
        ]
        for number, (pipeline, tasks) in enumerate(steps):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=WORKERS, logging_dir=str(folder / f"log-{number}")).run()


def _plain_words() -> object:
    """The tokenizer that costs datatrove least."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class PlainWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return WORDS.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return PlainWords()


def _peer(name: str):
    try:
        return __import__(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


def show(title: str, unit: str, amount: float, ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> None:
    """Rates of the fastest of the rounds, taken in turn after one that warms up, and how many times the peer's ours is."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name] += [time.perf_counter() - started] if turn else []
    rates = {name: amount / min(times) for name, times in seconds.items()}
    ours = next(iter(rates.values()))
    table = Table("who", unit, "l3 is so many times as fast", title=title)
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{ours / rate:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
