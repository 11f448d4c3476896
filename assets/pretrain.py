"""pretrain: the model that the plan asks for, trained by torchrun over several nodes, then annealed."""

import functools
import json
import math
from collections.abc import Callable

from l3_platform.orchestration.card import Card, new_figure, png
from l3_platform.orchestration.instance import TRAINING_POOL
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset
from l3_platform.orchestration.training import launched
from l3_platform.store import files


def _loss_is_finite(made: Made) -> Verdict:
    metrics = made.dataset.manifest.metrics
    losses = {name: metrics[name] for name in ("train loss", "held-out loss")}
    return Verdict(all(math.isfinite(loss) for loss in losses.values()), losses)


def _as_planned(made: Made) -> Verdict:
    """The training that happened is the training that was planned, token for token."""
    from l3_platform.scaling.build import read_plan

    plan, metrics = read_plan(made.catalog.dataset("training_plan")), made.dataset.manifest.metrics
    facts = {
        "planned tokens": plan.total_tokens,
        "tokens": metrics["tokens"],
        "planned parameters": plan.parameters,
        "parameters": metrics["parameters"],
    }
    same = (plan.total_tokens, plan.parameters) == (metrics["tokens"], metrics["parameters"])
    return Verdict(same, facts | ({"predicted loss": plan.predicted_loss} if plan.predicted_loss else {}))


def _curve(made: Made) -> Card:
    curve = json.loads(files.read(made.dataset.file("loss.json")))
    figure, axes = new_figure(height=2.6)
    axes.plot(curve["tokens"], curve["loss"], color="#2f6f9f", linewidth=1)
    axes.set_xlabel("tokens", fontsize=8)
    axes.set_ylabel("training loss, nats a token", fontsize=8)
    rate = axes.twinx()
    rate.plot(curve["tokens"], curve["learning_rate"], color="#c9792b", linewidth=0.8)
    rate.set_ylabel("learning rate", fontsize=8)
    rate.tick_params(labelsize=8)
    return Card(chart=png(figure), samples={"files": made.dataset.read()})


FINITE = Check("loss_is_finite", _loss_is_finite, blocking=True)


@stage_asset(
    group="pretrain",
    kinds={"torch", "mlflow"},
    checks=[
        FINITE,
        Check("trained_as_planned", _as_planned, description="tokens and parameters are those of training_plan"),
    ],
    show=_curve,
    pool=TRAINING_POOL,
)
def pretrained(build: Build) -> Built:
    """A Llama 3 architecture model trained from scratch as the plan says: torchrun, FSDP2, checkpoints that survive a kill."""
    from l3_platform.pretrain import build_pretrained

    return _trained(build, build_pretrained)


@stage_asset(group="pretrain", kinds={"torch", "mlflow"}, checks=[FINITE], show=_curve, pool=TRAINING_POOL)
def annealed(build: Build) -> Built:
    """Learning rate to zero on the annealing mix; the mean of the checkpoints is the model (Llama 3, section 3.4.3)."""
    from l3_platform.pretrain import build_annealed

    return _trained(build, build_annealed)


def _trained(build: Build, builder: Callable[..., Built]) -> Built:
    from l3_platform.pretrain import Tracked

    with build.mlflow_run(build.out.asset) as run:
        return builder(
            **build.inputs,
            out=build.out,
            settings=build.settings,
            launch=functools.partial(launched, build.context, build.settings),
            tracked=Tracked(build.tracking.uri if run else "", run),
        )
