"""A checkpoint from elsewhere cannot run anything: its index is read as data, or refused in words."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from l3_platform.train import TrainingError
from l3_platform.train.branch import Position
from l3_platform.train.checkpoint import Checkpoints, _digest
from l3_platform.train.loop import train
from l3_platform.train.ranks import Ranks
from tests.parallel.ranks import in_processes
from tests.train.test_branch import branch_of
from tests.train.test_checkpoint import HERE, checkpoints, saved, state
from tests.train.test_loop import job_in


def with_index(checkpoint: Path, content: bytes) -> None:
    """Puts another index into a checkpoint, as somebody would who also knows of the digests."""
    index, complete = checkpoint / ".metadata", checkpoint / "complete.json"
    index.write_bytes(content)
    facts = json.loads(complete.read_text())
    facts["files"][".metadata"] = [len(content), _digest(index)]
    complete.write_text(json.dumps(facts))


def changed(checkpoint: Path, change: Callable[[Metadata], None]) -> None:
    """Changes the index of a checkpoint of ours."""
    metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    change(metadata)
    with_index(checkpoint, pickle.dumps(metadata))


class Runs:
    """Unpickled, it touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def hidden_in_an_entry(checkpoint: Path, marker: Path) -> None:
    changed(checkpoint, lambda metadata: metadata.state_dict_metadata.update({"model.w": Runs(marker)}))  # type: ignore[dict-item]


def by_a_name_with_dots(checkpoint: Path, marker: Path) -> None:
    """`os.system` as the module of ours that imports os has it: from protocol 4 on, names may have dots."""
    with_index(checkpoint, f"\x80\x04ctorch.distributed.checkpoint.metadata\nos.system\n(S'touch {marker}'\ntR.".encode("latin-1"))


def by_getattr(checkpoint: Path, marker: Path) -> None:
    """`Metadata.__init__.__globals__["os"].system`: some versions of Python pickle an enumeration with getattr."""
    reach = b"cbuiltins\ngetattr\n(ctorch.distributed.checkpoint.metadata\nMetadata\nS'__init__'\ntR"
    reach = b"cbuiltins\ngetattr\n(" + reach + b"S'__globals__'\ntR"
    reach = b"cbuiltins\ngetattr\n(" + reach + b"S'get'\ntR(S'os'\ntR"
    reach = b"cbuiltins\ngetattr\n(" + reach + f"S'system'\ntR(S'touch {marker}'\ntR.".encode()
    with_index(checkpoint, b"\x80\x04" + reach)


ATTACKS = [hidden_in_an_entry, by_a_name_with_dots, by_getattr]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_index_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, attack: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, [1, 2])
    newest, marker = tmp_path / "step-00000002", tmp_path / "marker"
    attack(newest, marker)
    with pytest.raises(TrainingError, match=r"step-00000002: \.metadata .*nothing can branch from it"):
        checkpoints(tmp_path / "branch").load_whole(state(0.0), newest)
    position = checkpoints(tmp_path).load_newest(state(0.0))
    assert position is not None and position.step == 1 and "step-00000002: .metadata" in caplog.text
    with pytest.raises(BaseException, match=r"\.metadata"):  # DCP's own, of whoever loads without looking first
        checkpoints(tmp_path).load(state(0.0), newest)
    assert not marker.exists()


def test_a_run_does_not_start_afresh_where_the_checkpoint_to_branch_from_is_refused(tmp_path: Path) -> None:
    parent = job_in(tmp_path / "parent", total_tokens=2048)
    train(parent)
    branch = branch_of(parent, 8, tmp_path / "branch", total_tokens=4096)
    by_getattr(Path(branch.branch_from), tmp_path / "marker")
    with pytest.raises(TrainingError, match="nothing can branch from it"):
        train(branch)
    assert not (tmp_path / "marker").exists() and not Path(branch.output).exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_would_have_run_in_plain_pickle(tmp_path: Path, attack: Callable[[Path, Path], None]) -> None:
    saved(tmp_path, [1])
    attack(tmp_path / "step-00000001", tmp_path / "marker")
    pickle.loads((tmp_path / "step-00000001" / ".metadata").read_bytes())
    assert (tmp_path / "marker").exists()


