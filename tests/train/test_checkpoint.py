"""Checkpoints: complete or absent, written behind the steps, held to their digests."""

import json
from pathlib import Path

import pytest
import torch

from l3_platform.train.branch import Position, complete, regular
from l3_platform.train.checkpoint import CheckpointError, Checkpoints
from l3_platform.train.job import TrainingError
from l3_platform.train.ranks import Ranks

HERE = Ranks(0, 1, torch.device("cpu"))


def checkpoints(folder: Path, keep: int = 3, fingerprint: str = "job") -> Checkpoints:
    return Checkpoints(folder, HERE, fingerprint=fingerprint, keep=keep)


def state(value: float) -> dict:
    return {"model": {"w": torch.full((4, 3), value)}, "rng": torch.get_rng_state()}


def saved(folder: Path, steps: list[int], **options: int) -> Checkpoints:
    store = checkpoints(folder, **options)  # type: ignore[arg-type]
    for step in steps:
        store.save(state(step), Position(step, step * 10, 1.0 / step))
    store.wait()
    return store


def test_the_newest_comes_back_with_its_position(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2])
    found = state(0.0)
    assert checkpoints(tmp_path).load_newest(found) == Position(2, 20, 0.5)
    assert torch.equal(found["model"]["w"], torch.full((4, 3), 2.0))


def test_what_changes_after_save_returns_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    store, live = checkpoints(tmp_path), state(1.0)
    store.save(live, Position(1, 10, 1.0))
    live["model"]["w"].fill_(9.0)
    store.wait()
    found = state(0.0)
    checkpoints(tmp_path).load_newest(found)
    assert torch.equal(found["model"]["w"], torch.ones(4, 3))


def test_a_folder_without_complete_json_does_not_exist(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2])
    (tmp_path / "step-00000002" / "complete.json").unlink()
    assert [path.name for path in complete(tmp_path)] == ["step-00000001"]


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damage_of_any_kind_falls_back_to_the_one_before(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, [1, 2])
    file = next((tmp_path / "step-00000002").glob("*.distcp"))
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    position = checkpoints(tmp_path).load_newest(state(0.0))
    assert position is not None and position.step == 1 and "falling back" in caplog.text


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2])
    next((tmp_path / "step-00000002").glob("*.distcp")).unlink()
    saved(tmp_path, [2])
    position = checkpoints(tmp_path).load_newest(state(0.0))
    assert position is not None and position.step == 2


def test_only_the_wanted_number_is_kept(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2, 3, 4], keep=2)
    assert [path.name for path in complete(tmp_path)] == ["step-00000004", "step-00000003"]


def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    with pytest.raises(TrainingError, match="belongs to another job"):
        checkpoints(tmp_path, fingerprint="other").load_newest(state(0.0))


def test_a_save_that_fails_is_reported_by_the_next_call(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.partial").write_text("a file where the folder should be")
    store = checkpoints(tmp_path)
    store.save(state(1.0), Position(1, 10, 1.0))
    with pytest.raises(CheckpointError, match="a checkpoint could not be written"):
        store.wait()


def test_what_a_stop_saved_is_kept_until_the_next_regular_one_and_takes_no_place_of_one(tmp_path: Path) -> None:
    store = saved(tmp_path, [2, 4], keep=2)
    for step in (5, 6):  # stopped twice
        store.save(state(step), Position(step, step * 10, 1.0), regular=False)
    store.wait()
    assert [path.name[-1] for path in complete(tmp_path)] == ["6", "4", "2"]
    assert [path.name[-1] for path in regular(tmp_path)] == ["4", "2"]
    saved(tmp_path, [8], keep=2)
    assert [path.name[-1] for path in complete(tmp_path)] == ["8", "4"]


def test_complete_json_lists_every_file_with_its_size(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    folder = tmp_path / "step-00000001"
    files = json.loads((folder / "complete.json").read_text())["files"]
    assert {name: fact[0] for name, fact in files.items()} == {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name != "complete.json"
    }
