"""A mistake or a misfortune is one clear sentence and exit code 1, never a traceback, and costs nothing already made."""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l3_platform.store import Dataset
from tests.end_to_end.conftest import NO_SERVER, REPOSITORY, World

pytestmark = pytest.mark.slow


def refusal(world: World, *command: str) -> str:
    """The one sentence on stderr of a command that must fail."""
    done = world.l3(*command)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0] and "l3_platform." not in lines[0] and "dagster" not in lines[0].lower()
    return lines[0]


@pytest.fixture
def fresh(tmp_path: Path) -> World:
    (tmp_path / "home").mkdir()
    return World(tmp_path / "home", overrides=(NO_SERVER,))


def test_a_misspelt_setting_is_met_with_the_one_meant(fresh):
    said = refusal(fresh, "run", "--set", "dedup.treshold=0.7")
    assert said == "l3: setting 'dedup.treshold': dedup has no key 'treshold'; did you mean 'threshold'?"


def test_a_setting_of_the_wrong_kind_is_named_with_what_it_got(fresh):
    assert "crawl.demo_pages" in (said := refusal(fresh, "run", "--set", "crawl.demo_pages=many")) and "'many'" in said


def test_an_unknown_profile_is_met_with_those_there_are(fresh):
    said = refusal(fresh, "run", "--profile", "llama3-9b")
    assert "profile 'llama3-9b' does not exist; there are demo," in said
    assert said.endswith("did you mean 'llama3-8b'?")


@pytest.mark.parametrize(
    ("select", "end"), [("*token_shardz", "did you mean 'token_shards'?"), ("group:nothing", "url_versions"), ("(", "url_versions")]
)
def test_a_selection_of_nothing_runs_nothing(fresh, select, end):
    said = refusal(fresh, "run", "--select", select)
    assert f"{select!r} selects nothing" in said and said.endswith(end)
    assert not (fresh.home / "data").exists()


def test_a_glob_that_matches_nothing_is_quoted(fresh, tmp_path):
    said = refusal(fresh, "run", "--source", "files", "--set", f"crawl.paths={tmp_path}/*.warc.gz")
    assert (
        said == f"raw_crawl: crawl.paths: nothing matches '{tmp_path}/*.warc.gz'; check the path, or quote the glob for the shell"
    )


def test_files_of_no_bytes_are_an_empty_crawl(fresh, tmp_path):
    (tmp_path / "nothing.warc.gz").touch()
    said = refusal(fresh, "run", "--source", "files", "--set", f"crawl.paths={tmp_path}/*.warc.gz")
    assert said.startswith("raw_crawl: the data did not pass the check crawl_is_not_empty") and "bytes 0" in said


def test_archives_without_a_record_are_an_empty_crawl(fresh, tmp_path):
    (tmp_path / "hollow.warc.gz").write_bytes(gzip.compress(b""))
    said = refusal(fresh, "run", "--source", "files", "--set", f"crawl.paths={tmp_path}/*.warc.gz")
    assert said.startswith("documents: the data did not pass the check some_pages_are_readable") and "records 0" in said


@pytest.mark.parametrize(("setting", "asset"), [("languages.model", "languages"), ("quality.model", "quality_classifier")])
def test_a_missing_model_file_is_named_with_its_setting(world, tmp_path, setting, asset):
    absent = tmp_path / "absent.bin"
    said = refusal(world, "run", "--set", f"{setting}={absent}", "--select", asset)
    assert said == f"{asset}: setting {setting}: there is no file {absent}; give the path of one, or leave the setting out"


class SmallDisk:
    """A file system of its own, of a size that can grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, *options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", self.folder], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"only root may mount a small disk to fill: {done.stderr.strip()}")

    def grow(self) -> None:
        self.mount("remount", "size=64m")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], SmallDisk]]:
    small = SmallDisk(tmp_path / "disk")

    def of(size: str) -> SmallDisk:
        small.mount(f"size={size}")
        return small

    yield of
    subprocess.run(["umount", "--lazy", small.folder], capture_output=True)


PAGES = ("crawl.demo_pages=240", "crawl.demo_warc_files=2")


def test_a_full_disk_is_said_and_the_next_run_goes_on_from_what_was_made(disk, fresh):
    small = disk("900k")  # holds the raw crawl and not the documents
    fresh.overrides = (NO_SERVER, *PAGES, f"store.root={small.folder}/data")
    said = refusal(fresh, "run", "--select", "*documents")
    assert said.startswith("documents: ") and "the disk is full" in said and "run the same command again" in said
    assert not list((small.folder / "data" / "documents").rglob("*.partial"))
    small.grow()
    done = fresh.l3("run", "--select", "*documents")
    assert done.returncode == 0, done.stderr
    crawl, documents = done.stdout.splitlines()[:2], done.stdout.splitlines()[2:4]
    assert all(line.startswith("raw_crawl") and line.endswith("unchanged") for line in crawl)
    assert all(line.startswith("documents") and not line.endswith("unchanged") for line in documents)
    for manifest in (small.folder / "data").rglob("manifest.json"):
        assert not Dataset.open(str(manifest.parent)).verify()


def test_a_full_home_is_said_in_one_sentence_and_the_next_run_completes(disk):
    small = disk("1600k")  # the run's own records no longer fit
    world = World(small.folder / "home", overrides=(NO_SERVER, *PAGES))
    done = world.l3("run", "--select", "*documents")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the disk is full; nothing already made is lost" in done.stderr.splitlines()[-1]
    small.grow()
    again = world.l3("run", "--select", "*documents")
    assert again.returncode == 0, again.stderr


@contextlib.contextmanager
def held(lock: Path, owner: str) -> Iterator[int]:
    """Another process that holds the lock; yields its pid."""
    program = (
        "import sys; from l3_platform.store import Lock\n"
        "with Lock(sys.argv[1], owner=sys.argv[2]): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(lock), owner]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield holder.pid


def test_a_locked_dataset_names_its_holder(world):
    (manifest,) = (world.home / "data" / "tokenizer" / "all").glob("*/manifest.json")
    manifest.unlink()  # as if it were being made
    with held(manifest.parent.with_suffix(".lock"), "run 12345678, tokenizer/all") as pid:
        said = refusal(world, "run", "--select", "tokenizer")
    assert said.startswith("tokenizer: ") and f"held by run 12345678, tokenizer/all (pid {pid} on " in said
    assert said.endswith("wait for it to end, or stop it, then run again")
    assert world.l3("run", "--select", "tokenizer").returncode == 0


@pytest.mark.parametrize("lock", ["client-lock", "lock"])
def test_a_locked_checkpoint_folder_names_its_holder(world, lock):
    folder = world.home / "checkpoints" / f"pretrained-{fingerprint(world, 'pretrained')}"
    with held(folder / lock, "training") as pid:
        said = refusal(world, "run", "--select", "pretrained")
    assert said.startswith("pretrained: ") and f"held by training (pid {pid} on " in said
    assert not world.checkpoints()


def fingerprint(world: World, asset: str) -> str:
    """Of the dataset that `asset` would become in this home."""
    program = (
        "import json, sys; from l3_platform.orchestration.resources import Platform\n"
        "catalog = Platform(profile='demo', overrides=json.loads(sys.argv[1])).catalog(); print(catalog.fingerprint(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, json.dumps(list(world.overrides)), asset]
    done = subprocess.run(command, env=world.environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()
