"""Charts of curation for the cards, as PNG well under 100 kB: what each rule leaves, and who loses what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from l3_platform.orchestration.card import new_figure, png

KEPT, REMOVED, FAINT, INK = "#2f6f9f", "#c9792b", "#9db8cc", "#333333"
PALETTE = ("#c9792b", "#5b8e4b", "#a2485d", "#7a5c99", "#d1a93a", "#4c9a9a", "#8c6d4f")
OTHERS = "#b8b8b8"


def funnel(steps: Sequence[tuple[str, int]], unit: str = "records") -> bytes:
    """From top to bottom how many are left after each step; what a step removes stands beside its bar.

    `steps`: name and what is left. The first, and those in which nothing is removed, are totals.
    """
    figure, axes = new_figure(height=0.7 + 0.26 * len(steps), width=7.2)
    most = max(steps[0][1], 1)
    for place, (name, left) in enumerate(steps):
        removed = steps[place - 1][1] - left if place else 0
        total = removed == 0
        axes.barh(place, left, color=KEPT if total else FAINT, height=0.74)
        axes.barh(place, removed, left=left, color=REMOVED, edgecolor=REMOVED, linewidth=0.8, height=0.74)
        text = f"{left:,}" if total else f"−{removed:,}  ({_percent(removed / (left + removed))})"
        axes.text(left + removed + most * 0.012, place, text, va="center", fontsize=8, color=INK if total else REMOVED)
        axes.text(-most * 0.012, place, name, va="center", ha="right", fontsize=8, color=INK, weight="bold" if total else "normal")
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.set_xlim(0, most * 1.16)
    axes.set_xlabel(unit, fontsize=8)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return png(figure)


def removed(parts: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], most: int = len(PALETTE)) -> bytes:
    """A bar a group (source, language): the share of its documents that each reason removes; small reasons are one grey part.

    `parts`: group to reason to share of 1; `sizes`: documents of each group.
    """
    totals: dict[str, float] = {}
    for group, shares in parts.items():
        for reason, share in shares.items():
            totals[reason] = totals.get(reason, 0.0) + share * sizes[group]
    named = sorted(totals, key=lambda reason: -totals[reason])[:most]
    colors = dict(zip(named, PALETTE, strict=False))
    figure, axes = new_figure(height=1.5 + 0.28 * len(parts), width=7.2)
    for place, (_, shares) in enumerate(parts.items()):
        left = 0.0
        for reason in [*named, *sorted(set(shares) - set(named))]:
            share = shares.get(reason, 0.0)
            axes.barh(place, share, left=left, color=colors.get(reason, OTHERS), height=0.72)
            left += share
        axes.text(left, place, f" {_percent(left)}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(parts)), [f"{group}  ({sizes[group]:,})" for group in parts])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("share of documents removed", fontsize=8)
    axes.xaxis.set_major_formatter("{x:.0%}")
    keys = [axes.barh(0, 0, color=color) for color in [*colors.values(), *([OTHERS] if set(totals) - set(named) else [])]]
    names = [*named, *(["others"] if set(totals) - set(named) else [])]
    figure.legend(keys, names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def _percent(share: float) -> str:
    return "0" if share == 0 else "<0.1%" if share < 0.001 else f"{share:.1%}"
