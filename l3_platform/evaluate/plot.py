"""What annealing changed, domain by domain, in one picture."""

from __future__ import annotations

import io

import pyarrow as pa


def annealing_chart(losses: pa.Table, before: str, after: str) -> bytes:
    """PNG of under 100 kB: bits a byte of models `before` and `after` in `losses`, the unigram baseline as a line.

    Raises ValueError when `losses` has no row of one of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = losses.to_pylist()
    by_model = {name: {r["domain_group"]: r for r in rows if r["model"] == name} for name in (before, after)}
    for name, own in by_model.items():
        if not own:
            known = ", ".join(dict.fromkeys(row["model"] for row in rows)) or "none"
            raise ValueError(f"annealing chart: the losses have no model {name!r}; they have {known}")
    domains = list(by_model[before])
    figure = Figure(figsize=(7.0, 3.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for offset, (name, colour) in zip((-0.2, 0.2), ((before, "#9db4c0"), (after, "#c1121f")), strict=True):
        heights = [by_model[name][domain]["bits_per_byte"] for domain in domains]
        bars = axes.bar([place + offset for place in range(len(domains))], heights, 0.38, color=colour, label=name)
        axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=1)
    for place, domain in enumerate(domains):
        unigram = by_model[before][domain]["unigram_bits_per_byte"]
        label = "unigram" if place == 0 else None
        axes.plot([place - 0.42, place + 0.42], [unigram] * 2, "--", color="black", linewidth=1, label=label)
    axes.set_xticks(range(len(domains)), domains)
    axes.set(ylabel="held-out bits a byte", title="Before and after annealing")
    axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # the version of matplotlib is no part of the result
    return png.getvalue()


def needle_chart(cells: pa.Table, chance: float) -> bytes:
    """PNG of under 100 kB: share of needles found by length of the text and depth of the needle, `CELLS` of `needle`.

    The scale runs from `chance`, what blind choice finds, to all. Raises ValueError where `cells` is empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {(row["length"], row["depth"]): row["accuracy"] for row in cells.to_pylist()}
    if not found:
        raise ValueError("needle chart: nothing was asked")
    lengths, depths = sorted({length for length, _ in found}), sorted({depth for _, depth in found})
    figure = Figure(figsize=(1.9 + 0.75 * len(lengths), 1.3 + 0.32 * len(depths)), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    grid = [[found.get((length, depth), float("nan")) for length in lengths] for depth in depths]
    image = axes.imshow(grid, cmap="viridis", vmin=min(chance, *found.values()), vmax=1.0, aspect="auto")
    for row, line in enumerate(grid):
        for column, share in enumerate(line):
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color="white" if share < 0.7 else "black")
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=8)
    axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=8)
    axes.set_xlabel("tokens of text", fontsize=8)
    axes.set_ylabel("depth of the needle", fontsize=8)
    axes.set_title(f"needles found (blindly {chance:.0%})", fontsize=9)
    figure.colorbar(image, format="{x:.0%}").ax.tick_params(labelsize=7)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()
