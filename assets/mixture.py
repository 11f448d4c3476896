"""scaling, of mixtures: small models over many mixtures, the law through them, and whether it holds at the next size up."""

from l3_platform.orchestration.instance import TRAINING_POOL
from l3_platform.orchestration.mixture_card import show_law, show_runs, show_validation
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset
from l3_platform.settings import Settings


def _retry(settings: Settings) -> bool:
    return settings.scaling.retry_failed


def _some_trained(made: Made) -> Verdict:
    counts = made.dataset.manifest.counts
    return Verdict(bool(counts.kept) or not counts.records_in, {"trained": counts.kept, "failed": counts.failed})


SOME_TRAINED = Check("some_runs_trained", _some_trained, blocking=True, description="not every run diverged")


@stage_asset(
    group="scaling",
    kinds={"torch", "mlflow"},
    checks=[SOME_TRAINED],
    show=show_runs,
    pool=TRAINING_POOL,
    retry=_retry,
)
def mixture_runs(build: Build) -> Built:
    """Small models over mixtures drawn around the natural one, each a shard and a nested MLflow run (Llama 3, section 3.1.2)."""
    from l3_platform.scaling.mixture_build import build_mixture_runs

    names, metrics = build_mixture_runs(**build.inputs, out=build.out, settings=build.settings)
    build.track_points(names)
    return names, metrics


def _beats_knowing_nothing(made: Made) -> Verdict:
    from l3_platform.scaling.mixture_build import read_fits

    chosen = [row for row in read_fits(made.dataset)[0].to_pylist() if row["chosen"]]
    facts = {row["domain_group"]: f"{row['method']}: error {row['error']:.4f} of {row['spread']:.4f}" for row in chosen}
    return Verdict(all(row["error"] < row["spread"] for row in chosen), facts)


@stage_asset(
    group="scaling",
    kinds={"scikitlearn", "scipy"},
    checks=[
        Check(
            "the_law_predicts_unseen_runs",
            _beats_knowing_nothing,
            description="of every domain, the error on runs not seen lies below the spread of their losses",
        )
    ],
    show=show_law,
)
def mixture_law(build: Build) -> Built:
    """A regression a domain, chosen by runs it has not seen, and the mixture with the lowest weighted loss (section 3.1.2)."""
    from l3_platform.scaling.mixture_build import build_mixture_law

    return build_mixture_law(**build.inputs, out=build.out, settings=build.settings)


@stage_asset(group="scaling", kinds={"torch"}, checks=[SOME_TRAINED], show=show_runs, pool=TRAINING_POOL, retry=_retry)
def doremi(build: Build) -> Built:
    """For comparison: the shares that one proxy model takes to while it trains (Xie et al. 2023)."""
    from l3_platform.scaling.mixture_build import build_doremi

    return build_doremi(**build.inputs, out=build.out, settings=build.settings)


def _beats_natural(made: Made) -> Verdict:
    from l3_platform.scaling.mixture_build import read_differences
    from l3_platform.scaling.mixture_choice import FOUND, NATURAL

    if not made.dataset.manifest.counts.records_in:
        return Verdict(True, {"seen": "nothing: the sweep is off (mixture.runs is 0)"})
    pair = next((one for one in read_differences(made.dataset) if (one.mixture, one.against) == (FOUND, NATURAL)), None)
    if pair is None:
        return Verdict(False, {"seen": "no seed at which both mixtures trained to the end"})
    return Verdict(pair.high is not None and pair.high < 0, {"seen": pair.in_words})


@stage_asset(
    group="scaling",
    kinds={"torch", "mlflow"},
    checks=[
        SOME_TRAINED,
        Check(
            "the_found_mixture_beats_the_natural_one",
            _beats_natural,
            description="at the next size up, the 90 % interval of the target's difference lies below zero",
        ),
    ],
    show=show_validation,
    pool=TRAINING_POOL,
    retry=_retry,
)
def mixture_validation(build: Build) -> Built:
    """The found, the natural, the settings' and DoReMi's mixture at the next size up, several seeds each (section 3.1.2)."""
    from l3_platform.scaling.mixture_build import build_mixture_validation

    names, metrics = build_mixture_validation(**build.inputs, out=build.out, settings=build.settings)
    build.track_points(names)
    return names, metrics
