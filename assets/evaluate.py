"""evaluate: what the model has learnt, on documents that it never saw."""

from l3_platform.orchestration.card import Card
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset


def _beats_unigram(made: Made) -> Verdict:
    metrics = made.dataset.manifest.metrics
    loss, baseline = metrics["annealed held-out loss"], metrics["unigram held-out loss"]
    return Verdict(loss < baseline - 0.5, {"held-out loss": loss, "of a unigram model": baseline})


def _annealing_helps(made: Made) -> Verdict:
    """Annealing is to teach what its mix upsamples: held-out loss falls over the domains of which it holds more than before.

    Compared with the model that annealing began from, at the short length that all of them are judged at.
    """
    rows = sorted(made.catalog.dataset("data_mix").read().to_pylist(), key=lambda row: row["from_tokens"])
    shares = {(row["phase"], row["domain_group"]): row["share"] for row in rows}  # of pre-training, those of its last mixture
    upsampled = sorted({name for phase, name in shares if phase == "anneal" and shares["anneal", name] > shares["pretrain", name]})
    seen = sum(row["tokens"] for row in made.dataset.read().to_pylist() if row["domain_group"] in upsampled)
    if not seen:
        return Verdict(True, {"domains": ", ".join(upsampled), "held out": "nothing of them: not judged"})
    loss = {}
    for model in ("long_context", "annealed"):
        rows = [row for row in made.dataset.read().to_pylist() if row["model"] == model and row["domain_group"] in upsampled]
        loss[model] = sum(row["loss"] * row["tokens"] for row in rows) / max(sum(row["tokens"] for row in rows), 1)
    return Verdict(loss["annealed"] < loss["long_context"], {"domains": ", ".join(upsampled), **loss})


def _show(made: Made) -> Card:
    from l3_platform.evaluate.plot import annealing_chart

    table = made.dataset.read()
    return Card(samples={"losses": table}, chart=annealing_chart(table, "long_context", "annealed"))


@stage_asset(
    group="evaluate",
    kinds={"torch", "mlflow"},
    checks=[
        Check(
            "better_than_unigram",
            _beats_unigram,
            description="at least half a nat a token under a unigram model of the same tokens",
        ),
        Check(
            "annealing_helps", _annealing_helps, description="held-out loss falls over the domains that the annealing mix upsamples"
        ),
    ],
    show=_show,
)
def evaluation(build: Build) -> Built:
    """Held-out loss and bits per byte of each domain after each phase of training, beside a unigram model's."""
    from l3_platform.evaluate.build import build_evaluation

    names, metrics = build_evaluation(**build.inputs, out=build.out, settings=build.settings)
    with build.mlflow_run("evaluation") as run:
        if run:
            build.tracking.log_metrics(build.context, run, {name.replace(" ", "_"): value for name, value in metrics.items()})
    return names, metrics
