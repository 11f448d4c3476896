"""A few hundred curated documents of two domains with all that data value reads, as finished datasets."""

from __future__ import annotations

import functools
import json
import random
import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from l3_platform.data_value import build
from l3_platform.engine import Output
from l3_platform.lineage import Catalog
from l3_platform.mix.curated import CURATED
from l3_platform.mix.data_mix import data_mix
from l3_platform.settings import load
from l3_platform.store import Counts, Dataset, Writer
from l3_platform.tokens.build import build_token_shards, build_tokenizer, tokens_by_domain

RECIPE = (
    *("scaling.aspect=16", "scaling.seq_len=32", "scaling.batch_tokens=256", "scaling.workers=1", "model.head_dim=16"),
    *("tokenizer.vocab_size=560", "mix.held_out_share=0.1", "mix.code=0", "mix.multilingual=0", "mixture.held_out_tokens=1024"),
    *("data_value.layers=1", "data_value.budget=1e9", "data_value.tokens=2048", "data_value.seeds=2"),
)
WORDS = [
    "river",
    "stone",
    "valley",
    "wooden",
    "bridge",
    "market",
    "village",
    "harvest",
    "winter",
    "lantern",
    "story",
    "garden",
    "window",
]
BUILD = {
    "half_trained": build.build_half_trained,
    "candidate_tokens": build.build_candidate_tokens,
    "data_value": build.build_data_value,
}


@functools.cache
def pages() -> tuple[tuple[str, str], ...]:
    """Domain and text of each document: prose, and sums."""
    draw = random.Random(5)
    prose = [("general", " ".join(draw.choices(WORDS, k=60))) for _ in range(160)]
    sums = [("math", " ".join(f"{a} + {b} = {a + b}" for a, b in _pairs(draw))) for _ in range(80)]
    return (*prose, *sums)


def _pairs(draw: random.Random) -> list[tuple[int, int]]:
    return [(draw.randint(1, 99), draw.randint(1, 99)) for _ in range(20)]


def catalog(root: str, candidates: Mapping[str, Mapping[str, str]], *overrides: str) -> Catalog:
    """With everything before candidate sets, made where `root` does not have it yet."""
    chosen = load("demo", [*RECIPE, f"store.root={root}", f"data_value.candidates={json.dumps(candidates)}", *overrides])
    made = Catalog(chosen, ["s1"], lambda snapshot: snapshot)
    made._fingerprints["curated_documents", "all"] = "curated_documents"  # nothing before it exists
    if made.find("curated_documents") is None:
        writer = Writer(
            made.folder("curated_documents"), asset="curated_documents", partition="all", code_version="1", settings={}, inputs={}
        )
        for number in range(2):
            writer.put(f"part-{number:05d}", Output.annotated(_curated(number)))
        writer.commit(["part-00000", "part-00001"])
        for stage, builder in {"tokenizer": build_tokenizer, "token_shards": build_token_shards}.items():
            writer = made.writer(stage)
            inputs: dict[str, Any] = made.inputs(stage)
            writer.commit(*builder(**inputs, out=writer, settings=chosen))
        table = data_mix(tokens_by_domain(made.dataset("token_shards")), chosen.mix, 10_000, 1_000)
        writer = made.writer("data_mix")
        writer.put("part-00000", Output(table, Counts.annotated(table.num_rows)))
        writer.commit(["part-00000"])
    return made


def materialize(made: Catalog, stage: str, partition: str = "all") -> Dataset:
    """Found, or made as the asset makes it."""
    if (found := made.find(stage, partition)) is not None:
        return found
    writer = made.writer(stage, partition)
    return writer.commit(*BUILD[stage](**made.inputs(stage, partition), out=writer, settings=made.settings))


def texts_of(made: Catalog, split: str) -> list[str]:
    """Of the documents that token_shards has in a split, in no particular order."""
    rows = made.dataset("token_shards").read(["url", "split"]).to_pylist()
    urls = {row["url"] for row in rows if row["split"] == split}
    return [row["text"] for row in made.dataset("curated_documents").read(["url", "text"]).to_pylist() if row["url"] in urls]


def _curated(number: int) -> pa.Table:
    chosen = pages()[number::2]
    ids = [uuid.uuid5(uuid.NAMESPACE_OID, text).bytes for _, text in chosen]
    columns = {
        "doc_id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(ids, pa.binary(16))),
        "snapshot": ["s1"] * len(chosen),
        "url": [f"https://site.example/{number}/{place}" for place in range(len(chosen))],
        "title": ["a page"] * len(chosen),
        "text": [text for _, text in chosen],
        "language": ["en"] * len(chosen),
        "topic": ["other"] * len(chosen),
        "domain_group": [domain for domain, _ in chosen],
        "quality": pa.array([place / len(chosen) for place in range(len(chosen))], pa.float32()),
        "fetch_time": pa.array([0] * len(chosen), CURATED.field("fetch_time").type),
    }
    return pa.table(columns, schema=CURATED)
