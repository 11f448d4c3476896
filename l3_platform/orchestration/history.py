"""Dagster's SQLite databases under L3_HOME, opened once by a process instead of once an event."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy
import sqlalchemy.event as event
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS


def keep_open() -> None:
    """For each event Dagster makes a SQLAlchemy engine, which compiles its statements anew, and closes the database, which empties
    the write-ahead log into it: 0.2 core seconds an asset. Here an engine and its connections last as long as the process.
    """
    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        vars(module)["create_engine"] = _lasting_engine


def _lasting_engine(url: str, **_: Any) -> sqlalchemy.Engine:
    return _engine(url)


@functools.cache
def _engine(url: str) -> sqlalchemy.Engine:
    across_threads = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.QueuePool, connect_args=across_threads)
    event.listen(engine, "connect", _sync_at_checkpoints)
    engine.dispose = lambda close=True: None  # Dagster's, after each event
    return engine


def _sync_at_checkpoints(connection: Any, record: Any) -> None:
    """Under a write-ahead log a killed process loses nothing by this, and a power cut only the last events."""
    connection.execute("PRAGMA synchronous = NORMAL")
