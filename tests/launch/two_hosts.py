"""Two hosts on one machine: network namespaces joined by a cable that can be pulled out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

from l3_platform.settings import Hosts


class TwoHosts:
    """Each namespace has an `eth0`, whose other end is the other's, and nothing else but a loopback."""

    def __init__(self) -> None:
        self.names = (f"l3-{os.getpid()}-a", f"l3-{os.getpid()}-b")
        self.addresses = ("10.77.0.1", "10.77.0.2")

    @staticmethod
    def missing() -> str:
        """Why there can be no namespaces here, in words; empty where there can."""
        if os.geteuid() != 0 or sys.platform != "linux":
            return "network namespaces need root on Linux"
        return "" if shutil.which("ip") else "ip is not installed: apt-get install iproute2"

    def __enter__(self) -> TwoHosts:
        a, b = self.names
        try:
            for name in self.names:
                _ip("netns", "add", name)
            _ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
            for name, address in zip(self.names, self.addresses, strict=True):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)

    @property
    def settings(self) -> Hosts:
        return Hosts(
            names=self.names, command="ip netns exec {host} sh -c {command}", rendezvous=self.addresses[0], interface="eth0"
        )

    def cable(self, state: str) -> None:
        """`down` or `up`, at the second host: nothing arrives any more, and no connection is told."""
        _ip("-n", self.names[1], "link", "set", "eth0", state)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
