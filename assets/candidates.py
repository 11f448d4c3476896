"""data_value, of candidate sets: what a half-trained model gains by annealing on them (Llama 3, section 3.1.3)."""

from l3_platform.orchestration.card import Card
from l3_platform.orchestration.data_value_card import show_candidate, show_value
from l3_platform.orchestration.instance import TRAINING_POOL
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset


@stage_asset(group="data_value", kinds={"torch"}, show=lambda made: Card(samples={"run": made.dataset.read()}), pool=TRAINING_POOL)
def half_trained(build: Build) -> Built:
    """A small model, half-way through its training at the peak rate: what every annealing branches from."""
    from l3_platform.data_value.build import build_half_trained

    return build_half_trained(**build.inputs, out=build.out, settings=build.settings)


def _no_held_out(made: Made) -> Verdict:
    from l3_platform.data_value.build import held_out_in

    found = held_out_in(made.dataset, made.catalog.dataset("token_shards"))
    return Verdict(not found, {"held-out documents in the set": found})


@stage_asset(
    group="data_value",
    kinds={"duckdb", "huggingface"},
    checks=[
        Check(
            "no_held_out_document_in_a_candidate",
            _no_held_out,
            blocking=True,
            description="no document of the set is held out, token for token",
        )
    ],
    show=show_candidate,
)
def candidate_tokens(build: Build) -> Built:
    """The documents of a candidate set as token streams, without those that are held out or copy what is."""
    from l3_platform.data_value.build import build_candidate_tokens

    return build_candidate_tokens(**build.inputs, out=build.out, settings=build.settings)


def _every_branch_finished(made: Made) -> Verdict:
    counts = made.dataset.manifest.counts
    return Verdict(not counts.failed, {"annealed": counts.kept, "failed": counts.failed})


@stage_asset(
    group="data_value",
    kinds={"torch", "mlflow"},
    checks=[Check("every_branch_finished", _every_branch_finished, description="no annealing diverged")],
    show=show_value,
    pool=TRAINING_POOL,
    retry=lambda settings: settings.scaling.retry_failed,
)
def data_value(build: Build) -> Built:
    """Held-out loss that annealing on 30 % of a candidate set saves against the default mix, over seeds (section 3.1.3)."""
    from l3_platform.data_value.build import build_data_value

    names, metrics = build_data_value(**build.inputs, out=build.out, settings=build.settings)
    build.track_points(names)
    return names, metrics
