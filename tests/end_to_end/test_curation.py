"""Curation as a whole: the same bytes whatever happens on the way, every record accounted for, every page's story told."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l3_platform.crawl.fetch import ledger
from l3_platform.lineage import STAGES
from l3_platform.store import Dataset
from tests.end_to_end.conftest import NO_SERVER, World, wait_for

pytestmark = pytest.mark.slow


def content(world: World, stages: set[str]) -> dict[str, bytes]:
    """Every file of the stages' datasets by its place under data/, but for what a clock or a process leaves there."""
    data = world.home / "data"
    found = {str(path.relative_to(data)): path for path in data.rglob("*") if path.is_file()}
    incidental = (".lock", ".guard", "/cost.json")  # and what a kill left of a lock that was being written
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if name.split("/")[0] in stages and not name.endswith(incidental) and ".lock." not in name
    }


def differences(one: World, other: World, asset: str) -> list[str]:
    """Files that only one home has, or that differ, over `asset` and all that lies before it."""
    stages = before(asset)
    left, right = content(one, stages), content(other, stages)
    assert {name.split("/")[0] for name in left} == stages
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def before(asset: str) -> set[str]:
    return {asset}.union(*(before(name) for name in STAGES[asset].inputs))


def with_settings(world: World, home: Path, *overrides: str) -> World:
    home.mkdir()
    return dataclasses.replace(world, home=home, overrides=(*world.overrides, NO_SERVER, *overrides), started=[])


def run(world: World, select: str) -> list[str]:
    """The lines of a successful run, without the report."""
    done = world.l3("run", "--select", select)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("L3 report")[0].splitlines()[:-1]


@pytest.mark.exhaustive
def test_another_home_and_one_worker_give_the_same_bytes(curated, tmp_path):
    other = with_settings(curated, tmp_path / "home", "engine.workers=1")
    run(other, "*training_plan")
    assert not differences(curated, other, "training_plan")


def test_a_curation_over_four_workers_killed_three_times_leaves_no_process_and_ends_with_the_same_bytes(curated, tmp_path):
    killed = with_settings(curated, tmp_path / "home", "engine.workers=4")
    for moment in ("documents", "duplicate_documents", "curated_documents"):
        process = killed.start("run", "--select", "*token_shards")
        wait_for(lambda moment=moment: (killed.home / "data" / moment).is_dir(), 60, f"{moment} to begin")
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"the run had ended before {moment} could be interrupted"
        wait_for(lambda: not killed.processes(), 15, f"every process to end after the kill in {moment}")
    lines = run(killed, "*token_shards")
    assert [line for line in lines if line.startswith("raw_crawl") and line.endswith("unchanged")]
    assert not differences(curated, killed, "token_shards")


def test_a_second_run_recomputes_nothing(curated, tmp_path):
    again = with_settings(curated, tmp_path / "unused")
    again.home = tmp_path / "home"
    shutil.copytree(curated.home, again.home)
    manifests = {path: path.stat().st_mtime_ns for path in (again.home / "data").rglob("manifest.json")}
    lines = run(again, "*training_plan")
    assert len(lines) == len(manifests)
    assert [line for line in lines if not line.endswith("unchanged")] == []
    assert manifests == {path: path.stat().st_mtime_ns for path in (again.home / "data").rglob("manifest.json")}


class Real:
    """The archives of several crawlers, curated: the home, the documents and what was lost."""

    def __init__(self, home: Path, warc: Path) -> None:
        self.warc = warc
        self.world = World(home, overrides=(NO_SERVER, "crawl.source=files", f"crawl.paths={warc}/*"))
        run(self.world, "*curated_documents")
        (manifest,) = (home / "data" / "documents").glob("files/*/manifest.json")
        self.documents = Dataset.open(str(manifest.parent))

    def quarantined(self, reason: str) -> list[dict[str, Any]]:
        return [row for row in self.documents.quarantine().to_pylist() if row["reason"] == reason]


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    return Real(tmp_path_factory.mktemp("real"), shared_data / "warc")


