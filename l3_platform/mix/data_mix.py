"""From the shares we want and the tokens we have to the shares we train on (Llama 3, sections 3.1.2 and 3.4.3).

A domain is repeated `max_epochs` times at most; what it cannot fill goes to the others in proportion to their targets.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from l3_platform.settings import Mix

DOMAINS = ("general", "math", "code", "multilingual")
PHASES = ("pretrain", "anneal")
SCHEMA = pa.schema(
    [
        ("phase", pa.string()),
        ("domain_group", pa.string()),
        ("tokens_available", pa.int64()),
        ("target_share", pa.float64()),  # of the settings or the law, made to sum to 1
        ("share", pa.float64()),  # after the cap; sums to 1 over the phase
        ("tokens", pa.int64()),  # trained on in the phase; sums to the phase's tokens
        ("epochs", pa.float64()),  # tokens / tokens_available, 0 where there are none
    ]
)


def data_mix(
    tokens_by_domain: Mapping[str, int],
    mix: Mix,
    total_tokens: int,
    anneal_tokens: int,
    found: Mapping[str, float] | None = None,
) -> pa.Table:
    """A row a phase and domain; `tokens_by_domain` are the training tokens at hand.

    `found` is the mixture to pre-train on, where a law has found one: it stands for the shares of the settings.

    Where even every domain at its cap is too little for the phase, all are repeated equally often, beyond the cap: the
    `epochs` column shows it. A domain without tokens gets share 0. Raises ValueError when no domain with a target has
    any tokens, or on a domain that is none of the four.
    """
    unknown = sorted(set(tokens_by_domain) - set(DOMAINS))
    if unknown:
        raise ValueError(f"data_mix: domain_group {unknown[0]!r} is none of {', '.join(DOMAINS)}")
    available = {domain: int(tokens_by_domain.get(domain, 0)) for domain in DOMAINS}
    rows = []
    for phase, total in zip(PHASES, (total_tokens, anneal_tokens), strict=True):
        targets = dict(found) if found and phase == "pretrain" else settings_shares(mix, phase)
        shares = capped_shares(targets, available, mix.max_epochs, total)
        tokens = _apportion(shares, total)
        rows += [
            {
                "phase": phase,
                "domain_group": domain,
                "tokens_available": available[domain],
                "target_share": targets[domain],
                "share": shares[domain],
                "tokens": tokens[domain],
                "epochs": tokens[domain] / available[domain] if available[domain] else 0.0,
            }
            for domain in DOMAINS
        ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def settings_shares(mix: Mix, phase: str) -> dict[str, float]:
    """What the settings ask for in a phase, made to sum to 1. Raises ValueError on a negative share, or where all are 0."""
    prefix = "anneal_" if phase == "anneal" else ""
    weights = {domain: float(getattr(mix, prefix + domain)) for domain in DOMAINS}
    negative = [domain for domain in DOMAINS if weights[domain] < 0]
    if negative:
        raise ValueError(f"setting mix.{prefix}{negative[0]}: a share cannot be negative")
    total = sum(weights.values())
    if not total:
        raise ValueError(f"settings mix.{prefix}*: the shares of the {phase} mix are all 0; give one domain a share")
    return {domain: weight / total for domain, weight in weights.items()}


def capped_shares(targets: Mapping[str, float], available: Mapping[str, int], max_epochs: float, total: int) -> dict[str, float]:
    """Water-filling: shares in proportion to the targets, none above `max_epochs * available / total`; they sum to 1.

    Raises ValueError when no domain with a target has tokens.
    """
    usable = [domain for domain in targets if targets[domain] > 0 and available[domain] > 0]
    if not usable:
        have = ", ".join(f"{domain} {available[domain]:,}" for domain in targets)
        raise ValueError(
            f"data_mix: no domain with a share has any training tokens ({have}); check token_shards, or the mix.* shares"
        )
    ceiling = {domain: max_epochs * available[domain] / max(total, 1) for domain in usable}
    if sum(ceiling.values()) <= 1.0:
        tokens = sum(available[domain] for domain in usable)
        return {domain: available[domain] / tokens if domain in usable else 0.0 for domain in targets}
    shares = dict.fromkeys(targets, 0.0)
    free = list(usable)
    while True:
        left = 1.0 - sum(shares[domain] for domain in usable if domain not in free)
        weight = sum(targets[domain] for domain in free)
        wanted = {domain: left * targets[domain] / weight for domain in free}
        full = [domain for domain in free if wanted[domain] > ceiling[domain]]
        if len(full) in (0, len(free)):  # all at once only by rounding
            return shares | wanted
        shares |= {domain: ceiling[domain] for domain in full}
        free = [domain for domain in free if domain not in full]


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole tokens that sum to `total`: the largest remainders are rounded up."""
    exact = {domain: share * total for domain, share in shares.items()}
    tokens = {domain: int(value) for domain, value in exact.items()}
    by_remainder = sorted(exact, key=lambda domain: tokens[domain] - exact[domain])
    for domain in by_remainder[: total - sum(tokens.values())]:
        tokens[domain] += 1
    return tokens
