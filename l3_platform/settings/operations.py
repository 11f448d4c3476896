"""Where shards are made, where datasets and metrics lie, what is kept: nothing here changes what is made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from l3_platform.settings.section import Section


class Engine(Section):
    """Where shards are made; nothing here changes what is in them."""

    backend: Literal["local", "ray"] = Field(default="local", description="processes of this machine, or Ray Core (extra `ray`)")
    ray_address: str = Field(default="", description="`auto`, host:port or ray://host:port; empty: a cluster of this machine only")
    workers: int = Field(default=0, description="shards at a time; 0: one a core, on Ray of the cluster")
    memory_limit: str = Field(default="1GB", description="DuckDB's, a worker")
    attempts: int = Field(default=3, ge=1, description="tries of a shard whose worker died")


class Store(Section):
    root: str = Field(default="", description="fsspec URL of the datasets; empty: $L3_HOME/data")
    compression_level: int = 3
    rows_per_group: int = 8192


class Mlflow(Section):
    tracking_uri: str = Field(
        default="", description="empty: the server that `l3 up` or `l3 demo` starts; none: metrics stay in each run's folder"
    )
    experiment: str = Field(default="l3", description="that runs are logged to; made where it is missing")


class Retention(Section):
    """What `l3 clean` and the retention asset keep."""

    versions: int = Field(default=3, description="newest versions of a dataset kept")
    days: int = Field(default=30, description="versions younger than this are kept too")
