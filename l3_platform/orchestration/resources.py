"""What every asset is given: the settings tree with its catalog, and the MLflow server."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from l3_platform import settings as settings_module
from l3_platform.crawl import sources
from l3_platform.lineage import Catalog
from l3_platform.orchestration.services import wait_for_mlflow
from l3_platform.settings import Settings, home

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SNAPSHOTS = dg.DynamicPartitionsDefinition(name="snapshots")
CANDIDATE_SETS = dg.DynamicPartitionsDefinition(name="candidate_sets")
PROFILE, OVERRIDES, TRACKING_URI, WEB_URL = "L3_PROFILE", "L3_SET", "MLFLOW_TRACKING_URI", "L3_WEB_URL"


class Platform(dg.ConfigurableResource):
    """One tree of settings. Recorded with each run, so a run says what it was made with."""

    profile: str = Field(default_factory=lambda: os.environ.get(PROFILE, "demo"), description="A file of l3_platform/profiles.")
    overrides: list[str] = Field(
        default_factory=lambda: json.loads(os.environ.get(OVERRIDES, "[]")),
        description="`section.key=value`, over the profile.",
    )

    @property
    def settings(self) -> Settings:
        return settings_module.load(self.profile, self.overrides)

    def catalog(self) -> Catalog:
        """Opened anew for each step: inputs may have been made since."""
        settings = self.settings
        source = sources.from_settings(settings.crawl)
        return Catalog(settings, source.snapshots(), source.identity)


class Tracking(dg.ConfigurableResource):
    """Our own MLflow resource around MlflowClient: no global state, nothing imported until it is used.

    A server that does not answer costs a warning, never a run.
    """

    uri: str = Field(default_factory=lambda: os.environ.get(TRACKING_URI, ""), description="Empty: metrics stay on disk only.")
    experiment: str = "l3"

    @cached_property
    def client(self) -> MlflowClient:
        from mlflow.tracking import MlflowClient

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        wait_for_mlflow(home(), self.uri)
        return MlflowClient(tracking_uri=self.uri)

    def start_run(self, context: dg.AssetExecutionContext, name: str, tags: Mapping[str, Any], parent: str = "") -> str:
        """A new run that names its Dagster run; returns its id, or "" where no server answers."""
        if not self.uri:
            return ""
        tags = {"mlflow.runName": name, "dagster.run_id": context.run_id, "dagster.asset": name, **tags}
        if web := os.environ.get(WEB_URL):
            tags["dagster.url"] = f"{web}/runs/{context.run_id}"
        if parent:
            tags["mlflow.parentRunId"] = parent
        try:
            return self.client.create_run(self.experiment_id, tags={key: str(tag) for key, tag in tags.items()}).info.run_id
        except Exception as error:
            context.log.warning(f"MLflow at {self.uri} does not answer ({error}); metrics stay in the dataset's folder")
            return ""

    @cached_property
    def experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else self.client.create_experiment(self.experiment)

    def log_metrics(self, context: dg.AssetExecutionContext, run_id: str, metrics: Mapping[str, float]) -> None:
        try:
            for name, value in metrics.items():
                self.client.log_metric(run_id, name, value)
        except Exception as error:
            context.log.warning(f"MLflow at {self.uri} does not answer ({error}); metrics stay in the dataset's folder")

    def finish_run(self, context: dg.AssetExecutionContext, run_id: str, status: str) -> None:
        """The parent sets the final status: FINISHED, FAILED or KILLED."""
        if run_id:
            try:
                self.client.set_terminated(run_id, status)
            except Exception as error:
                context.log.warning(f"MLflow at {self.uri} does not answer ({error}); run {run_id} keeps status RUNNING there")
