"""`isoflop_runs`, `scaling_laws` and `training_plan` as datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from l3_platform.engine import Counts, Output, map_shards
from l3_platform.scaling.branches import by_size, run_size
from l3_platform.scaling.isoflop import RUNS, PointTask, points, run_point
from l3_platform.scaling.laws import ScalingLaw, fit_isoflop
from l3_platform.scaling.plan import TrainingPlan, training_plan
from l3_platform.scaling.proxy import Corpus
from l3_platform.scaling.surface import LossSurface, fit_surface
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Writer, files
from l3_platform.tokens.build import tokens_by_domain, vocabulary
from l3_platform.train.streams import mixtures_of

Built = tuple[Sequence[str], Mapping[str, Any]]
LAW, SURFACE, PLAN = "law.json", "surface.json", "plan.json"


def build_isoflop_runs(
    token_shards: Sequence[Dataset],
    data_mix: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """A shard a point, or a size where its points branch from one run, so that a killed sweep resumes shard by shard.

    Points left out are dropped, those that diverge have failed, each with its reason.
    """
    words = vocabulary(tokenizer[0])
    available = sum(tokens_by_domain(token_shards[0]).values())
    candidates = points(settings, words.size, available)
    corpus = Corpus.of(token_shards[0], words)
    shares = mixtures_of(data_mix[0], "pretrain")[0].shares  # the mix that training begins with
    tasks = [PointTask(point, corpus, shares, settings) for point in candidates if not point.left_out]
    engine = settings.engine.model_copy(update={"workers": settings.scaling.workers})
    if settings.scaling.schedule == "wsd":
        names = map_shards(run_size, by_size(tasks), out, engine)
    else:
        names = map_shards(run_point, {task.point.name: task for task in tasks}, out, engine)
    left_out = {point.name: point.left_out for point in candidates if point.left_out}
    out.put("left-out", Output(RUNS.empty_table(), Counts(records_in=len(left_out), dropped=_reasons(left_out))))
    return [*names, "left-out"], {"left out": left_out} if left_out else {}


def _reasons(left_out: Mapping[str, str]) -> dict[str, int]:
    kinds = ["too_few_tokens" if "min_tokens" in reason else "too_many_epochs" for reason in left_out.values()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def build_scaling_laws(isoflop_runs: Sequence[Dataset], *, out: Writer, settings: Settings) -> Built:
    """A row a budget: its compute-optimal tokens and parameters; the law and the loss surface as files."""
    runs = isoflop_runs[0].read()
    law, surface = fit_isoflop(runs), fit_surface(runs)
    table = pa.Table.from_pylist([minimum.model_dump(exclude={"coefficients"}) for minimum in law.minima])
    found = {LAW: law.model_dump_json().encode()}
    if isinstance(surface, LossSurface):
        found[SURFACE] = surface.model_dump_json().encode()
    out.put("part-00000", Output(table, Counts.annotated(runs.num_rows), files=found))
    facts = {"method": law.method, "tokens exponent": law.exponent, "tokens coefficient": law.coefficient}
    notes = [*law.notes, *([] if SURFACE in found else [surface])]
    return ["part-00000"], facts | ({"notes": notes} if notes else {})


def read_law(scaling_laws: Dataset) -> ScalingLaw:
    return ScalingLaw.model_validate_json(files.read(scaling_laws.file(LAW)))


def read_surface(scaling_laws: Dataset) -> LossSurface | None:
    """None where the sweep was too small or too noisy for one: `notes` of the dataset's metrics say which."""
    if SURFACE not in (name.removeprefix("files/") for name in scaling_laws.files):
        return None
    return LossSurface.model_validate_json(files.read(scaling_laws.file(SURFACE)))


def build_training_plan(
    scaling_laws: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """One row: the model and tokens for the budget; the plan as a file."""
    words = vocabulary(tokenizer[0])
    train_tokens = sum(tokens_by_domain(token_shards[0]).values())
    plan = training_plan(read_law(scaling_laws[0]), settings, words.size, train_tokens, read_surface(scaling_laws[0]))
    row = {
        "budget": plan.budget,
        "parameters": plan.parameters,
        "tokens": plan.total_tokens,
        "layers": plan.model.layers,
        "d_model": plan.model.d_model,
        "epochs": plan.epochs,
        "learning_rate": plan.learning_rate,
        "predicted_loss": plan.predicted_loss and plan.predicted_loss.value,
        "predicted_loss_low": plan.predicted_loss and plan.predicted_loss.low,
        "predicted_loss_high": plan.predicted_loss and plan.predicted_loss.high,
    }
    content = plan.model_dump_json().encode()
    out.put("part-00000", Output(pa.Table.from_pylist([row]), Counts.annotated(1), files={PLAN: content}))
    return ["part-00000"], row | ({"notes": list(plan.notes)} if plan.notes else {})


def read_plan(plan: Dataset) -> TrainingPlan:
    return TrainingPlan.model_validate_json(files.read(plan.file(PLAN)))