def test_an_entry_of_bytes_is_refused_since_it_would_be_unpickled(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    checkpoint = tmp_path / "step-00000001"
    changed(checkpoint, lambda metadata: metadata.state_dict_metadata.update({"model.w": BytesStorageMetadata()}))
    with pytest.raises(TrainingError, match=r"\.metadata names .*BytesStorageMetadata"):
        checkpoints(tmp_path).load_whole(state(0.0), checkpoint)


def test_a_tensor_in_a_file_outside_the_checkpoint_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    checkpoint = tmp_path / "step-00000001"

    def point_elsewhere(metadata: Metadata) -> None:
        for place in metadata.storage_data.values():
            place.relative_path = "../elsewhere.distcp"

    changed(checkpoint, point_elsewhere)
    with pytest.raises(TrainingError, match=r"\.metadata names a file outside the checkpoint, \.\./elsewhere\.distcp"):
        checkpoints(tmp_path).load_whole(state(0.0), checkpoint)


NO_INDEX = {"empty": b"", "cut": b"\x80\x04", "text": b"no pickle", "mapping": pickle.dumps({"state_dict_metadata": 1})}


@pytest.mark.parametrize("content", NO_INDEX.values(), ids=NO_INDEX)
def test_what_is_no_index_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path, [1])
    with_index(tmp_path / "step-00000001", content)
    with pytest.raises(TrainingError, match=r"\.metadata cannot be read"):
        checkpoints(tmp_path).load_whole(state(0.0), tmp_path / "step-00000001")


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]


def test_tensors_of_all_types_and_shapes_come_back(tmp_path: Path) -> None:
    made = {str(dtype): torch.arange(12).reshape(3, 4).to(dtype) for dtype in DTYPES} | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
    }
    store = Checkpoints(tmp_path, HERE, fingerprint="job", keep=1)
    store.save({"model": made, "optimizer": {"exp_avg": {"w": torch.ones(2)}}}, Position(1, 10, 1.0))
    store.wait()
    found = {"model": {name: torch.zeros_like(tensor) for name, tensor in made.items()}}
    assert checkpoints(tmp_path).load_newest(found) is not None
    assert all(torch.equal(tensor, made[name]) for name, tensor in found["model"].items())


def test_what_two_ranks_have_saved_in_shards_comes_back_on_two_and_on_one(tmp_path: Path) -> None:
    assert in_processes(2, tmp_path, saved_and_loaded, str(tmp_path / "run"))
    found = {"model": {"w": torch.zeros(5, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}}
    assert checkpoints(tmp_path / "run").load_newest(found) == Position(1, 10, 1.0)
    assert torch.equal(found["model"]["w"], torch.arange(15.0).reshape(5, 3))
    assert torch.equal(found["model"]["b"], torch.arange(4).bfloat16())


def saved_and_loaded(rank: int, folder: str) -> bool:
    """Saves shards of both ranks, reads them into tensors that are sharded along the other dimension, and compares."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    whole = {"w": torch.arange(15.0).reshape(5, 3), "b": torch.arange(4).bfloat16()}
    store = Checkpoints(folder, Ranks(rank, 2, torch.device("cpu")), fingerprint="job", keep=1)
    store.save({"model": {name: distribute_tensor(t, mesh, [Shard(0)]) for name, t in whole.items()}}, Position(1, 10, 1.0))
    store.wait()
    found = {name: distribute_tensor(torch.zeros_like(t), mesh, [Shard(t.dim() - 1)]) for name, t in whole.items()}
    assert store.load_newest({"model": found}) == Position(1, 10, 1.0)
    return all(torch.equal(tensor.full_tensor(), whole[name]) for name, tensor in found.items())
