"""Training as one JobSet, by kubectl: it outlives its client and is found again by its name, which is the folder's."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from l3_platform.launch.attempts import Attempt, next_path
from l3_platform.launch.jobset import manifest
from l3_platform.launch.protocol import NotSubmitted, State, job_name
from l3_platform.settings import Kubernetes, SettingsError
from l3_platform.settings import Train as TrainSettings
from l3_platform.train.job import TrainingError, TrainJob

ENDED = ("Completed", "Failed")
POD_LINES = 200  # kept of every pod, before the pods are deleted


class KubernetesJobSet:
    """A `Launcher`. `submit` attaches to the folder's JobSet where one waits or runs. Restarts within it are the
    JobSet controller's; lines are read from the claim, which this machine mounts too."""

    def __init__(self, settings: TrainSettings, kubernetes: Kubernetes) -> None:
        if not shutil.which("kubectl"):
            raise SettingsError("train.launcher=kubernetes: there is no kubectl on this machine's PATH")
        self._settings = settings
        self._kubernetes = kubernetes
        self._job: TrainJob | None = None
        self._name = ""
        self._state, self._said, self._asked_at = State("running"), "", 0.0
        self._attempt: Attempt | None = None
        self._news: list[str] = []

    def submit(self, job: TrainJob) -> None:
        folder = Path(job.folder).absolute()
        wanted = manifest(folder, next_path(job), self._settings, self._kubernetes)
        self._job, self._name = job, job_name(folder)
        self._state, self._said, self._asked_at = State("running"), "", 0.0
        self._attempt = Attempt.newest(job)
        if self._attempt:
            self._attempt.skip()
        try:
            found = self._get()
            if found and not _condition(found, *ENDED):
                self._news.append(f"found JobSet {self._name} again ({folder})")
                return
            if found:
                self._delete()
            job.write(folder / "job.json")
            self._kubectl("create", "--filename=-", given=json.dumps(wanted))
        except TrainingError as error:
            self._name = ""  # what another client has created goes on
            raise NotSubmitted(
                f"train.launcher=kubernetes: {str(error).splitlines()[-1]}; `kubectl get jobsets` must work on this machine "
                "(settings kubernetes.context and kubernetes.namespace)"
            ) from error
        self._news.append(f"created JobSet {self._name} ({folder})")

    def poll(self) -> State:
        now = time.monotonic()
        if self._state.name == "running" and now - self._asked_at >= self._kubernetes.poll_seconds:
            self._asked_at = now
            self._ask()
        return self._state

    def cancel(self) -> None:
        """Deletes the JobSet, which sends SIGTERM and grants shutdown_seconds, and waits; one that completed stays a day."""
        if self._name and self._state.name != "finished":
            self._keep_pod_logs()
            self._delete()

    def logs(self) -> list[str]:
        news, self._news = self._news, []
        if self._attempt:
            news += self._attempt.lines()
        newest = Attempt.newest(self._job) if self._job else None
        if newest and (self._attempt is None or newest.path != self._attempt.path):
            self._attempt = newest
            news += newest.lines()
        return news

    def tail(self, lines: int = 20) -> str:
        return self._attempt.tail(lines) if self._attempt else ""

    def _ask(self) -> None:
        try:
            found = self._get()
        except TrainingError:  # the API server does not answer, which is no reason to give up
            return
        if found is None:
            self._state = State("stopped", f"JobSet {self._name} was deleted in Kubernetes; run again to resume")
            return
        status = found.get("status", {})
        ended = _condition(found, *ENDED)
        waits = _condition(found, "Suspended")
        words = f"JobSet {self._name} is suspended: {waits['message']}" if waits else ""
        words = words or (f"JobSet {self._name} restarted, {status['restarts']} times by now" if status.get("restarts") else "")
        if words and words != self._said:
            self._news.append(words)
            self._said = words
        if ended and ended["type"] == "Completed":
            self._state = State("finished")
        elif ended:
            assert self._job is not None
            newest = Attempt.newest(self._job)
            lost = State("crashed", f"JobSet {self._name} failed: {ended.get('message', '')}")
            said = newest.said() if newest else None
            self._state = said if said and said.name == "failed" else lost

    def _get(self) -> dict[str, Any] | None:
        found = self._kubectl("get", "jobset", self._name, "--ignore-not-found", "--output=json")
        return json.loads(found) if found else None

    def _delete(self) -> None:
        self._kubectl("delete", "jobset", self._name, "--ignore-not-found", "--cascade=foreground", "--wait=true")

    def _keep_pod_logs(self) -> None:
        """What the agents print is not on the claim; it goes beside the ranks' logs, for `tail`."""
        if self._attempt:
            command = ["logs", f"--selector=jobset.sigs.k8s.io/jobset-name={self._name}", "--prefix", f"--tail={POD_LINES}"]
            kept = subprocess.run([*self._base(), *command], capture_output=True, text=True)
            if kept.stdout:
                (self._attempt.path / "pods.log").write_text(kept.stdout)

    def _base(self) -> list[str]:
        context = [f"--context={self._kubernetes.context}"] if self._kubernetes.context else []
        return ["kubectl", f"--namespace={self._kubernetes.namespace}", *context]

    def _kubectl(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run([*self._base(), *arguments], input=given, capture_output=True, text=True)
        if done.returncode:
            raise TrainingError(f"kubectl {arguments[0]} {self._name}: {done.stderr.strip()}")
        return done.stdout.strip()


def _condition(found: dict[str, Any], *kinds: str) -> dict[str, str] | None:
    """The condition of one of these kinds that holds."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] in kinds and one["status"] == "True"), None)
