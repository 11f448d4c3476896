"""Which versions of a dataset stay: the newest few, and all that are young."""

from __future__ import annotations

import json
import time

from l3_platform.settings import Settings, home
from l3_platform.store import files


def remove_old(settings: Settings, now: float | None = None) -> list[str]:
    """Delete versions beyond `retention.versions` that are older than `retention.days`; returns `asset/partition/version`.

    Versions without a manifest are builds cut off: they count as their folder's newest file does, and a locked one stays.
    """
    now = time.time() if now is None else now
    root = settings.store.root or str(home() / "data")
    removed = []
    for asset in files.names(root):
        for partition in files.names(files.join(root, asset)):
            folder = files.join(root, asset, partition)
            versions = [name for name in files.names(folder) if not name.endswith((".lock", ".guard"))]
            by_age = sorted(versions, key=lambda name: _made(files.join(folder, name)), reverse=True)
            for version in by_age[settings.retention.versions :]:
                path = files.join(folder, version)
                if now - _made(path) > settings.retention.days * 86_400 and not files.exists(f"{path}.lock"):
                    files.remove(path)
                    removed.append(f"{asset}/{partition}/{version}")
    return removed


def _made(folder: str) -> float:
    """When a version was finished, in seconds since 1970; 0 for one that never was."""
    try:
        cost = json.loads(files.read(files.join(folder, "cost.json")))
        return time.mktime(time.strptime(cost["finished"][:19], "%Y-%m-%dT%H:%M:%S"))
    except (FileNotFoundError, ValueError, KeyError):
        return 0.0
