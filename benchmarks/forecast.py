"""Downstream forecast on the OLMo ladder: ours beside the published two-step fit, in one run.

    python -m benchmarks.forecast FOLDER     # the folder of ladder runs, one CSV (or .csv.gz) a run

The published method (Bhagia et al. 2024, arXiv 2412.04403) is written anew from its description: L(N, D) by Huber loss
on the mean of the last five checkpoints; a sigmoid whose height, middle, steepness and upper end are free, by least
squares over all checkpoints but the first tenth (moving averages of five) and one ideal point (0, 1).
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.table import Table
from scipy import optimize

from l3_platform.scaling.downstream import Runs, back_test, fit_forecaster, read_ladder, share_nll
from l3_platform.scaling.parametric import fit_huber

PARAMS = {"190M": 190_354_176, "370M": 371_262_464, "760M": 758_220_288, "1B": 1_279_395_840, "3B": 3_171_208_396}
LENGTHS = ("1xC", "2xC", "5xC", "10xC")
SMALL = ("190M", "370M", "760M", "1B")
BACK_TESTS = {  # what is hidden: (sizes known, lengths known, sizes hidden, lengths hidden)
    "760M and up": (SMALL[:2], LENGTHS, ("760M", "1B", "3B"), LENGTHS),
    "1B and up": (SMALL[:3], LENGTHS, ("1B", "3B"), LENGTHS),
    "3B": (SMALL, LENGTHS, ("3B",), LENGTHS),
    "10xC, from 1xC and 2xC": (tuple(PARAMS), LENGTHS[:2], tuple(PARAMS), LENGTHS[3:]),
    "3B at 5xC and up, from 1xC and 2xC": (SMALL, LENGTHS[:2], ("3B",), LENGTHS[2:]),
    "1B and up at 5xC and up, from 1xC and 2xC": (SMALL[:3], LENGTHS[:2], ("1B", "3B"), LENGTHS[2:]),
}
TARGETS = {  # name: (parameters, tokens, file)
    "7B-4T": (6_887_575_552, 3_945_065_873_408, "peteish7_eval_anneal"),
    "13B-5T": (13_202_396_160, 5_000_088_518_656, "peteish13_eval_final"),
}
SINGLE = {
    "HellaSwag": "hellaswag_val_rc_5shot",
    "ARC-Challenge": "arc_challenge_test_rc_5shot",
    "ARC-Easy": "arc_easy_test_rc_5shot",
    "PIQA": "piqa_val_rc_5shot",
    "CommonsenseQA": "csqa_val_rc_5shot",
    "Social IQa": "socialiqa_val_rc_5shot",
    "OpenBookQA": "openbookqa_test_rc_5shot",
}
MMLU = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}  # shares of its questions
TASKS = {name: {key: 1.0} for name, key in SINGLE.items()} | {
    "MMLU": {f"mmlu_{part}_test_rc_5shot": share for part, share in MMLU.items()}
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--back-test", action="store_true", help="hide the largest or longest ladder runs instead; the targets stay unseen"
    )
    options = parser.parse_args()
    if options.back_test:
        show_back_test(options.folder)
        return
    for sizes in (SMALL, tuple(PARAMS)):
        show(options.folder, sizes)


def show(folder: Path, sizes: Sequence[str]) -> None:
    table = Table(title=f"Accuracy forecast from {sizes[0]} to {sizes[-1]} (points; error in brackets)")
    for heading in ("task", "target", "actual", "ours", "90 % interval", "published"):
        table.add_column(heading, justify="left" if heading in ("task", "target") else "right")
    errors: dict[str, list[float]] = {"ours": [], "published": []}
    covered = 0
    runs = [f"{size}-{length}" for size in sizes for length in LENGTHS]
    for task, known in ladders(folder, runs).items():
        forecaster = fit_forecaster(known)
        for target, (params, tokens, file) in TARGETS.items():
            actual = 100 * float(np.mean(measured(folder / file, task)[1][-5:]))
            ours = forecaster.at(params, tokens)
            published = 100 * as_published(read_ladder(known), known, params, tokens)
            errors["ours"].append(100 * ours.value - actual)
            errors["published"].append(published - actual)
            covered += 100 * ours.low <= actual <= 100 * ours.high
            interval = f"{100 * ours.low:.1f} to {100 * ours.high:.1f}"
            cells = (f"{value:.1f} ({value - actual:+.1f})" for value in (100 * ours.value, published))
            first, second = cells
            table.add_row(task, target, f"{actual:.1f}", first, interval, second)
    Console().print(table)
    for name, values in errors.items():
        arc = [abs(values[index]) for index in range(len(values)) if list(TASKS)[index // 2] == "ARC-Challenge"]
        print(f"{name}: mean absolute error {np.mean(np.abs(values)):.2f} points, ARC-Challenge at most {max(arc):.1f}")
    print(f"{covered} of {len(errors['ours'])} actual accuracies lie in our 90 % intervals")


def show_back_test(folder: Path) -> None:
    table = Table(title="Accuracy of hidden runs, forecast from the others (points)")
    for heading in ("hidden", "mean absolute error", "ARC-Challenge at most", "in 90 % interval"):
        table.add_column(heading, justify="left" if heading == "hidden" else "right")
    for title, (sizes, lengths, hidden_sizes, hidden_lengths) in BACK_TESTS.items():
        hidden = [f"{size}-{length}" for size in hidden_sizes for length in hidden_lengths]
        known = [f"{size}-{length}" for size in sizes for length in lengths]
        errors, covered = {}, []
        for task, checkpoints in ladders(folder, known + hidden).items():
            rows = back_test(checkpoints, hidden).to_pylist()
            errors[task] = [100 * abs(row["predicted"] - row["actual"]) for row in rows]
            covered += [row["low"] <= row["actual"] <= row["high"] for row in rows]
        error = np.mean(list(errors.values()))
        table.add_row(title, f"{error:.2f}", f"{max(errors['ARC-Challenge']):.1f}", f"{np.mean(covered):.0%}")
    Console().print(table)


def ladders(folder: Path, runs: Sequence[str]) -> dict[str, pa.Table]:
    """The checkpoints of every task with the NLL that the tasks share, as `fit_forecaster` wants them."""
    return share_nll({task: pa.concat_tables([checkpoints(folder, run, task) for run in runs]) for task in TASKS})


def checkpoints(folder: Path, run: str, task: str) -> pa.Table:
    nll, accuracy, tokens = measured(folder / run, task)
    params = np.full(len(nll), float(PARAMS[run.split("-")[0]]))
    return pa.table({"run": [run] * len(nll), "params": params, "tokens": tokens, "nll": nll, "accuracy": accuracy})


def measured(stem: Path, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits a byte of the right answer, accuracy and tokens of every checkpoint of a run."""
    table = read(stem)
    total = np.zeros((2, table.num_rows))
    for key, share in TASKS[task].items():
        for row, column in enumerate((f"eval/downstream_bpb/{key}_bpb", f"eval/downstream/{key}_len_norm")):
            total[row] += share * np.asarray(table[column], np.float64)
    tokens = table["throughput/total_tokens"] if "throughput/total_tokens" in table.column_names else table["_step"]
    return total[0], total[1], np.asarray(tokens, np.float64)


