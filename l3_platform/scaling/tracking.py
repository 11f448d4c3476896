"""A sweep in MLflow: one nested run a point, under the run of the whole sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_points(table: pa.Table, client: MlflowClient, parent_run_id: str, experiment_id: str) -> dict[str, str]:
    """A finished child run for each row of the sweep, unless the parent has it already. Returns run ids by point.

    Every column is a parameter of the run but the losses; every number is a metric, too. Nulls are left out.
    """
    from mlflow.entities import Metric, Param
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    children = client.search_runs([experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_run_id}'", max_results=5000)
    logged = {child.data.params.get("point", ""): child.info.run_id for child in children}
    for row in table.to_pylist():
        if row["point"] in logged:
            continue
        run = client.create_run(experiment_id, tags={MLFLOW_PARENT_RUN_ID: parent_run_id}, run_name=row["point"])
        known = {name: value for name, value in row.items() if value is not None}
        client.log_batch(
            run.info.run_id,
            metrics=[
                Metric(name, float(value), run.info.start_time, 0) for name, value in known.items() if not isinstance(value, str)
            ],
            params=[Param(name, str(value)) for name, value in known.items() if "loss" not in name],
        )
        client.set_terminated(run.info.run_id)
        logged[row["point"]] = run.info.run_id
    return {row["point"]: logged[row["point"]] for row in table.to_pylist()}
