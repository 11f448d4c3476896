"""An sshd of our own on the loopback, with keys of its own; `command` is what `hosts.command` is to be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path


class SshServer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        """Why there can be no server here, in words; empty where there can."""
        if os.geteuid() != 0:
            return "an sshd of our own needs root"
        return "" if shutil.which("sshd") else "sshd is not installed: apt-get install openssh-server"

    def __enter__(self) -> SshServer:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        self.folder.chmod(0o700)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)], check=True)
        options = {
            "ListenAddress": "127.0.0.1", "Port": self.port, "HostKey": self.folder / "host", "PidFile": "none",
            "AuthorizedKeysFile": self.folder / "user.pub", "StrictModes": "no", "PermitRootLogin": "yes", "UsePAM": "no",
        }  # fmt: skip
        configuration = self.folder / "sshd_config"
        configuration.write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        sshd = shutil.which("sshd")
        assert sshd is not None
        self.process = subprocess.Popen([sshd, "-D", "-f", str(configuration), "-E", str(self.folder / "log")])
        deadline = time.monotonic() + 20
        while subprocess.run([*self.command.split()[:-2], "127.0.0.1", "true"], capture_output=True).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.2)
        return self

    def __exit__(self, *error: object) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    @property
    def command(self) -> str:
        options = ("BatchMode=yes", f"Port={self.port}", "StrictHostKeyChecking=no", f"UserKnownHostsFile={self.folder}/known")
        return f"ssh -q -F none -i {self.folder}/user {' '.join(f'-o {option}' for option in options)} {{host}} {{command}}"
