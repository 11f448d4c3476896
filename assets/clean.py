"""clean: documents out of WARC records, and what can be said of each page alone. A partition a snapshot, a shard a WARC file."""

import functools
from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import pyarrow as pa

from l3_platform.crawl.fetch import warc_files
from l3_platform.engine import Output, map_actors, map_shards
from l3_platform.orchestration import planted
from l3_platform.orchestration.card import Card, bars, histogram, samples
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset
from l3_platform.store import Shard


def _some_pages(made: Made) -> Verdict:
    counts = made.dataset.manifest.counts
    return Verdict(counts.kept > 0, {"records": counts.records_in, "documents": counts.kept, "broken": counts.failed})


def _every_record_has_a_place(made: Made) -> Verdict:
    lost = made.dataset.quarantine()
    unplaced = sum(
        offset is None or not reason for offset, reason in zip(*(lost[c].to_pylist() for c in ("offset", "reason")), strict=True)
    )
    by_reason = {str(row["values"]): int(row["counts"]) for row in lost["reason"].value_counts().to_pylist()}
    return Verdict(unplaced == 0, {"bytes lost": sum(lost["bytes_lost"].to_pylist()), **by_reason})


def _show_documents(made: Made) -> Card:
    kept = samples([made.dataset], [made.dataset], {"five kept": "true"}, "d.title")
    return Card(samples=kept | {"five quarantined": made.dataset.quarantine().slice(0, 5)})


@stage_asset(
    group="clean",
    kinds={"parquet"},
    checks=[
        Check("some_pages_are_readable", _some_pages, blocking=True, description="at least one document a snapshot"),
        Check("broken_records_are_reported", _every_record_has_a_place, description="each with its reason and its offset"),
        planted.check("documents"),
    ],
    show=_show_documents,
    freshness=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=40)),
)
def documents(build: Build) -> Built:
    """Text, maths and code of every HTML page: WARC records read with every byte accounted for, boilerplate removed."""
    return map_shards(
        functools.partial(_documents, build.partition, build.settings.crawl.source, build.settings.extract),
        warc_files(build.input("raw_crawl")),
        build.out,
        build.settings.engine,
    ), {}


def _documents(snapshot: str, source: str, settings: object, task: tuple[str, str]) -> Output:
    from l3_platform.extract.documents import documents_from_warc

    file, url = task
    return documents_from_warc(url, file=file, snapshot=snapshot, source=source, settings=settings)  # type: ignore[arg-type]


def _annotated(build: Build, annotate: Callable[[Shard], Output]) -> Built:
    """A sidecar: one row a document, shard by shard."""
    return map_shards(
        annotate, {shard.name: shard for shard in build.input("documents").shards}, build.out, build.settings.engine
    ), {}


def _shown(columns: str, cases: dict[str, str]) -> Callable[[Made], Card]:
    return lambda made: Card(samples=samples(made.inputs["documents"], [made.dataset], cases, columns))


@stage_asset(
    group="clean",
    kinds={"parquet"},
    checks=[planted.check("url_policy")],
    show=_shown("s.blocked_by", {"five blocked": "s.blocked_by IS NOT NULL", "five allowed": "s.blocked_by IS NULL"}),
)
def url_policy(build: Build) -> Built:
    """Canonical URL and domain of each page, and which block list, if any, names it (Llama 3, section 3.1.1)."""
    return _annotated(build, functools.partial(_url_policy, build.settings.url_policy))


def _url_policy(settings: object, shard: Shard) -> Output:
    from l3_platform.curate.url_policy import url_policy

    return Output.annotated(url_policy(shard.read(["doc_id", "url"]), settings))  # type: ignore[arg-type]


def _show_languages(made: Made) -> Card:
    counts = made.dataset.read(["language"])["language"].value_counts().to_pylist()
    by_language = {str(row["values"]): int(row["counts"]) for row in counts}
    cases = {"five not English": "s.language <> 'en'", "five least certain": "s.score < 0.6"}
    return Card(
        samples=samples(made.inputs["documents"], [made.dataset], cases, "s.language, s.score"),
        facts={"languages": len(by_language)},
        chart=bars(by_language, unit="documents"),
    )


def _show_identifier(made: Made) -> Card:
    rows = made.dataset.read().sort_by("f1").to_pylist()
    facts = {"hardest languages": ", ".join(f"{row['language']} {row['f1']:.2f}" for row in rows[:5] if row["f1"] is not None)}
    return Card(facts=facts if rows else {})


