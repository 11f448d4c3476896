#!/usr/bin/env python3
"""A simulation of kubectl and of the JobSet controller, for want of a cluster: state in files, pods as processes.

It knows what `l3_platform.launch.kubernetes` asks: create, get, delete and logs. `FAKE_KUBECTL` is its folder. Where there
is a file `run-pods` in it, the pods of a JobSet run, all on the loopback, and the set is restarted and ended as the
failure policies in its manifest say; else the test writes the status.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_KUBECTL"])


def main(arguments: list[str]) -> int:
    verb, *rest = [one for one in arguments if not one.startswith(("--namespace", "--context"))]
    with open(HOME / "calls.log", "a") as log:
        log.write(" ".join(arguments) + "\n")
    if (HOME / "unreachable").exists():
        print("Unable to connect to the server", file=sys.stderr)
        return 1
    if verb == "create":
        return create(json.load(sys.stdin))
    if verb == "controller":
        Controller(rest[0]).run()
        return 0
    if verb == "logs":
        name = next(one for one in rest if one.startswith("--selector")).rpartition("=")[2]
        print("".join(path.read_text() for path in sorted(HOME.glob(f"{name}-*.log"))), end="")
        return 0
    state = HOME / f"{rest[1]}.json"
    if verb == "get" and state.exists():
        print(state.read_text())
    if verb == "delete" and state.exists():
        delete(state)
    return 0


def create(manifest: dict[str, Any]) -> int:
    name = manifest["metadata"]["name"]
    if (HOME / f"{name}.json").exists():
        print(f'Error from server (AlreadyExists): jobsets.jobset.x-k8s.io "{name}" already exists', file=sys.stderr)
        return 1
    write(name, manifest)
    if (HOME / "run-pods").exists():
        with open(HOME / "controller.log", "a") as log:
            child = subprocess.Popen(
                [sys.executable, __file__, "controller", name],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        (HOME / f"{name}.pid").write_text(str(child.pid))
    return 0


def delete(state: Path) -> None:
    pid = HOME / f"{state.stem}.pid"
    if pid.exists():
        number = int(pid.read_text())
        with contextlib.suppress(ProcessLookupError):  # its set has ended
            os.kill(number, signal.SIGTERM)
        while (HOME / f"{state.stem}.runs").exists():
            time.sleep(0.1)
        pid.unlink()
    state.unlink()


def write(name: str, manifest: dict[str, Any]) -> None:
    new = HOME / f"{name}.new"
    new.write_text(json.dumps(manifest))
    os.replace(new, HOME / f"{name}.json")


class Controller:
    """Of one JobSet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.manifest = json.loads((HOME / f"{name}.json").read_text())
        self.job = self.manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
        self.pod = self.job["template"]["spec"]
        self.pods: list[subprocess.Popen[bytes]] = []
        self.deleted = False
        signal.signal(signal.SIGTERM, self._delete)

    def run(self) -> None:
        (HOME / f"{self.name}.runs").touch()
        (rule,) = self.job["podFailurePolicy"]["rules"]
        policy, restarts = self.manifest["spec"]["failurePolicy"], 0
        try:
            while not self.deleted:
                codes = self._attempt(restarts)
                if self.deleted:
                    return
                if not any(codes):
                    return self._status(restarts, "Completed", "jobset completed successfully")
                fatal = any(code in rule["onExitCodes"]["values"] for code in codes)
                if fatal or restarts == policy["maxRestarts"]:
                    return self._status(restarts, "Failed", f"exit codes {codes}")
                restarts += 1
                self._status(restarts)
        finally:
            (HOME / f"{self.name}.runs").unlink()

    def _attempt(self, restart: int) -> list[int]:
        """Exit codes of the pods that ended by themselves; the first failure ends the others (BlockingRecreate)."""
        self.pods = [self._pod(index, restart) for index in range(self.job["completions"])]
        while not self.deleted and any(pod.poll() is None for pod in self.pods) and not any(pod.poll() for pod in self.pods):
            time.sleep(0.1)
        codes = [code for pod in self.pods if (code := pod.poll()) is not None]
        for pod in self.pods:
            pod.terminate()
        for pod in self.pods:
            try:
                pod.wait(self.pod["terminationGracePeriodSeconds"])
            except subprocess.TimeoutExpired:
                pod.kill()
                pod.wait()
        return codes

    def _pod(self, index: int, restart: int) -> subprocess.Popen[bytes]:
        (container,) = self.pod["containers"]
        host = f"{self.name}-node-0-0.{self.name}"
        environment = {"JOB_COMPLETION_INDEX": str(index)}
        for variable in container["env"]:
            value = str(restart) if "valueFrom" in variable else variable["value"]
            environment[variable["name"]] = value.replace("$(L3_RESTART)", str(restart))
        command = [sys.executable, *(word.replace(host, "127.0.0.1") for word in container["command"][1:])]
        with open(HOME / f"{self.name}-node-0-{index}.log", "ab") as log:
            return subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _status(self, restarts: int, condition: str = "", message: str = "") -> None:
        conditions = [{"type": condition, "status": "True", "message": message}] if condition else []
        write(self.name, self.manifest | {"status": {"restarts": restarts, "conditions": conditions}})

    def _delete(self, *_: object) -> None:
        self.deleted = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
