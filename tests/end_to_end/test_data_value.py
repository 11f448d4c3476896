"""Planted candidate sets through `l3 run`: the useful one ranks above the neutral one, and that above the harmful one."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l3_platform.data_value.value import Value
from l3_platform.mix.data_mix import settings_shares
from l3_platform.settings import load
from tests.end_to_end.conftest import TINY, World, made_once, succeeds

pytestmark = pytest.mark.exhaustive

# Maths is what the model is judged by, and the default mix has nearly none of it.
JUDGED = (*TINY, "mix.math=0.01", 'mixture.target={"math": 0.5, "general": 0.5}')
SIZE = ("data_value.layers=2", "data_value.budget=8e9", "data_value.tokens=32768", "data_value.seeds=4")
NEUTRAL_BYTES = 400_000
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789{}[]()#$%&*"


def table(world: World, asset: str) -> list[dict[str, Any]]:
    shards = sorted((world.home / "data" / asset / "all").glob("*/*.parquet"))
    return pa.concat_tables([pq.read_table(shard) for shard in shards]).to_pylist()


def plant(world: World, folder: Path) -> dict[str, dict[str, str]]:
    """Useful: what the default mix lacks. Neutral: a sample of that mix. Harmful: no language at all."""
    draw = random.Random(1)
    training = {row["doc_id"] for row in table(world, "token_shards") if row["split"] == "train"}
    pages = [row for row in table(world, "curated_documents") if row["doc_id"] in training]
    draw.shuffle(pages)
    room = {domain: share * NEUTRAL_BYTES for domain, share in settings_shares(load("demo", JUDGED).mix, "pretrain").items()}
    neutral = []
    for page in pages:
        if room[page["domain_group"]] > 0:
            room[page["domain_group"]] -= len(page["text"].encode())
            neutral.append(page["text"])
    noise = [" ".join("".join(draw.choices(LETTERS, k=draw.randint(2, 12))) for _ in range(250)) for _ in range(60)]
    for name, texts in {"neutral": neutral, "harmful": noise}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files = {name: {"files": str(folder / f"{name}.jsonl")} for name in ("neutral", "harmful")}
    return {"harmful": files["harmful"], "neutral": files["neutral"], "useful": {"where": "domain_group = 'math'"}}


@pytest.fixture(scope="session")
def judged(curated: World, shared_folder: Path) -> World:
    """The tiny home with three sets judged."""
    sets = shared_folder / "candidate-sets"
    sets.mkdir(exist_ok=True)
    overrides = (*JUDGED, *SIZE, f"data_value.candidates={json.dumps(plant(curated, sets))}")

    def make(world: World) -> None:
        shutil.copytree(curated.home, world.home)
        succeeds(world, "run", "--select", "data_mix,group:data_value")

    return made_once(shared_folder / "judged", make, overrides)


def values(world: World) -> dict[str, Value]:
    manifests = [json.loads(path.read_text()) for path in (world.home / "data" / "data_value").glob("*/*/manifest.json")]
    names = {"mean", "low", "high", "pairs"}
    return {one["partition"]: Value(candidate=one["partition"], **{key: one["metrics"][key] for key in names}) for one in manifests}


def test_the_planted_sets_rank_as_planted_and_their_intervals_say_so(judged):
    found = values(judged)
    assert sorted(found, key=lambda name: -found[name].mean) == ["useful", "neutral", "harmful"]
    assert {name: one.verdict for name, one in found.items()} == {
        "useful": "useful",
        "neutral": "cannot tell",
        "harmful": "harmful",
    }
    assert found["useful"].low > found["neutral"].high and found["neutral"].low > found["harmful"].high


def test_every_annealing_is_a_run_in_mlflow_under_that_of_its_set(judged):
    with contextlib.closing(sqlite3.connect(judged.home / "mlflow" / "mlflow.db")) as database:
        names = dict(database.execute("SELECT run_uuid, name FROM runs"))
        parents = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
    nested = [names[run] for run, parent in parents.items() if names[parent] == "data_value"]
    assert len(nested) == 3 * 2 * 4
    assert nested.count("default-seed-8") == 3 and nested.count("useful-seed-8") == 1


def test_judging_again_trains_nothing(judged):
    done = judged.l3("run", "--select", "group:data_value")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.split("L3 report")[0].splitlines() if line.startswith(("data_value", "half_trained"))]
    assert len(lines) == 4 and all(line.endswith("unchanged") for line in lines)


def test_without_candidate_sets_they_are_asked_for_in_one_sentence(curated):
    done = curated.l3("run", "--select", "data_value")
    assert done.returncode == 1
    assert "data_value.candidates names none" in done.stderr and "Traceback" not in done.stderr
