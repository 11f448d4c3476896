"""Topics that the web holds too much of are thinned out, document by document, the same way everywhere."""

import uuid

import pyarrow as pa
import pytest

from l3_platform.settings import Mix, Settings, SettingsError, Tokenizer, load
from l3_platform.store import Dataset, Output, Writer
from l3_platform.tokens.build import build_token_shards, build_tokenizer

SHARDS, DOCUMENTS = 2, 400
TOPICS = ("arts_and_entertainment", "sports", "physics", "other")


@pytest.fixture(scope="module")
def curated() -> Dataset:
    out = _writer("curated_documents")
    for shard in range(SHARDS):
        ids = [uuid.uuid5(uuid.NAMESPACE_OID, f"{shard} {number}").bytes for number in range(DOCUMENTS)]
        columns = {
            "doc_id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(ids, pa.binary(16))),
            "url": [f"https://site.example/{shard}/{number}" for number in range(DOCUMENTS)],
            "domain_group": ["general"] * DOCUMENTS,
            "topic": [TOPICS[number % 4] for number in range(DOCUMENTS)],
            "text": [f"the whole of the parts {number}" for number in range(DOCUMENTS)],
        }
        out.put(f"part-{shard:05d}", Output.annotated(pa.table(columns)))
    return out.commit([f"part-{shard:05d}" for shard in range(SHARDS)])


def _writer(asset: str, again: int = 0) -> Writer:
    return Writer(f"memory://topic_weights/{asset}/{again}", asset, "all", code_version="1", settings={}, inputs={})


_CALLS = iter(range(100))


def tokens(curated: Dataset, **weights: float) -> Dataset:
    made = Settings(mix=Mix(topic_weights=weights, held_out_share=0.2), tokenizer=Tokenizer(vocab_size=560))
    call = next(_CALLS)
    out = _writer("tokenizer", call)
    tokenizer = out.commit(*build_tokenizer([curated], out=out, settings=made))
    out = _writer("token_shards", call)
    return out.commit(*build_token_shards([curated], [tokenizer], out=out, settings=made))


def documents(made: Dataset, topic: str, split: str = "train") -> set[str]:
    rows = made.read(["url", "split"]).to_pylist()
    return {row["url"] for row in rows if row["split"] == split and TOPICS[int(row["url"].rsplit("/", 1)[1]) % 4] == topic}


def test_of_a_weighted_topic_that_share_stays_and_all_of_the_others(curated):
    whole, thinned = tokens(curated), tokens(curated, arts_and_entertainment=0.5, sports=0.0)
    kept = len(documents(thinned, "arts_and_entertainment")) / len(documents(whole, "arts_and_entertainment"))
    assert 0.35 < kept < 0.65
    assert documents(thinned, "sports") == set()
    for topic in ("physics", "other"):
        assert documents(thinned, topic) == documents(whole, topic)


def test_what_is_held_out_stays_whole(curated):
    whole, thinned = tokens(curated), tokens(curated, arts_and_entertainment=0.0)
    assert (
        documents(thinned, "arts_and_entertainment", "held_out") == documents(whole, "arts_and_entertainment", "held_out") != set()
    )


def test_a_smaller_weight_keeps_a_part_of_what_a_larger_one_keeps(curated):
    few, many = (documents(tokens(curated, sports=weight), "sports") for weight in (0.2, 0.7))
    assert few < many


def test_the_account_says_what_was_thinned_out(curated):
    thinned = tokens(curated, arts_and_entertainment=0.5)
    counts = thinned.manifest.counts
    assert counts.records_in == SHARDS * DOCUMENTS and counts.kept == thinned.manifest.rows
    assert list(counts.dropped) == ["topic_weight arts_and_entertainment"]
    assert counts.dropped["topic_weight arts_and_entertainment"] == SHARDS * DOCUMENTS - thinned.manifest.rows
    assert thinned.manifest.metrics["topic_weights"] == {"arts_and_entertainment": 0.5}


def test_an_unknown_topic_is_named_with_the_nearest(curated):
    with pytest.raises(ValueError, match=r"mix\.topic_weights: 'arts' is no topic of knowledge_domains"):
        tokens(curated, arts=0.5)


def test_arts_and_entertainment_are_halved_unless_said_otherwise():
    assert load("demo").mix.topic_weights == {"arts_and_entertainment": 0.5}
    assert load("demo", ['mix.topic_weights={"sports": 0.1}']).mix.topic_weights == {"sports": 0.1}


def test_a_weight_above_one_is_refused():
    with pytest.raises(SettingsError, match=r"mix\.topic_weights\.sports: input should be less than or equal to 1"):
        load("demo", ['mix.topic_weights={"sports": 2}'])
