"""A tiny world, curated once a session and copied for every test that wants to break something."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).parents[2]
L3 = str(Path(sys.executable).with_name("l3"))
TINY = (
    "crawl.demo_pages=240",
    "crawl.demo_warc_files=2",
    "tokenizer.vocab_size=768",
    "mixture.runs=0",
    "scaling.budgets=4e8,1e9",
    "scaling.layers=1,2,3",
    "scaling.min_tokens=2048",
    "scaling.max_epochs=4",
    "train.budget_flops=3e10",
    'train.ramp=[{"from_tokens": 0, "batch_tokens": 1024, "seq_len": 128}]',
    "train.warmup_tokens=8192",
    "train.checkpoint_every_tokens=8192",
    'long_context.stages=[{"seq_len": 256, "tokens": 4096, "batch_tokens": 1024}]',
    "anneal.tokens=6144",
    "anneal.checkpoints=2",
    'mix.changes=[{"from_tokens": 65536, "math": 0.3, "multilingual": 0.12}]',
)


NO_SERVER = "mlflow.tracking_uri=none"  # where tracking is not the point: a server takes ten core seconds to start


@dataclass
class World:
    """One L3_HOME and the commands that run on it."""

    home: Path
    overrides: Sequence[str] = TINY
    started: list[psutil.Popen] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"L3_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}

    def arguments(self, *command: str) -> list[str]:
        return [L3, *command, *(part for override in self.overrides for part in ("--set", override))]

    def l3(self, *command: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*command),
            env=self.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *command: str) -> psutil.Popen:
        log = open(self.home / f"{command[0]}.log", "ab")  # noqa: SIM115 (the process keeps it)
        process = psutil.Popen(
            self.arguments(*command),
            env=self.environment,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Every living process that works in this home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("L3_HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def ranks(self) -> list[psutil.Process]:
        return [one for one in self._running("l3_platform.train") if one not in self.agents()]

    def agents(self) -> list[psutil.Process]:
        """The torchrun agents, one a node."""
        return self._running("l3_platform.launch.agent")

    def _running(self, module: str) -> list[psutil.Process]:
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if module in process.cmdline():
                    found.append(process)
        return found

    def dataset(self, asset: str) -> dict[str, Any]:
        (manifest,) = (self.home / "data" / asset / "all").glob("*/manifest.json")
        return json.loads(manifest.read_text())

    def time_of(self, asset: str) -> dict[str, Any]:
        """Where the time of its training went, beside the dataset: what the card and the report show."""
        (cost,) = (self.home / "data" / asset / "all").glob("*/cost.json")
        (told,) = json.loads(cost.read_text())["training"].values()
        return told

    def checkpoints(self, asset: str = "pretrained") -> list[Path]:
        return sorted((self.home / "checkpoints").glob(f"{asset}-*/step-*/complete.json"))

    def end(self) -> None:
        for process in [*self.started, *self.processes()]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def wait_for(condition: Callable[[], Any], seconds: float, what: str, log: Path | None = None) -> Any:
    """The first true value of `condition`, else a failure that says what was waited for and what `log` says by then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    told = f"; {log} says:\n{log.read_text()}" if log else ""
    pytest.fail(f"waited {seconds:.0f} s in vain for {what}{told}")


def in_training(world: World, after: str = "") -> list[psutil.Process]:
    """Both ranks, once a checkpoint newer than `after` exists: a kill then loses work, and a resume has something to find."""
    wait_for(lambda: newest_checkpoint(world) > after, 120, f"a checkpoint after {after or 'the start'}")
    return wait_for(lambda: ranks if len(ranks := world.ranks()) == 2 else None, 60, "two ranks")


def newest_checkpoint(world: World) -> str:
    return max((path.parent.name for path in world.checkpoints()), default="")


def as_if_nothing_had_happened(world: World, undisturbed: World) -> bool:
    """The same metrics and the same bytes: the manifest lists the digest of the shard, which lists those of the model."""
    return world.dataset("pretrained") == undisturbed.dataset("pretrained")


def resumes(world: World) -> bool:
    """The next run goes on from a checkpoint, to the end."""
    before = len(world.checkpoints())
    done = world.l3("run", "--select", "pretrained")
    assert done.returncode == 0, done.stdout + done.stderr
    return before > 0


def made_once(folder: Path, make: Callable[[World], object], overrides: Sequence[str] = TINY) -> World:
    """The world in `folder`, made by whichever worker of pytest-xdist comes first; nobody may change it."""
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            partial = World(folder.with_suffix(".partial"), overrides)
            make(partial)
            partial.home.rename(folder)
    return World(folder, overrides)


def succeeds(world: World, *command: str) -> None:
    done = world.l3(*command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def curated(shared_folder: Path) -> World:
    """A home in which everything up to the training plan is made."""
    return made_once(shared_folder / "curated", lambda world: succeeds(world, "run", "--select", "*training_plan"))


@pytest.fixture(scope="session")
def undisturbed(curated: World, shared_folder: Path) -> World:
    """The same home after a training that nobody disturbed."""

    def make(world: World) -> None:
        shutil.copytree(curated.home, world.home)
        succeeds(world, "run", "--select", "pretrained")

    return made_once(shared_folder / "undisturbed", make)


@pytest.fixture
def world(curated: World, tmp_path: Path) -> Iterator[World]:
    """A copy to break, which tracks nothing."""
    copy = World(tmp_path / "home", (*TINY, NO_SERVER))
    shutil.copytree(curated.home, copy.home)
    yield copy
    copy.end()


def graphql(url: str, query: str, **variables: Any) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    answer = json.loads(urllib.request.urlopen(request, timeout=30).read())
    assert "errors" not in answer, answer
    return answer["data"]
