"""Which domain each unit of a run is drawn from, by shares that may change on the way (Llama 3, section 3.4.1).

Low-discrepancy: every prefix of a run holds the shares to within a few units. Both directions are arithmetic on integers:
`place` says what a unit is, `unit_of` where the n-th unit of a domain lies. A change begins with the next whole unit, and
each domain goes on where it stood.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from l3_platform.train.permutation import key_of

_ONE = 1 << 32  # shares and phases as integers over 2^32: exact at any position, unlike floats past 2^53


class Mixture(BaseModel):
    """From token `from_tokens` of the run on, domains in these shares, which need not sum to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_tokens: int = Field(default=0, ge=0)
    shares: Mapping[str, float]

    @property
    def proportions(self) -> dict[str, float]:
        """Those above 0, scaled to sum to 1."""
        total = sum(self.shares.values())
        return {domain: share / total for domain, share in sorted(self.shares.items()) if share > 0}


class Interleave:
    """`domains` are those with a share in any of the mixtures, which are in the order of training.

    Units count from token `start` of the run; `before` are the units of each domain that came before it.
    """

    def __init__(
        self, mixtures: Sequence[Mixture], unit: int, seed: int, start: int = 0, before: Mapping[str, int] | None = None
    ) -> None:
        self.domains = sorted({domain for mixture in mixtures for domain, share in mixture.shares.items() if share > 0})
        self._legs: list[_Leg] = []
        counts = dict.fromkeys(self.domains, 0) | {domain: (before or {}).get(domain, 0) for domain in self.domains}
        for mixture in mixtures:
            first = -(-max(0, mixture.from_tokens - start) // unit)
            if self._legs:
                counts = self._legs[-1].before_unit(first)
            self._legs.append(_leg(first, counts, mixture.shares, seed))
        self._firsts = [leg.first for leg in self._legs]

    def place(self, unit: int) -> tuple[str, int]:
        """The unit's domain, and how many units of it come before."""
        return self._legs[bisect_right(self._firsts, unit) - 1].place(unit)

    def before(self, unit: int) -> dict[str, int]:
        """How many of the first `unit` units each domain has."""
        return self._legs[bisect_right(self._firsts, unit) - 1].before_unit(unit)

    def unit_of(self, domain: str, number: int) -> int | None:
        """The unit that `place` names so; None where it came before the start, or never comes, since the domain
        has no share in the end."""
        if number < self._legs[0].before[domain]:
            return None
        following = [leg.before[domain] for leg in self._legs[1:]]
        return self._legs[bisect_right(following, number)].unit_of(domain, number)


@dataclass(frozen=True)
class _Leg:
    """Units from `first` on under one mixture: a chain of two-way splits, each taking a share of what the ones before it
    leave. `before` are the units of each domain that the earlier legs hold."""

    first: int
    before: Mapping[str, int]
    splits: Mapping[str, tuple[int, int]]  # share of what is left and phase, over 2^32; the last takes all

    def place(self, unit: int) -> tuple[str, int]:
        left = unit - self.first
        for domain, (split, phase) in self.splits.items():
            taken = (left * split + phase) // _ONE
            if ((left + 1) * split + phase) // _ONE > taken:
                return domain, self.before[domain] + taken
            left -= taken
        raise AssertionError("the last domain takes every unit that reaches it")

    def before_unit(self, unit: int) -> dict[str, int]:
        left, found = unit - self.first, dict(self.before)
        for domain, (split, phase) in self.splits.items():
            taken = (left * split + phase) // _ONE
            found[domain] += taken
            left -= taken
        return found

    def unit_of(self, domain: str, number: int) -> int | None:
        if domain not in self.splits:
            return None
        chain = list(self.splits.items())
        at = [name for name, _ in chain].index(domain)
        split, phase = chain[at][1]
        # The first place at which the domain has taken one more than `number - before`.
        place = -((phase - (number - self.before[domain] + 1) * _ONE) // split) - 1
        for _, (split, phase) in reversed(chain[:at]):
            place = (place * _ONE + phase) // (_ONE - split)  # the place-th that this split leaves
        return self.first + place


def _leg(first: int, before: Mapping[str, int], shares: Mapping[str, float], seed: int) -> _Leg:
    domains = sorted(domain for domain, share in shares.items() if share > 0)
    splits: dict[str, tuple[int, int]] = {}
    for at, domain in enumerate(domains):
        left = sum(shares[later] for later in domains[at:])
        split = min(max(round(shares[domain] / left * _ONE), 1), _ONE - 1) if domain != domains[-1] else _ONE
        splits[domain] = split, key_of(seed, f"phase of {domain}") % _ONE
    return _Leg(first, dict(before), splits)
