"""pretrain: the model that the plan asks for, trained by torchrun over several nodes, on longer sequences, then annealed."""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from l3_platform.orchestration.card import Card, new_figure, png
from l3_platform.orchestration.instance import TRAINING_POOL
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset
from l3_platform.orchestration.training import launched, track_effective_time
from l3_platform.orchestration.training_card import training_card
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
    return Verdict(same, facts)


def _loss_as_predicted(made: Made) -> Verdict:
    """The sweep's prediction was made before the run and is not touched after it."""
    from l3_platform.pretrain import result_of
    from l3_platform.scaling.build import read_plan
    from l3_platform.scaling.isoflop import as_the_sweep_weighs

    predicted = read_plan(made.catalog.dataset("training_plan")).predicted_loss
    loss = as_the_sweep_weighs(result_of(made.dataset).held_out)
    if predicted is None or not math.isfinite(loss):
        why = "the sweep predicts no loss" if predicted is None else "no document was held out"
        return Verdict(True, {"held-out loss": loss, "not judged": why})
    facts = {"held-out loss": loss, "predicted": predicted.value, "from": predicted.low, "to": predicted.high}
    return Verdict(predicted.low <= loss <= predicted.high, facts)


def _fed_as_mixed(made: Made) -> Verdict:
    """What the ranks recorded as read is the mix that was asked for, each mixture by itself."""
    legs = json.loads(files.read(made.dataset.file("consumed.json")))
    facts, good = {}, True
    for leg in legs:
        total = sum(leg["tokens"].values())  # 0 where two changes fall into one step
        asked = sum(leg["shares"].values())
        for domain, tokens in leg["tokens"].items():
            share, wanted = tokens / max(total, 1), leg["shares"].get(domain, 0.0) / asked
            facts[f"{domain} from {leg['from_tokens']:,} tokens"] = f"{share:.1%} of {total:,}, asked for {wanted:.1%}"
            good = good and abs(tokens - wanted * total) <= leg["slack"]
    recorded = sum(sum(leg["tokens"].values()) for leg in legs)
    return Verdict(good and recorded == made.dataset.manifest.metrics["tokens"], facts | {"recorded tokens": recorded})


def _curve(made: Made) -> Card:
    told = training_card(made.cost)
    chart = _loss_chart(json.loads(files.read(made.dataset.file("loss.json"))))
    return replace(told, chart=chart, samples={"files": made.dataset.read(), **told.samples})


def _loss_chart(curve: dict[str, Any]) -> bytes:
    figure, axes = new_figure(height=2.6)
    axes.plot(curve["tokens"], curve["loss"], color="#2f6f9f", linewidth=1)
    axes.set_xlabel("tokens", fontsize=8)
    axes.set_ylabel("training loss, nats a token", fontsize=8)
    rate = axes.twinx()
    rate.plot(curve["tokens"], curve["learning_rate"], color="#c9792b", linewidth=0.8)
    rate.set_ylabel("learning rate", fontsize=8)
    rate.tick_params(labelsize=8)
    return png(figure)


def _full_length(made: Made) -> Verdict:
    """A model that did not pass at every length is a warning, unless `long_context.required`."""
    metrics = made.dataset.manifest.metrics
    said = {"reached": metrics["reached"], "wanted": metrics["wanted"]}
    said |= {name: metrics[name] for name in ("stopped because", "needle") if name in metrics}
    return Verdict(metrics["reached"] == metrics["wanted"], said, only_warns=not made.settings.long_context.required)


def _show_long_context(made: Made) -> Card:
    from l3_platform.evaluate.needle import CELLS
    from l3_platform.evaluate.plot import needle_chart
    from l3_platform.long_context import CURVE, read_story

    story, curve = read_story(made.dataset), json.loads(files.read(made.dataset.file(CURVE)))
    found = pa.Table.from_pylist(story["needles"], schema=CELLS)
    told = training_card(made.cost)
    pictures = {"needle in a haystack": needle_chart(found, story["chance"])} if found.num_rows else {}
    return replace(
        told,
        samples={"stages": pa.Table.from_pylist(story["slices"]), "files": made.dataset.read(), **told.samples},
        chart=_loss_chart(curve) if curve else None,
        charts={**pictures, **told.charts},
    )


FINITE = Check("loss_is_finite", _loss_is_finite, blocking=True)
FED = Check("fed_as_mixed", _fed_as_mixed, description="the ledger's tokens of each domain are the shares of data_mix")


@stage_asset(
    group="pretrain",
    kinds={"torch", "mlflow"},
    checks=[
        FINITE,
        FED,
        Check("trained_as_planned", _as_planned, description="tokens and parameters are those of training_plan"),
        Check("loss_is_as_predicted", _loss_as_predicted, description="held-out loss lies in the plan's 90 % interval"),
    ],
    show=_curve,
    pool=TRAINING_POOL,
)
def pretrained(build: Build) -> Built:
    """A Llama 3 architecture model trained from scratch as the plan says: torchrun, FSDP2, checkpoints that survive a kill."""
    from l3_platform.pretrain import build_pretrained

    return _trained(build, build_pretrained)


@stage_asset(
    group="pretrain",
    kinds={"torch", "mlflow"},
    checks=[
        FINITE,
        Check(
            "reached_full_length",
            _full_length,
            blocking=True,
            description="at every length the loss on short sequences has recovered, and the needle is found as often as wanted",
        ),
    ],
    show=_show_long_context,
    pool=TRAINING_POOL,
)
def long_context(build: Build) -> Built:
    """Continued pre-training in stages of growing sequence length, each judged before the next (Llama 3, section 3.4.2)."""
    from l3_platform.long_context import build_long_context
    from l3_platform.pretrain import Tracked

    with build.mlflow_run("long_context") as parent:

        @contextlib.contextmanager
        def track(name: str) -> Iterator[Tracked]:
            with build.mlflow_run(f"long_context {name}", parent) as run:
                yield _tracked(build, run)

        built = build_long_context(**build.inputs, out=build.out, settings=build.settings, launch=_launch(build), track=track)
        track_effective_time(build, parent)
        return built


@stage_asset(group="pretrain", kinds={"torch", "mlflow"}, checks=[FINITE, FED], show=_curve, pool=TRAINING_POOL)
def annealed(build: Build) -> Built:
    """Learning rate to zero on the annealing mix, at full length; the mean of the checkpoints is the model (Llama 3, 3.4.3)."""
    from l3_platform.pretrain import build_annealed

    return _trained(build, build_annealed)


def _trained(build: Build, builder: Callable[..., Built]) -> Built:
    with build.mlflow_run(build.out.asset) as run:
        built = builder(**build.inputs, out=build.out, settings=build.settings, launch=_launch(build), tracked=_tracked(build, run))
        track_effective_time(build, run)
        return built


def _launch(build: Build) -> Callable[..., Any]:
    return functools.partial(launched, build.context, build.settings, notes=build.notes)


def _tracked(build: Build, run: str) -> Any:
    from l3_platform.pretrain import Tracked

    return Tracked(build.tracking.uri if run else "", run)
