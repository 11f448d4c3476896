"""The cards of the mixture sweep: mixtures side by side, how well the law predicts, and what validation saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from l3_platform.mix.data_mix import DOMAINS
from l3_platform.orchestration.card import Card, failures, new_figure, png
from l3_platform.orchestration.charts import INK, KEPT, PALETTE, REMOVED
from l3_platform.orchestration.stage import Made
from l3_platform.scaling.mixture_build import read_differences, read_fits
from l3_platform.scaling.mixture_choice import predicted_target
from l3_platform.scaling.mixture_runs import shares_in
from l3_platform.scaling.mixture_validation import Difference

COLORS = dict(zip(DOMAINS, (KEPT, *PALETTE), strict=False))


def show_runs(made: Made) -> Card:
    return Card(samples={"runs": made.dataset.read(), **failures(made.dataset)})


def show_law(made: Made) -> Card:
    """Shares and predicted losses of each mixture, the methods' scores on unseen runs, and two charts."""
    candidates = made.dataset.read()
    if not candidates.num_rows:
        return Card(facts={"sweep": "off: mixture.runs is 0"})
    methods, unseen = read_fits(made.dataset)
    mixtures: dict[str, dict[str, float]] = {}
    for row in candidates.to_pylist():
        mixtures.setdefault(row["mixture"], {})[row["domain_group"]] = row["share"]
    return Card(
        samples={"mixtures": candidates, "methods, on runs that they had not seen": methods},
        chart=mixture_bars(mixtures, predicted_target(candidates)),
        charts={"predicted and seen": predicted_and_seen(unseen)},
    )


def show_validation(made: Made) -> Card:
    """The mean difference of each pair of mixtures in words and as a chart; every run below."""
    differences = read_differences(made.dataset)
    if not differences:
        return Card(facts={"sweep": "off: mixture.runs is 0"}, samples=failures(made.dataset))
    runs = made.dataset.read()
    mixtures = {row["mixture"]: {name: share for name, share in shares_in(row).items() if share} for row in runs.to_pylist()}
    return Card(
        samples={
            "differences of the target": pa.table({"seen": [one.in_words for one in differences]}),
            "runs": runs,
            **failures(made.dataset),
        },
        chart=difference_chart(differences),
        charts={"mixtures": mixture_bars(mixtures, made.dataset.manifest.metrics["target"])},
    )


def mixture_bars(mixtures: Mapping[str, Mapping[str, float]], target: Mapping[str, float]) -> bytes:
    """A bar a mixture, cut into the domains' shares; the target (nats a token) stands beside it."""
    figure, axes = new_figure(height=1.3 + 0.32 * len(mixtures), width=7.2)
    for place, (name, shares) in enumerate(mixtures.items()):
        left = 0.0
        for domain in DOMAINS:
            share = shares.get(domain, 0.0)
            axes.barh(place, share, left=left, color=COLORS[domain], height=0.72)
            if share >= 0.05:
                axes.text(left + share / 2, place, f"{share:.0%}", va="center", ha="center", fontsize=8, color="white")
            left += share
        if name in target:
            axes.text(1.01, place, f"{target[name]:.4f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(mixtures)), list(mixtures))
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.13)
    axes.set_xlabel("share of training tokens; at the end, the target in nats a token", fontsize=8)
    axes.xaxis.set_major_formatter("{x:.0%}")
    figure.legend(
        [axes.barh(0, 0, color=COLORS[domain]) for domain in DOMAINS], DOMAINS, loc="outside upper center", ncols=4, fontsize=8,
        frameon=False,
    )  # fmt: skip
    return png(figure)


def predicted_and_seen(unseen: pa.Table) -> bytes:
    """Loss of each run as the law said before it had seen it, over the loss that the run had; a colour a domain."""
    figure, axes = new_figure(height=3.2)
    seen, predicted = unseen["seen"].to_numpy(), unseen["predicted"].to_numpy()
    names = np.array(unseen["domain_group"].to_pylist())
    for domain in DOMAINS:
        rows = names == domain
        if rows.any():
            axes.plot(seen[rows], predicted[rows], "o", color=COLORS[domain], markersize=3.5, alpha=0.8, label=domain)
    ends = [min(seen.min(), predicted.min()), max(seen.max(), predicted.max())]
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.set_xlabel("held-out loss, nats a token", fontsize=8)
    axes.set_ylabel("predicted, run not seen", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def difference_chart(differences: Sequence[Difference]) -> bytes:
    """Mean difference and interval of each pair; what lies left of zero is better."""
    rows = []
    for one in differences:
        color = KEPT if one.high is not None and one.high < 0 else REMOVED if one.low is not None and one.low > 0 else INK
        rows.append((f"{one.mixture} − {one.against}", color, one))
    return interval_chart(rows, "difference of the target, nats a token (mean and 90 % interval)")


class Interval(Protocol):
    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def interval_chart(rows: Sequence[tuple[str, str, Interval]], label: str) -> bytes:
    """A line a row, from the top: its name, its colour, its mean with the interval where there is one."""
    figure, axes = new_figure(height=0.9 + 0.34 * len(rows), width=7.2)
    for place, (_, color, one) in enumerate(rows):
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot(one.mean, place, "o", color=color, markersize=5)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=8)
    return png(figure)
