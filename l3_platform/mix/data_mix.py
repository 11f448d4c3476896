"""From the shares we want and the tokens we have to the shares we train on (Llama 3, sections 3.1.2, 3.4.1 and 3.4.3).

Shares may change on the way: a mixture holds from its `from_tokens` to the next one's. Over a phase a domain is repeated
`max_epochs` times at most; what it cannot fill goes to the others in proportion to their targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pyarrow as pa

from l3_platform.settings import Mix

DOMAINS = ("general", "math", "code", "multilingual")
PHASES = ("pretrain", "anneal")
SCHEMA = pa.schema(
    [
        ("phase", pa.string()),
        ("from_tokens", pa.int64()),  # of the phase: the mixture holds from here to the next one's
        ("domain_group", pa.string()),
        ("tokens_available", pa.int64()),
        ("target_share", pa.float64()),  # of the settings or the law, made to sum to 1
        ("share", pa.float64()),  # after the cap; sums to 1 over the mixture
        ("tokens", pa.int64()),  # trained on under the mixture; sums to the phase's tokens
        ("epochs", pa.float64()),  # tokens / tokens_available, 0 where there are none
    ]
)

Shares = Mapping[str, float]


def data_mix(
    tokens_by_domain: Mapping[str, int], mix: Mix, total_tokens: int, anneal_tokens: int, found: Shares | None = None
) -> pa.Table:
    """A row a phase, mixture and domain; `tokens_by_domain` are the training tokens at hand.

    `found` is the mixture to pre-train on, where a law has found one: it stands for the shares of the settings.

    Where even every domain at its cap is too little for the phase, all are repeated equally often, beyond the cap: the
    `epochs` column shows it. A domain without tokens gets share 0. Raises ValueError when no domain with a target has
    any tokens, or on a domain that is none of the four.
    """
    unknown = sorted(set(tokens_by_domain) - set(DOMAINS))
    if unknown:
        raise ValueError(f"data_mix: domain_group {unknown[0]!r} is none of {', '.join(DOMAINS)}")
    available = {domain: int(tokens_by_domain.get(domain, 0)) for domain in DOMAINS}
    targets = {"pretrain": _pretrain_targets(mix, found), "anneal": {0: settings_shares(mix, "anneal")}}
    totals = dict(zip(PHASES, (total_tokens, anneal_tokens), strict=True))
    rows = []
    for phase, total in totals.items():
        lengths = _lengths(list(targets[phase]), total)
        shares = capped_shares(list(targets[phase].values()), available, mix.max_epochs, lengths)
        for (start, wanted), got, length in zip(targets[phase].items(), shares, lengths, strict=True):
            tokens = _apportion(got, length)
            rows += [
                {
                    "phase": phase,
                    "from_tokens": start,
                    "domain_group": domain,
                    "tokens_available": available[domain],
                    "target_share": wanted[domain],
                    "share": got[domain],
                    "tokens": tokens[domain],
                    "epochs": tokens[domain] / available[domain] if available[domain] else 0.0,
                }
                for domain in DOMAINS
            ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def settings_shares(mix: Mix, phase: str) -> Shares:
    """What the settings ask for in a phase, from its start, made to sum to 1. Raises ValueError on a negative share, or where all
    are 0."""
    prefix = "anneal_" if phase == "anneal" else ""
    return _normal(_weights(mix, prefix), f"mix.{prefix}")


def _pretrain_targets(mix: Mix, found: Shares | None) -> dict[int, Shares]:
    """Targets of each mixture by its first token; what the law has found stands for the settings until a change names a domain."""
    weights = dict(found) if found else _weights(mix, "")
    targets = {0: _normal(weights, "mix.")}
    for number, change in enumerate(mix.changes):
        if change.from_tokens <= max(targets):
            raise ValueError(f"setting mix.changes: from_tokens must increase, and {change.from_tokens} follows {max(targets)}")
        weights |= change.model_dump(exclude={"from_tokens"}, exclude_none=True)
        targets[change.from_tokens] = _normal(weights, f"mix.changes[{number}].")
    return targets


def _weights(mix: Mix, prefix: str) -> dict[str, float]:
    return {domain: float(getattr(mix, prefix + domain)) for domain in DOMAINS}


def _normal(weights: Shares, setting: str) -> Shares:
    negative = [domain for domain in DOMAINS if weights[domain] < 0]
    if negative:
        raise ValueError(f"setting {setting}{negative[0]}: a share cannot be negative")
    total = sum(weights.values())
    if not total:
        raise ValueError(f"settings {setting}*: the shares of the mix are all 0; give one domain a share")
    return {domain: weight / total for domain, weight in weights.items()}


def _lengths(starts: Sequence[int], total: int) -> list[int]:
    """Tokens of each mixture within the phase; those that begin after its end have none."""
    return [max(0, min(until, total) - start) for start, until in pairwise([*starts, max(total, *starts)])]


def capped_shares(
    targets: Sequence[Shares], available: Mapping[str, int], max_epochs: float, lengths: Sequence[int]
) -> list[dict[str, float]]:
    """Water-filling: shares of each mixture in proportion to its targets; each mixture's sum to 1.

    No domain takes more than `max_epochs * available` over all mixtures, of `lengths` tokens: one that would is scaled down in
    all of them alike, so that what was to be upsampled late still is. A mixture whose every domain is scaled down is filled by
    them all the same. Raises ValueError when some mixture's domains have no tokens.
    """
    usable = [domain for domain in available if available[domain] > 0 and any(wanted[domain] > 0 for wanted in targets)]
    if not all(any(wanted[domain] > 0 for domain in usable) for wanted in targets):
        have = ", ".join(f"{domain} {count:,}" for domain, count in available.items())
        raise ValueError(
            f"data_mix: no domain with a share has any training tokens ({have}); check token_shards, or the mix.* shares"
        )
    most = {domain: max_epochs * available[domain] for domain in usable}
    if sum(most.values()) <= sum(lengths):
        return [_by_available(wanted, available) for wanted in targets]
    shares = [dict.fromkeys(available, 0.0) for _ in targets]
    free = list(usable)
    while True:
        wanted = [_fill(own, target, free) for own, target in zip(shares, targets, strict=True)]
        taken = {domain: sum(own[domain] * length for own, length in zip(wanted, lengths, strict=True)) for domain in free}
        full = [domain for domain in free if taken[domain] > most[domain]]
        if len(full) in (0, len(free)):  # all at once only by rounding
            return [_scaled_to_one(own) for own in wanted]
        for own, want in zip(shares, wanted, strict=True):
            own |= {domain: want[domain] * most[domain] / taken[domain] for domain in full}
        free = [domain for domain in free if domain not in full]


def _by_available(wanted: Shares, available: Mapping[str, int]) -> dict[str, float]:
    """Every domain with a target equally often."""
    tokens = {domain: count if wanted[domain] > 0 else 0 for domain, count in available.items()}
    return {domain: count / sum(tokens.values()) for domain, count in tokens.items()}


def _fill(own: Shares, target: Shares, free: Sequence[str]) -> dict[str, float]:
    """What the domains at their cap leave, to the free ones in proportion to their targets."""
    left = 1.0 - sum(share for domain, share in own.items() if domain not in free)
    weight = sum(target[domain] for domain in free)
    return dict(own) | {domain: left * target[domain] / weight if weight else 0.0 for domain in free}


def _scaled_to_one(own: Shares) -> dict[str, float]:
    total = sum(own.values())
    return {domain: share / total for domain, share in own.items()}


def _apportion(shares: Shares, total: int) -> dict[str, int]:
    """Whole tokens that sum to `total`: the largest remainders are rounded up."""
    exact = {domain: share * total for domain, share in shares.items()}
    tokens = {domain: int(value) for domain, value in exact.items()}
    by_remainder = sorted(exact, key=lambda domain: tokens[domain] - exact[domain])
    for domain in by_remainder[: total - sum(tokens.values())]:
        tokens[domain] += 1
    return tokens
