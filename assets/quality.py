"""quality: how good a document is, and what it is about."""

from l3_platform.orchestration.card import Card, bars, histogram, samples
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset


def _better_than_chance(made: Made) -> Verdict:
    auc = made.dataset.manifest.metrics.get("roc_auc")
    return Verdict(
        auc is None or auc > 0.7,
        {"cross-validated ROC-AUC": auc if auc is not None else "a given model, not measured here"},
    )


@stage_asset(
    group="quality",
    kinds={"fasttext"},
    checks=[Check("better_than_chance", _better_than_chance, description="cross-validated ROC-AUC above 0.7")],
)
def quality_classifier(build: Build) -> Built:
    """fastText "would this text be referenced by Wikipedia". Labels come from a file, else from a rule: *simulated*."""
    from l3_platform.quality.classifier import build_quality_classifier

    return build_quality_classifier(**build.inputs, out=build.out, settings=build.settings)


def _show_scores(made: Made) -> Card:
    cases = {"five best": "s.bucket = 9", "five worst": "s.bucket = 0"}
    scores = made.dataset.read(["score"])["score"].to_pylist()
    return Card(
        samples=samples(made.inputs["documents"], [made.dataset], cases, "s.score"),
        chart=histogram(scores, "probability of `referenced`", made.settings.quality.min_score),
    )


@stage_asset(group="quality", kinds={"fasttext"}, show=_show_scores)
def quality_scores(build: Build) -> Built:
    """The classifier's probability for every document, with its quantile bucket and the model's version."""
    from l3_platform.quality.scores import build_quality_scores

    return build_quality_scores(**build.inputs, out=build.out, settings=build.settings)


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
