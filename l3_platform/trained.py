"""What a person means by a checkpoint: a step's folder, a run's, an exported model or an asset; and the data behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from l3_platform.lineage import Catalog
from l3_platform.settings import home, nearest
from l3_platform.store import MissingDataset, StoreError, files
from l3_platform.train import ledger
from l3_platform.train.data_plan import FILE, DataPlan, plans_in, read_plans
from l3_platform.train.job import RESULT_FILE, TrainResult, run_folder

ASSETS = ("pretrained", "long_context", "annealed")


@dataclass(frozen=True)
class Phase:
    """A run that the weights went through: its data up to step `step`; `run` is the folder of its ledger, if it is here."""

    plan: DataPlan
    step: int
    run: Path | None


@dataclass(frozen=True)
class Trained:
    """`name` as a person knows it; phases in the order of training, of which only the last may be unfinished. `skipped`: tokens
    [from, to) of the run that were read and did not reach the weights, because of a loss that was not finite or spiked."""

    name: str
    phases: tuple[Phase, ...]
    skipped: tuple[tuple[int, int], ...] = ()


def resolve(asked: str, catalog: Catalog) -> Trained:
    """A path, or one of ASSETS (the newest checkpoint where it is not finished), or, empty, the newest of all.

    Raises MissingDataset where there is none, StoreError where what is there does not tell its data.
    """
    if not asked:
        return _at(_newest())
    if asked in ASSETS:
        return _asset(asked, catalog)
    if not Path(asked).is_dir():
        raise StoreError(
            f"{asked}: there is no such folder, and no such asset{nearest(asked, ASSETS)}; give a checkpoint's folder, a run's, an "
            "exported model's, or one of these names"
        )
    return _at(Path(asked).absolute())


def _asset(name: str, catalog: Catalog) -> Trained:
    made = catalog.find(name)
    if made is not None:
        return _exported(files.join(made.folder, "model"), name)
    run = run_folder(name, catalog.fingerprint(name))
    if (step := _newest_step(run)) is None:
        catalog.dataset(name)  # which says that it is missing
        raise AssertionError("unreachable")
    return _checkpoint(step, f"{name}, not finished,")


def _at(folder: Path) -> Trained:
    if (folder / "complete.json").exists():
        return _checkpoint(folder, _short(folder))
    for model in (folder, folder / "model"):
        if (model / RESULT_FILE).exists():
            return _exported(str(model), _short(model))
    if (step := _newest_step(folder)) is not None:
        return _checkpoint(step, _short(step))
    raise StoreError(f"{folder}: neither a checkpoint, nor a run with one, nor an exported model (no {RESULT_FILE})")


def _checkpoint(folder: Path, name: str) -> Trained:
    position = json.loads((folder / "complete.json").read_text())["position"]
    skipped = tuple((start, end) for start, end in position["memory"]["skipped"])
    return _trained(name, read_plans(folder.parent), position["step"], folder.parent, skipped)


def _exported(url: str, name: str) -> Trained:
    """`url` may lie in an object store: only its two small files are read."""
    told, result = files.join(url, FILE), TrainResult.model_validate_json(files.read(files.join(url, RESULT_FILE)))
    return _trained(name, plans_in(files.read(told)) if files.exists(told) else (), None, Path(url).parent, result.skipped)


def _trained(name: str, plans: tuple[DataPlan, ...], step: int | None, near: Path, skipped: tuple[tuple[int, int], ...]) -> Trained:
    """`step`: where the last run of `plans` stood; None: at its end."""
    if not plans:
        raise StoreError(
            f"{name} does not tell what it was trained on: it has no {FILE}, so an older version made it; train it again"
        )
    steps = [*(plan.last_step for plan in plans[:-1]), plans[-1].last_step if step is None else step]
    runs = [near, *_runs()]
    phases = tuple(Phase(plan, last, _ledger_of(plan, runs)) for plan, last in zip(plans, steps, strict=True))
    return Trained(name, phases, skipped)


def _ledger_of(plan: DataPlan, runs: list[Path]) -> Path | None:
    """The run's folder, wherever its model has been taken: the run is known by the fingerprint of its job."""
    for run in runs:
        if ledger.exists(run) and (plans := read_plans(run)) and plans[-1].run == plan.run:
            return run
    return None


def _newest() -> Path:
    found = [path for run in _runs() for path in [*_complete(run), *run.glob(f"model/{RESULT_FILE}")]]
    if not found:
        raise MissingDataset(f"{home()}: nothing has been trained here yet; materialize pretrained, or name a checkpoint")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def _newest_step(run: Path) -> Path | None:
    return max((path.parent for path in _complete(run)), key=lambda step: step.name, default=None)


def _runs() -> list[Path]:
    """Folders of runs: of an asset's one, or of one of its several."""
    root = home() / "checkpoints"
    found = [path.parent for pattern in (f"*/{FILE}", f"*/*/{FILE}") for path in root.glob(pattern)]
    return sorted(folder for folder in found if folder.name != "model")


def _complete(run: Path) -> Iterator[Path]:
    """Of a run, or of the several of an asset."""
    found = [*run.glob("step-*/complete.json"), *run.glob("*/step-*/complete.json")]
    return (path for path in found if not path.parent.name.endswith(".partial"))


def _short(folder: Path) -> str:
    return str(folder.relative_to(home() / "checkpoints")) if folder.is_relative_to(home() / "checkpoints") else str(folder)
