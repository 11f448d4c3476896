"""The asset `pretrained` over two hosts: a cable is cut, and its bytes are those of a run that nobody disturbed."""

import json

import pytest

from tests.end_to_end.conftest import wait_for
from tests.launch.two_hosts import TwoHosts

pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(bool(TwoHosts.missing()), reason=TwoHosts.missing())]


def test_the_asset_survives_a_cut_cable_between_its_hosts(world, undisturbed):
    with TwoHosts() as hosts:
        settings = hosts.settings
        world.overrides = (
            *world.overrides, "train.launcher=hosts", "train.stall_seconds=10", f"hosts.names={','.join(settings.names)}",
            f"hosts.command={settings.command}", f"hosts.rendezvous={settings.rendezvous}", "hosts.interface=eth0",
        )  # fmt: skip
        run = world.start("run", "--select", "pretrained")
        wait_for(world.checkpoints, 120, "the first checkpoint")
        hosts.cable("down")
        wait_for(lambda: [*world.home.glob("checkpoints/pretrained-*/logs/attempt-2")], 60, "a relaunch")
        hosts.cable("up")
        assert run.wait(180) == 0, (world.home / "run.log").read_text()
    assert world.dataset("pretrained") == undisturbed.dataset("pretrained"), json.dumps(world.dataset("pretrained"))
