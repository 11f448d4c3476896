"""The asset `pretrained` on a real Slurm of two nodes: whatever ends a part of it, its bytes are those of a run that nobody
disturbed."""

from collections.abc import Iterator

import pytest

from l3_platform.launch.protocol import job_name
from tests.end_to_end.buttons import Web, terminate
from tests.end_to_end.conftest import World, as_if_nothing_had_happened, in_training, newest_checkpoint, resumes, wait_for
from tests.launch.slurm_cluster import SlurmCluster, run

pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(bool(SlurmCluster.missing()), reason=SlurmCluster.missing())]

ON_SLURM = ("train.launcher=slurm", "slurm.poll_seconds=0.5", 'slurm.setup=["export GLOO_SOCKET_IFNAME=lo"]')


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as one:
        yield one


def states(world: World) -> str:
    """Of the asset's job, while Slurm knows of it."""
    folders = world.home.glob("checkpoints/pretrained-*")
    return " ".join(run("squeue", "--noheader", "--format=%T", "--name", job_name(folder)) for folder in folders)


def test_the_asset_survives_a_lost_node_of_slurm(world: World, undisturbed: World, cluster: SlurmCluster) -> None:
    world.overrides = (*world.overrides, *ON_SLURM)
    training = world.start("run", "--select", "pretrained")
    wait_for(world.checkpoints, 120, "the first checkpoint")
    assert states(world) == "RUNNING"
    cluster.kill_node("node2")
    wait_for(lambda: states(world) == "PENDING", 90, "Slurm to requeue the job")
    cluster.start_node("node2")
    assert training.wait(180) == 0, (world.home / "run.log").read_text()
    assert len([*world.home.glob("checkpoints/pretrained-*/logs/slurm-*.log")]) == 1, "Slurm requeued; nobody submitted again"
    assert world.dataset("pretrained") == undisturbed.dataset("pretrained")
    assert [row["attempt"] for row in world.time_of("pretrained")["interruptions"]][:1] == [1]


def test_terminate_in_the_ui_cancels_the_job_and_a_killed_ui_leaves_it_to_the_next_run(
    world: World, undisturbed: World, cluster: SlurmCluster
) -> None:
    world.overrides = (*world.overrides, *ON_SLURM)
    web = Web(world)
    run = web.materialize("pretrained")
    in_training(world)
    terminate(web, run)
    wait_for(lambda: not world.ranks(), 40, "the trainers to end")
    wait_for(lambda: web.status(run) == "CANCELED", 90, "the run to be cancelled")
    assert states(world).strip() == ""
    reached = newest_checkpoint(world)
    web.materialize("pretrained")
    in_training(world, after=reached)
    for process in world.processes():
        if "SLURM_JOB_ID" not in process.environ():
            process.kill()
    assert states(world) == "RUNNING"
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)
    assert len([*world.home.glob("checkpoints/pretrained-*/logs/slurm-*.log")]) == 2, "submitted twice: before and after Terminate"