@functools.cache
def read(stem: Path) -> pa.Table:
    packed = stem.with_name(stem.name + ".csv.gz")
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else stem.with_name(stem.name + ".csv").read_bytes()
    return pyarrow.csv.read_csv(io.BytesIO(content))


def as_published(runs: Runs, checkpoints: pa.Table, params: float, tokens: float) -> float:
    (law,) = fit_huber(runs.params, runs.tokens, runs.nll)
    nll, accuracy = [np.zeros(1)], [np.ones(1)]
    for name in dict.fromkeys(checkpoints["run"].to_pylist()):
        run = checkpoints.filter(pa.array([one == name for one in checkpoints["run"].to_pylist()])).sort_by("tokens")
        skipped = int(np.ceil(0.1 * run.num_rows))
        for column, kept in (("nll", nll), ("accuracy", accuracy)):
            kept.append(_moving_average(np.asarray(run[column])[skipped:], 5))

    def sigmoid(x, height, middle, steepness, top):
        return height / (1 + np.exp(-steepness * (x - middle))) + top

    fitted, _ = optimize.curve_fit(
        sigmoid,
        np.concatenate(nll),
        np.concatenate(accuracy),
        p0=[-0.75, 0.9, 3.0, 1.0],
        bounds=([-1.0, 0.0, 0.0, 0.0], [0.0, np.inf, np.inf, 1.0]),
        maxfev=500_000,
    )
    return float(sigmoid(float(law.loss(params, tokens)), *fitted))


def _moving_average(values: np.ndarray, window: int) -> np.ndarray:
    sums = np.cumsum(np.r_[0.0, values])
    counts = np.minimum(np.arange(1, len(values) + 1), window)
    ends = np.arange(1, len(values) + 1)
    return (sums[ends] - sums[ends - counts]) / counts


if __name__ == "__main__":
    main()