@stage_asset(group="clean", kinds={"fasttext"}, show=_show_identifier)
def language_identifier(build: Build) -> Built:
    """A fastText language identifier trained on `languages.labelled`; empty where that is not set, or a model is given."""
    from l3_platform.curate.language_identifier import build_language_identifier

    return build_language_identifier(out=build.out, settings=build.settings)


@stage_asset(group="clean", kinds={"parquet"}, checks=[planted.check("languages")], show=_show_languages)
def languages(build: Build) -> Built:
    """The language of each page with its score: by a fastText model, given or trained, else by the built-in identifier."""
    from l3_platform.curate.language_identifier import MODEL_FILE

    identifier = build.input("language_identifier")
    trained = identifier.file(MODEL_FILE) if identifier.manifest.rows else ""
    tasks = {shard.name: shard for shard in build.input("documents").shards}
    identify = functools.partial(_Identifier, build.settings.languages.model, trained)
    return map_actors(identify, tasks, build.out, build.settings.engine), {}


class _Identifier:
    """The model, where there is one, in a worker's memory."""

    def __init__(self, given: str, trained: str) -> None:
        from l3_platform.curate import fasttext_training
        from l3_platform.store import files

        self.given = fasttext_training.load_file(given) if given else None
        self.trained = fasttext_training.load(files.read(trained)) if trained else None

    def __call__(self, shard: Shard) -> Output:
        from l3_platform.curate.languages import languages

        return Output.annotated(languages(shard.read(["doc_id", "text"]), self.given, self.trained))


@stage_asset(
    group="clean",
    kinds={"parquet", "numba"},
    checks=[planted.check("text_heuristics")],
    show=_shown(
        "s.dup_ngram_max, s.dirty_words, s.words",
        {
            "five most repetitive": "s.dup_ngram_max > 0.3",
            "five with dirty words": "s.dirty_words > 0",
            "five ordinary": "s.dup_ngram_max < 0.1",
        },
    ),
)
def text_heuristics(build: Build) -> Built:
    """Repetition, length, symbol and dirty-word statistics as scores (Rae et al. 2021, table A1; Raffel et al. 2020)."""
    identified = build.input("languages")
    tasks = {shard.name: (shard, identified.shard(shard.name)) for shard in build.input("documents").shards}
    return map_shards(functools.partial(_heuristics, build.settings.heuristics), tasks, build.out, build.settings.engine), {}


def _heuristics(settings: object, task: tuple[Shard, Shard]) -> Output:
    from l3_platform.curate import text_heuristics

    pages, identified = task[0].read(["doc_id", "text"]), task[1].read(["language"])
    scores = text_heuristics(pages["text"], identified["language"], settings)  # type: ignore[arg-type]
    return Output.annotated(scores.add_column(0, pa.field("doc_id", pa.uuid()), pages["doc_id"]))


@stage_asset(
    group="clean",
    kinds={"parquet"},
    checks=[planted.check("pii")],
    show=_shown(
        "s.emails, s.phones, s.ips, s.ibans, s.cards, s.density",
        {"five with most": "s.density > 0.01", "five with a little": "s.density BETWEEN 0.0001 AND 0.01"},
    ),
)
def pii(build: Build) -> Built:
    """Personal data found in each page: email, phone, IP, IBAN and payment card numbers, check digits verified."""
    return _annotated(build, functools.partial(_pii, build.settings.pii))


def _pii(settings: object, shard: Shard) -> Output:
    from l3_platform.curate.pii import pii

    return Output.annotated(pii(shard.read(["doc_id", "text"]), settings))  # type: ignore[arg-type]


def _show_outliers(made: Made) -> Card:
    values = [value for value in made.dataset.read(["kl"])["kl"].to_pylist() if value is not None]
    limit = made.settings.heuristics.max_kl
    cases = {"five most unlike the corpus": f"s.kl > {limit}", "five next to the limit": f"s.kl BETWEEN {0.8 * limit} AND {limit}"}
    return Card(
        samples=samples(made.inputs["documents"], [made.dataset], cases, "s.kl, s.outlier_share"),
        facts={"compared": len(values), "above the limit": sum(value > limit for value in values)},
        chart=histogram(values, "KL divergence from the language's corpus, nats", limit) if values else None,
    )


@stage_asset(group="clean", kinds={"numba", "duckdb"}, checks=[planted.check("outlier_tokens")], show=_show_outliers)
def outlier_tokens(build: Build) -> Built:
    """How far each page's words are from what its language's pages say in all snapshots: KL divergence (Llama 3, section 3.1.1)."""
    from l3_platform.curate.outlier_tokens import build_outlier_tokens

    return build_outlier_tokens(**build.inputs, out=build.out, settings=build.settings)
