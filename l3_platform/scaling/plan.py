"""From the law and a budget to the model to train: shape, tokens, learning rate, ramp (Llama 3, section 3.2.1)."""

from __future__ import annotations

import dataclasses
import math

from pydantic import BaseModel, ConfigDict

from l3_platform.model.config import ModelConfig, parameters, shape_for
from l3_platform.model.preset import preset
from l3_platform.scaling.laws import ScalingLaw
from l3_platform.scaling.surface import LossSurface
from l3_platform.settings import Settings, SettingsError, Stage

MAX_LAYERS = 256
OFF_OPTIMUM = 1.25  # a size further than this factor from the optimum is worth a word
FAR = 100.0  # so is a budget this many times that of the largest run


class Predicted(BaseModel):
    """Loss of the planned run in nats a token, and the 90 % interval that it is to fall in."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class TrainingPlan(BaseModel):
    """What `pretrained` trains. Written and read as JSON by pydantic's methods."""

    model_config = ConfigDict(frozen=True)

    budget: float  # FLOPs asked for
    law: str  # the law's method
    optimal_tokens: float
    optimal_parameters: float
    model: ModelConfig
    parameters: int
    total_tokens: int  # 6 · parameters · total_tokens = budget, to a sequence
    flops: float
    epochs: float  # total_tokens over the training tokens at hand
    learning_rate: float
    warmup_tokens: int
    ramp: tuple[Stage, ...]
    predicted_loss: Predicted | None  # held out; None where the sweep predicts nothing, with the reason in `notes`
    notes: tuple[str, ...] = ()


def training_plan(
    law: ScalingLaw, settings: Settings, vocab_size: int, train_tokens: int, surface: LossSurface | None = None
) -> TrainingPlan:
    """The plan for `train.budget_flops`. `model.preset` fixes the shape, else it is the one nearest to the optimum.

    `train_tokens` are those at hand for one epoch; `surface` predicts the loss. Raises SettingsError for an unknown preset, a
    budget that does not pay for one sequence of the model, or a cosine that ends before the run.
    """
    budget = settings.train.budget_flops
    optimal_tokens, optimal_parameters = law.at(budget)
    model = preset(settings, vocab_size) if settings.model.preset else _nearest(optimal_parameters, settings, vocab_size)
    count = parameters(model)
    sequence = max(stage.seq_len for stage in settings.train.ramp)
    total_tokens = int(budget / (6.0 * count)) // sequence * sequence
    if total_tokens < sequence:
        raise SettingsError(
            f"setting train.budget_flops: {budget:.3g} FLOPs do not pay for one sequence of {sequence} tokens on a "
            f"model of {count:,} parameters (6·N·D = {6.0 * count * sequence:.3g}); raise it, or choose a smaller model"
        )
    if 0 < settings.train.cosine_tokens < total_tokens:
        raise SettingsError(
            f"setting train.cosine_tokens: a cosine of {settings.train.cosine_tokens:,} tokens ends before the plan's "
            f"{total_tokens:,}; raise it, or set it to 0, which is the whole run"
        )
    ramp = tuple(stage for stage in settings.train.ramp if stage.from_tokens < total_tokens)
    plan = TrainingPlan(
        budget=budget,
        law=law.method,
        optimal_tokens=optimal_tokens,
        optimal_parameters=optimal_parameters,
        model=model,
        parameters=count,
        total_tokens=total_tokens,
        flops=6.0 * count * total_tokens,
        epochs=total_tokens / train_tokens if train_tokens else math.inf,
        learning_rate=settings.train.learning_rate,
        warmup_tokens=min(settings.train.warmup_tokens, total_tokens),
        ramp=ramp,
        predicted_loss=_predicted(surface, count, total_tokens),
    )
    return plan.model_copy(update={"notes": tuple(_notes(plan, law, settings))})


def _nearest(target: float, settings: Settings, vocab_size: int) -> ModelConfig:
    """The shape whose parameter count is nearest to `target`, in logs, over all depths at `scaling.aspect`."""
    shapes = [candidate(layers, settings, vocab_size) for layers in range(1, MAX_LAYERS + 1)]
    return min(shapes, key=lambda shape: (abs(math.log(parameters(shape) / target)), shape.layers))


def candidate(layers: int, settings: Settings, vocab_size: int) -> ModelConfig:
    """The shape of a depth: the same family for the sweep and for the plan."""
    shape = shape_for(layers, settings.scaling.aspect, settings.model.head_dim, settings.model.kv_group, vocab_size)
    return dataclasses.replace(shape, rope_theta=settings.model.rope_theta, norm_eps=settings.model.norm_eps)


def _predicted(surface: LossSurface | None, params: int, tokens: int) -> Predicted | None:
    if surface is None:
        return None
    value, low, high = surface.predict(params, tokens)
    return Predicted(value=value, low=low, high=high)


def _notes(plan: TrainingPlan, law: ScalingLaw, settings: Settings) -> list[str]:
    notes = []
    if law.method == "fallback":
        notes.append(f"the law is a fallback: {law.notes[-1]}")
    interval = law.interval(plan.budget)
    if interval:
        notes.append(f"optimal tokens {plan.optimal_tokens:.3g}, 90 % of resamples {interval[0]:.3g} to {interval[1]:.3g}")
    largest = max((minimum.budget for minimum in law.usable), default=0.0)
    if largest and plan.budget > FAR * largest:
        notes.append(f"the budget is {plan.budget / largest:,.0f} times that of the largest run that the law rests on")
    ratio = plan.parameters / plan.optimal_parameters
    if max(ratio, 1 / ratio) > OFF_OPTIMUM:
        source = f"preset {settings.model.preset}" if settings.model.preset else "the nearest shape"
        notes.append(f"{source} has {plan.parameters:,} parameters, {ratio:.2f} times the optimum")
    if plan.epochs > settings.mix.max_epochs:
        notes.append(
            f"{plan.total_tokens:,} tokens repeat the data {plan.epochs:.1f} times, above mix.max_epochs "
            f"{settings.mix.max_epochs:g}: bring more data or lower train.budget_flops"
        )
    unused = len(settings.train.ramp) - len(plan.ramp)
    if unused:
        notes.append(f"{unused} stage(s) of train.ramp begin after the last token and are left out")
    if settings.train.warmup_tokens > plan.total_tokens / 2:
        notes.append(f"warm-up takes {plan.warmup_tokens:,} of {plan.total_tokens:,} tokens: lower train.warmup_tokens")
    return notes