@pytest.fixture(scope="module")
def real_report(real: Real) -> dict[str, Any]:
    done = real.world.l3("report", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HTML_PAGES = {  # files with at least one whole page of HTML that was answered with status 200
    "aut-example.warc.gz",
    "resiliparse-clueweb-quirk.warc.gz",
    "resiliparse-warcfile.warc.gz",
    "resiliparse-warcfile.warc.lz4",
    "sample-0000.warc.gz",
    "sample-0001.warc.gz",
    "warcio-example-bad-non-chunked.warc.gz",
    "warcio-example-iana.org-chunked.warc",
    "warcio-example.arc.gz",
}


def test_every_real_file_with_a_page_gives_documents(real):
    assert set(real.documents.read(["warc_file"])["warc_file"].to_pylist()) >= HTML_PAGES


def test_the_clipped_real_record_is_quarantined_with_the_bytes_it_lacks(real):
    lost = [(row["file"], row["bytes_lost"]) for row in real.quarantined("truncated")]
    assert lost == [("resiliparse-clipped.warc.gz", 13_068)]


def test_real_records_that_lie_about_their_length_are_reported(real):
    lost = {row["file"]: row["offset"] for row in real.quarantined("wrong_length")}
    assert lost == {"warcio-example-trunc.warc": 1197, "warcio-example-wrong-chunks.warc.gz": 0}


def test_the_report_names_every_asset_and_what_is_made_balances(real_report):
    made = [asset for asset in real_report["assets"] if asset["materialized"]]
    assert [asset["name"] for asset in real_report["assets"]] == [name for name, stage in STAGES.items() if not stage.of_candidates]
    assert {asset["name"] for asset in made} == before("curated_documents")
    for asset in made:
        assert asset["balanced"], asset
        assert asset["records_in"] == asset["kept"] + sum(asset["dropped"].values()) + asset["failed"], asset
        # Nothing labelled is configured for a crawl of files: its identifier is the built-in one, trained on no sentence.
        assert (asset["records_in"] > 0) == (asset["name"] != "language_identifier"), asset


def test_every_account_check_of_a_real_crawl_passes(real_report):
    passed = {check["asset"] for check in real_report["checks"] if check["name"] == "account_balances" and check["passed"]}
    assert passed == before("curated_documents")


@pytest.fixture(scope="module")
def planted(curated: World) -> Callable[..., dict[str, Any]]:
    """The first planted case of a kind with what was planned for it."""
    folders = [path.parent for path in sorted((curated.home / "data" / "raw_crawl").glob("*/*/manifest.json"))]
    tables = [ledger(Dataset.open(str(folder))) for folder in folders]
    rows = [row for table in tables if table is not None for row in table.to_pylist()]
    return lambda **wanted: next(row for row in rows if wanted.items() <= row.items())


def test_why_names_the_twin_of_a_near_duplicate_and_their_likeness(curated, planted):
    case = planted(kind="near_duplicate", expect="drop")
    told = curated.l3("why", case["url"])
    assert told.returncode == 0, told.stderr
    verdict = re.search(r"=> dropped: duplicates (\S+) \(true Jaccard ([\d.]+)\)", told.stdout)
    assert verdict, told.stdout
    assert verdict[1] == case["twin_url"]
    assert float(verdict[2]) == pytest.approx(case["jaccard"], abs=0.03)  # planned of the article, measured of the page


def test_why_says_what_was_lost_of_a_broken_record(curated, planted):
    case = planted(kind="broken", detail="wrong_length")
    told = curated.l3("why", case["url"])
    assert told.returncode == 0, told.stderr
    assert f"the record at offset {case['warc_offset']} of {case['warc_file']} is broken (wrong_length)" in told.stdout
    assert "quarantined, 4,662 bytes lost" in told.stdout


def test_why_of_a_page_never_seen_is_one_sentence_and_a_failure(curated):
    told = curated.l3("why", "https://never.example/seen")
    assert told.returncode == 1
    assert (told.stdout + told.stderr).strip().count("\n") == 0
    assert "https://never.example/seen: never seen in this crawl" in told.stdout + told.stderr


def test_a_sweep_over_three_settings_answers_in_five_seconds(curated):
    seconds, told = min((timed_sweep(curated) for _ in range(2)), key=lambda timed: timed[0])
    assert told.returncode == 0, told.stderr
    swept = json.loads(told.stdout)
    assert len(swept["points"]) == 8 and swept["now"]["documents"] == curated.dataset("curation_decisions")["counts"]["kept"]
    assert all(point["tokens"] > 0 for point in swept["points"])
    assert seconds < 5.0


def timed_sweep(world: World) -> tuple[float, subprocess.CompletedProcess[str]]:
    variations = ("heuristics.dup_ngram_max=0.1,0.3", "quality.min_score=0.01,0.2", "heuristics.min_words=10,100")
    started = time.monotonic()
    told = world.l3("sweep", *variations, "--json")
    return time.monotonic() - started, told
