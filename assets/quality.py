"""quality: how good a document is, and what it is about."""

from collections.abc import Sequence

import dagster as dg
import pyarrow as pa

from l3_platform.orchestration.card import EXCERPT_CHARS, SAMPLE_ROWS, SAMPLE_SHARDS, Card, bars, connect_for_samples, samples
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset
from l3_platform.quality.questions import CODE, QUALITY, REASONING, Question


def _better_than_chance(made: Made) -> Verdict:
    metrics = made.dataset.manifest.metrics
    if "untrained" in metrics:
        return Verdict(False, {"no model": metrics["untrained"]})
    auc = metrics.get("roc_auc")
    return Verdict(
        auc is None or auc > 0.7,
        {"cross-validated ROC-AUC": auc if auc is not None else "a given model, not measured here"},
    )


def _classifier(question: Question, learns_from: str) -> dg.AssetsDefinition:
    """The asset `{name}_classifier`."""

    def show(made: Made) -> Card:
        metrics = made.dataset.manifest.metrics
        if "calibration" not in metrics:
            return Card()
        from l3_platform.quality.plot import calibration_chart

        note = f"{metrics['model']}\nlabels: {metrics['labels']}\n"
        note += f"ROC-AUC {metrics['roc_auc']:.3f}, calibration error {metrics['calibration_error']:.3f}"
        chart = calibration_chart(metrics["calibration"], question.positive, note)
        return Card(samples=_surprises(made, question), facts=_cost(made), chart=chart)

    def build(build: Build) -> Built:
        from l3_platform.quality.classifier import build_classifier

        return build_classifier(question, **build.inputs, out=build.out, settings=build.settings)

    build.__name__, build.__doc__ = f"{question.name}_classifier", learns_from
    better = Check("better_than_chance", _better_than_chance, description="cross-validated ROC-AUC above 0.7")
    return stage_asset(group="quality", kinds={"fasttext", "huggingface"}, checks=[better], show=show)(build)


def _surprises(made: Made, question: Question) -> dict[str, pa.Table]:
    """Labelled documents that a model which had not seen them scores least like their label: its errors, or the labels'."""
    shards = [shard for dataset in made.inputs["documents"] for shard in dataset.shards][:SAMPLE_SHARDS]
    pages = pa.concat_tables([shard.read(["doc_id", "url", "text"]) for shard in shards])
    connection = connect_for_samples(d=pages, s=made.dataset.read())
    sides = {
        f"labelled {question.positive}, scored low": ("s.label", "ASC"),
        "labelled other, scored high": ("NOT s.label", "DESC"),
    }
    return {
        heading: connection.sql(
            f"SELECT url, held_out_score, left(regexp_replace(text, '\\s+', ' ', 'g'), {EXCERPT_CHARS}) AS text FROM "
            f"(SELECT d.url, d.text, s.held_out_score FROM s JOIN d USING (doc_id) "
            f"WHERE {predicate} ORDER BY s.held_out_score {direction}, doc_id LIMIT {SAMPLE_ROWS})"
        ).to_arrow_table()
        for heading, (predicate, direction) in sides.items()
    }


def _cost(made: Made) -> dict[str, float]:
    """What an annotator's answers would cost at the prices of the settings, those kept from earlier runs included."""
    metrics, prices = made.dataset.manifest.metrics, made.settings.annotator
    if "prompt_tokens" not in metrics:
        return {}
    spent = metrics["prompt_tokens"] * prices.prompt_price + metrics["completion_tokens"] * prices.completion_price
    return {"cost of the labels": round(spent / 1e6, 4)}


def _scores(question: Question, says: str) -> dg.AssetsDefinition:
    """The asset `{name}_scores`."""

    def show(made: Made) -> Card:
        from l3_platform.quality.plot import scores_chart

        edges = made.dataset.manifest.metrics["bucket_edges"]
        if not edges:
            return Card()
        scores = made.dataset.read(["score"])["score"].to_numpy()
        threshold = made.settings.quality.min_score if question.name == "quality" else None
        cases = {"five best": "s.bucket = 9", "five worst": "s.bucket = 0"}
        return Card(
            samples={"buckets": _buckets(made, edges), **samples(made.inputs["documents"], [made.dataset], cases, "s.score")},
            chart=scores_chart(scores, edges, question.positive, threshold),
        )

    def build(build: Build) -> Built:
        from l3_platform.quality.scores import build_scores

        inputs = dict(build.inputs)
        classifier = inputs.pop(f"{question.name}_classifier")
        return build_scores(question, **inputs, classifier=classifier, out=build.out, settings=build.settings)

    build.__name__, build.__doc__ = f"{question.name}_scores", says
    return stage_asset(group="quality", kinds={"fasttext", "huggingface"}, show=show)(build)


def _buckets(made: Made, edges: Sequence[float]) -> pa.Table:
    """Where each bucket begins and ends, and how many documents are in it."""
    found = made.dataset.read(["bucket"])["bucket"].value_counts().to_pylist()
    documents = {int(row["values"]): int(row["counts"]) for row in found}
    bounds = [0.0, *edges, 1.0]
    rows = [
        {"bucket": number, "score from": bounds[number], "to": bounds[number + 1], "documents": documents.get(number, 0)}
        for number in range(len(bounds) - 1)
    ]
    return pa.Table.from_pylist(rows)


quality_classifier = _classifier(
    QUALITY, """Would this text be referenced by Wikipedia? Learnt from labels of a file or a model, else of a rule: *simulated*."""
)
quality_scores = _scores(
    QUALITY, """How well each document would do as a reference, with its quantile bucket and the model's version."""
)
code_classifier = _classifier(
    CODE, """Does this text teach or show how to program? An encoder distilled from an annotator (Llama 3, section 3.1.2)."""
)
code_scores = _scores(CODE, """How much each document is of code, with its quantile bucket and the model's version.""")
reasoning_classifier = _classifier(
    REASONING,
    """Does this text reason, in mathematics, science or code? An encoder distilled from an annotator (Llama 3, section 3.1.2).""",
)
reasoning_scores = _scores(REASONING, """How much each document reasons, with its quantile bucket and the model's version.""")


def _show_domains(made: Made) -> Card:
    counts = made.dataset.read(["topic"])["topic"].value_counts().to_pylist()
    cases = {
        "five of maths": "s.domain_group = 'math'",
        "five of code": "s.domain_group = 'code'",
        "five general": "s.domain_group = 'general'",
    }
    return Card(
        samples=samples(made.inputs["documents"], [made.dataset], cases, "s.topic, s.domain_group"),
        chart=bars({str(row["values"]): int(row["counts"]) for row in counts}, unit="documents"),
    )


def _several_domains(made: Made) -> Verdict:
    counts = made.dataset.read(["domain_group"])["domain_group"].value_counts().to_pylist()
    by_group = {str(row["values"]): int(row["counts"]) for row in counts}
    return Verdict(len(by_group) > 1, by_group)


@stage_asset(
    group="quality",
    kinds={"parquet"},
    checks=[Check("several_domains", _several_domains, description="not everything is of one domain")],
    show=_show_domains,
)
def knowledge_domains(build: Build) -> Built:
    """Topic of each document, and which part of the mix it feeds: general, math, code or multilingual (Llama 3, section 3.1.2)."""
    from l3_platform.quality.domains import build_knowledge_domains

    return build_knowledge_domains(**build.inputs, out=build.out, settings=build.settings)
