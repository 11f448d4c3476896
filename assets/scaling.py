"""scaling: small models first, so that the large one is planned and not guessed."""

from l3_platform.orchestration.card import Card, failures
from l3_platform.orchestration.instance import TRAINING_POOL
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset


def _losses_finite(made: Made) -> Verdict:
    import math

    losses = made.dataset.read(["loss"])["loss"].to_pylist()
    return Verdict(
        bool(losses) and all(math.isfinite(loss) for loss in losses),
        {"points": len(losses), "best": min(losses, default=0.0)},
    )


@stage_asset(
    group="scaling",
    kinds={"torch", "mlflow"},
    checks=[Check("losses_are_finite", _losses_finite, blocking=True)],
    show=lambda made: Card(samples={"runs": made.dataset.read(), **failures(made.dataset)}),
    pool=TRAINING_POOL,
    retry=lambda settings: settings.scaling.retry_failed,
)
def isoflop_runs(build: Build) -> Built:
    """Models of several sizes at several budgets, each one shard and one nested MLflow run (Llama 3, section 3.2.1)."""
    from l3_platform.scaling.build import build_isoflop_runs

    names, metrics = build_isoflop_runs(**build.inputs, out=build.out, settings=build.settings)
    build.track_points(names)
    return names, metrics


def _has_optimum(made: Made) -> Verdict:
    rows = made.dataset.read().to_pylist()
    inside = [row["budget"] for row in rows if row["inside"]]
    return Verdict(len(inside) >= 2, {"budgets": len(rows), "with their optimum inside the sweep": len(inside)})


def _show_laws(made: Made) -> Card:
    from l3_platform.scaling.build import read_law
    from l3_platform.scaling.plot import isoflop_chart

    runs = made.catalog.dataset("isoflop_runs").read()
    chart = isoflop_chart(runs, read_law(made.dataset), made.settings.train.budget_flops)
    return Card(samples={"minima": made.dataset.read()}, chart=chart)


@stage_asset(
    group="scaling",
    kinds={"scipy"},
    checks=[
        Check(
            "optimum_is_inside_the_sweep",
            _has_optimum,
            description="at least two budgets with a minimum between their points",
        )
    ],
    show=_show_laws,
)
def scaling_laws(build: Build) -> Built:
    """Parabola a budget, power law over budgets: compute-optimal tokens and parameters (Llama 3, section 3.2.1)."""
    from l3_platform.scaling.build import build_scaling_laws

    return build_scaling_laws(**build.inputs, out=build.out, settings=build.settings)


def _show_plan(made: Made) -> Card:
    from l3_platform.scaling.build import read_law, read_plan, read_surface
    from l3_platform.scaling.plot import forecast_chart

    laws = made.catalog.dataset("scaling_laws")
    surface = read_surface(laws)
    runs = made.catalog.dataset("isoflop_runs").read()
    chart = forecast_chart(runs, read_law(laws), surface, read_plan(made.dataset)) if surface else None
    return Card(samples={"plan": made.dataset.read()}, charts={"predicted loss": chart} if chart else {})


@stage_asset(group="scaling", kinds={"json"}, show=_show_plan)
def training_plan(build: Build) -> Built:
    """Parameters, tokens, shape and schedule for the budget; `pretrained` obeys it."""
    from l3_platform.scaling.build import build_training_plan

    return build_training_plan(**build.inputs, out=build.out, settings=build.settings)
