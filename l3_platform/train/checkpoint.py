"""Checkpoints: sharded, written in the background, complete or absent, resharded on load (PyTorch's DCP).

A checkpoint is written to `step-00000123.partial`; once every rank's files are there, rank 0 writes `complete.json`
with their sizes and digests and renames the folder. What a reader finds under its final name is therefore whole, and
what has rotted since is noticed and passed over. Needs a file system that all ranks share.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l3_platform.train.branch import Position, complete, regular, step_of
from l3_platform.train.job import TrainingError, write_text
from l3_platform.train.ranks import Ranks

log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a single process is meant

State = Mapping[str, Any]  # nested mappings of tensors, sharded or not


class CheckpointError(RuntimeError):
    """A checkpoint could not be written: the disk, or a rank that was lost meanwhile. Another attempt may succeed."""


class Checkpoints:
    """The checkpoints of one run. Every method is collective unless it says otherwise."""

    def __init__(self, folder: str | Path, ranks: Ranks, *, fingerprint: str, keep: int) -> None:
        self.folder = Path(folder)
        self.save_seconds = 0.0
        self._new: dict[str, float] = {}
        self.ranks = ranks
        self._fingerprint = fingerprint
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # A group of its own: the background's collectives must not meet the training step's.
        self._group: Any = torch.distributed.new_group(backend="gloo") if ranks.size > 1 else None

    def save(self, state: State, position: Position, *, regular: bool = True) -> None:
        """Copies the state to host memory and returns; the files are written behind the next steps.

        Waits for the save before, and raises what went wrong in it. One that is not `regular`, which an undisturbed run
        would not have, is kept until the next that is.
        """
        self.wait()
        staged = _map_tensors(state, lambda t: t.detach().clone() if t.device.type == "cpu" else t.detach().cpu())
        self._thread = threading.Thread(target=self._write, args=(staged, position, regular), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the last save is complete; raises CheckpointError where it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise CheckpointError(f"{self.folder}: a checkpoint could not be written: {error}") from error

    def close(self, seconds: float) -> None:
        """Lets a save that is under way end, for at most `seconds`; this rank's alone, and never raises.

        A run that fails must not let go of its folder while a thread still writes there: whoever resumes would take the
        half-written checkpoint for a dead run's and remove it.
        """
        if self._thread is not None:
            self._thread.join(seconds)

    def new(self) -> dict[str, float]:
        """How long a save took behind the steps, which no call has returned yet; mostly nothing. For rank 0, and not collective."""
        new, self._new = self._new, {}
        return new

    def load_newest(self, state: State, at_most: int | None = None) -> Position | None:
        """Fills the state in place from the newest checkpoint that is whole, passing over damaged ones with a warning.

        `at_most`: the step of the newest that is wanted. None where there is none. Raises TrainingError where the
        checkpoints are another job's.
        """
        for folder in self.ranks.from_first(complete(self.folder)):
            if at_most is not None and step_of(folder) > at_most:
                continue
            if (damage := self._damage(folder)) is not None:
                log.warning("%s: %s; falling back to the checkpoint before it", folder, damage)
                continue
            facts = json.loads((folder / "complete.json").read_text())
            if facts["fingerprint"] != self._fingerprint:
                raise TrainingError(
                    f"{folder} belongs to another job (model, data or recipe differ); "
                    "give this job a checkpoint folder of its own, or delete the old one"
                )
            self.load(state, folder)
            return Position.from_json(facts["position"])
        return None

    def load_whole(self, state: State, folder: Path) -> None:
        """Fills the state in place from a checkpoint of another run. Raises TrainingError where it is damaged."""
        if (damage := self._damage(folder)) is not None:
            raise TrainingError(f"{folder}: {damage}, so nothing can branch from it; run its parent again")
        self.load(state, folder)

    def whole(self, folders: Sequence[Path]) -> list[Path]:
        """Those that are as they were written; the others are named in a warning."""
        damages = [(folder, self._damage(folder)) for folder in folders]
        for folder, damage in damages:
            if damage is not None:
                log.warning("%s: %s", folder, damage)
        return [folder for folder, damage in damages if damage is None]

    def load(self, state: State, folder: Path) -> None:
        """Fills the tensors of `state`, which may be a part of what was saved, in place."""
        from torch.distributed.checkpoint.state_dict_loader import load

        from l3_platform.train.safe_reader import SafeReader

        load(dict(state), storage_reader=SafeReader(folder), process_group=self._group, no_dist=self.ranks.size == 1)

    def forget_after(self, step: int) -> None:
        """Removes the checkpoints of later steps: those of a stretch that the run has rolled back from."""
        self.wait()
        if self.ranks.first:
            for folder in complete(self.folder):
                if step_of(folder) > step:
                    shutil.rmtree(folder)
        self.ranks.wait()

    def clear_partial(self) -> None:
        """Removes what an interrupted save left. Rank 0 alone; call it under the lock of the folder."""
        for path in self.folder.glob("*.partial"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _write(self, state: State, position: Position, is_regular: bool) -> None:
        from torch.distributed.checkpoint.state_dict_saver import save

        began = time.monotonic()
        target = self.folder / f"step-{position.step:08d}"
        partial = target.with_name(target.name + ".partial")
        try:
            if self.ranks.device.type == "cuda":
                torch.cuda.set_device(self.ranks.device)  # a new thread's is GPU 0, on which DCP would open a context
            save(dict(state), checkpoint_id=str(partial), process_group=self._group, no_dist=self.ranks.size == 1)
            files = self._digests(partial)
            if self.ranks.first:
                facts = {
                    "position": asdict(position),
                    "fingerprint": self._fingerprint,
                    "ranks": self.ranks.size,
                    "regular": is_regular,
                    "files": files,
                }
                write_text(partial / "complete.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")
                shutil.rmtree(target, ignore_errors=True)  # a damaged one that was passed over
                os.replace(partial, target)
                _sync_folder(self.folder)
                # During a stretch of bad steps, what is from before it stays, too: a rollback can go nowhere else.
                found, begun = regular(self.folder), position.step - position.memory.in_a_row
                inside = [old for old in found if step_of(old) > begun]
                kept = {target, *inside, *found[len(inside) :][: self._keep]}
                for old in complete(self.folder):
                    if old not in kept:
                        shutil.rmtree(old)
        except BaseException as error:
            self._error = error
        self.save_seconds = time.monotonic() - began
        if self._error is None:
            self._new = {"checkpoint_save_seconds": round(self.save_seconds, 4)}

    def _digests(self, partial: Path) -> dict[str, list[int | str]]:
        """Size and digest of every file, each rank reading its own."""
        mine = {path.name: [path.stat().st_size, _digest(path)] for path in sorted(partial.glob(f"__{self.ranks.rank}_*.distcp"))}
        if self.ranks.first:
            mine[".metadata"] = [(partial / ".metadata").stat().st_size, _digest(partial / ".metadata")]
        if self.ranks.size == 1:
            return mine
        gathered: list[Any] = [None] * self.ranks.size
        torch.distributed.all_gather_object(gathered, mine, group=self._group)
        return {name: fact for part in gathered for name, fact in part.items()}

    def _damage(self, folder: Path) -> str | None:
        """What is wrong with a checkpoint, in words; the ranks share the reading."""
        from l3_platform.train.safe_reader import refusal

        try:
            files = json.loads((folder / "complete.json").read_text())["files"]
        except (OSError, ValueError, KeyError) as error:
            found: str | None = f"complete.json cannot be read ({error})"
        else:
            names = sorted(files)[self.ranks.rank :: self.ranks.size]
            found = next((fault for name in names if (fault := _fault(folder / name, *files[name]))), None)
            if found is None and self.ranks.first:
                found = refusal(folder)
        if self.ranks.size == 1:
            return found
        gathered: list[Any] = [None] * self.ranks.size
        torch.distributed.all_gather_object(gathered, found, group=self._group)
        return next((fault for fault in gathered if fault), None)


def _fault(path: Path, size: int, digest: str) -> str | None:
    if not path.exists():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size} of {size} bytes"
    return None if _digest(path) == digest else f"{path.name} has changed since it was written"


def _digest(path: Path) -> str:
    import xxhash

    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _map_tensors(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Mapping):
        return {key: _map_tensors(value, change) for key, value in state.items()}
    return change(state)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
