"""From runs over many mixtures to the one to train on: a law a domain, then the search within what the data can give.

What is minimised is a weighted held-out loss (Llama 3, section 3.1.2, weighs by key benchmarks). A share is bounded by
tokens at hand x epochs / tokens to train on: a small run never repeats a rare domain, the final one would.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.mix.data_mix import DOMAINS, capped_shares, settings_shares
from l3_platform.scaling.mixture import METHODS as LAWS
from l3_platform.scaling.mixture import MixtureError, MixtureLaw, best_mixture, fit_mixture_law
from l3_platform.scaling.mixture_runs import mean_losses, natural_mixture, shares_in
from l3_platform.settings import Settings

Floats = npt.NDArray[np.float64]
FOUND, NATURAL, SETTINGS = "found", "natural", "settings"  # the mixtures side by side
CANDIDATES = pa.schema(
    [
        ("mixture", pa.string()),
        ("domain_group", pa.string()),
        ("tokens_available", pa.int64()),
        ("most", pa.float64()),  # share above which the domain would be repeated more than mix.max_epochs times
        ("share", pa.float64()),
        ("weight", pa.float64()),  # of the domain's loss in the target; 0 where nothing of it is held out
        ("predicted_loss", pa.float64()),  # held out, nats a token, at the size of the runs; null without a law
    ]
)
METHODS = pa.schema(
    [
        ("domain_group", pa.string()),
        ("method", pa.string()),
        ("chosen", pa.bool_()),
        ("rank_correlation", pa.float64()),  # Spearman, on runs that the method had not seen
        ("error", pa.float64()),  # root mean square, nats a token
        ("spread", pa.float64()),  # standard deviation of the losses: the error of a law that knows nothing
    ]
)
UNSEEN = pa.schema(
    [("domain_group", pa.string()), ("mixture", pa.string()), ("seen", pa.float64()), ("predicted", pa.float64())]
)  # of the chosen method, on runs that it had not seen


@dataclass(frozen=True)
class Choice:
    """Tables of CANDIDATES, METHODS and UNSEEN, and what a person should know."""

    candidates: pa.Table
    methods: pa.Table
    unseen: pa.Table
    notes: tuple[str, ...] = ()


def choose_mixture(runs: pa.Table, available: Mapping[str, int], settings: Settings, methods: Sequence[str] = LAWS) -> Choice:
    """`runs` as in `mixture_runs.RUNS`; `available` are the training tokens of each domain.

    Raises MixtureError where too few runs are left to fit a law, or no domain of the target is held out.
    """
    natural = natural_mixture(available)
    domains = tuple(natural)
    total = settings.mixture.final_tokens or sum(available.values())
    most = np.array([settings.mix.max_epochs * available[domain] / total for domain in domains])
    mixtures = {row["mixture"]: shares_in(row) for row in runs.to_pylist()}
    losses = {domain: found for domain in domains if (found := mean_losses(runs, domain))}
    weights, notes = weights_of(settings, losses)
    laws = {
        domain: fit_mixture_law(_matrix([mixtures[name] for name in seen], domains), np.array(list(seen.values())), methods)
        for domain, seen in losses.items()
    }
    start = np.array(list(natural.values()))
    if most.sum() <= 1.0:
        notes.append(f"{total:,} tokens repeat every domain more than mix.max_epochs allows: only the natural mixture is even")
        found = start
    else:
        found, _ = best_mixture([(weight, laws[domain]) for domain, weight in weights.items() if weight], start, most)
    (asked,) = capped_shares(
        [settings_shares(settings.mix, "pretrain")],
        {domain: available.get(domain, 0) for domain in DOMAINS},
        settings.mix.max_epochs,
        [total],
    )
    sides = {FOUND: dict(zip(domains, found.tolist(), strict=True)), NATURAL: natural, SETTINGS: asked}
    rows = [
        {
            "mixture": mixture,
            "domain_group": domain,
            "tokens_available": available[domain],
            "most": min(1.0, float(bound)),
            "share": shares.get(domain, 0.0),
            "weight": weights.get(domain, 0.0),
            "predicted_loss": float(laws[domain].predict(_matrix([shares], domains))[0]) if domain in laws else None,
        }
        for mixture, shares in sides.items()
        for domain, bound in zip(domains, most, strict=True)
    ]
    return Choice(pa.Table.from_pylist(rows, schema=CANDIDATES), _methods(laws, losses), _unseen(laws, losses), tuple(notes))


def weights_of(settings: Settings, judged: Collection[str]) -> tuple[dict[str, float], list[str]]:
    """Weight of each domain that can be judged, made to sum to 1; and what a person should know. Raises MixtureError."""
    wanted = settings.mixture.target or settings_shares(settings.mix, "pretrain")
    unknown = sorted(set(wanted) - set(DOMAINS))
    if unknown:
        raise MixtureError(f"setting mixture.target: {unknown[0]!r} is none of {', '.join(DOMAINS)}")
    total = sum(wanted.get(domain, 0.0) for domain in judged)
    if not total:
        raise MixtureError("setting mixture.target: of no domain with a weight are there training tokens and held-out ones")
    blind = [domain for domain in DOMAINS if wanted.get(domain) and domain not in judged]
    notes = [f"{domain}: without training tokens or held-out ones, it has no part in the target" for domain in blind]
    return {domain: wanted.get(domain, 0.0) / total for domain in judged}, notes


def _matrix(mixtures: list[dict[str, float]], domains: tuple[str, ...]) -> Floats:
    return np.array([[shares.get(domain, 0.0) for domain in domains] for shares in mixtures])


def _methods(laws: Mapping[str, MixtureLaw], losses: Mapping[str, Mapping[str, float]]) -> pa.Table:
    rows = [
        {
            "domain_group": domain,
            "method": method,
            "chosen": method == law.method,
            "rank_correlation": law.rank_correlation[method],
            "error": law.error[method],
            "spread": float(np.std(list(losses[domain].values()))),
        }
        for domain, law in laws.items()
        for method in law.error
    ]
    return pa.Table.from_pylist(rows, schema=METHODS)


def _unseen(laws: Mapping[str, MixtureLaw], losses: Mapping[str, Mapping[str, float]]) -> pa.Table:
    rows = [
        {"domain_group": domain, "mixture": mixture, "seen": seen, "predicted": float(predicted)}
        for domain, law in laws.items()
        for (mixture, seen), predicted in zip(losses[domain].items(), law.unseen, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=UNSEEN)


def mixture_of(candidates: pa.Table, mixture: str) -> dict[str, float]:
    """Shares of one of the mixtures side by side."""
    return {row["domain_group"]: row["share"] for row in candidates.to_pylist() if row["mixture"] == mixture}


def target_weights(candidates: pa.Table) -> dict[str, float]:
    """Weight of each domain's loss in the target; domains without one left out."""
    return {row["domain_group"]: row["weight"] for row in candidates.to_pylist() if row["weight"]}


def predicted_target(candidates: pa.Table) -> dict[str, float]:
    """The target's predicted value of each mixture, nats a token."""
    totals: dict[str, float] = {}
    for row in candidates.to_pylist():
        if row["weight"]:
            totals[row["mixture"]] = totals.get(row["mixture"], 0.0) + row["weight"] * row["predicted_loss"]
    return totals
