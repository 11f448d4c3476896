import pyarrow as pa
import pytest

from l3_platform.scaling.isoflop import RUNS
from l3_platform.scaling.tracking import log_points

ROWS = [
    {"point": name, "flops": 1e10, "params": 100, "tokens": 8192, "spent_flops": 9e9, "loss": loss, "train_loss": 4.0}
    | {"layers": 1, "d_model": 32}
    for name, loss in (("small", 5.0), ("large", 4.5))
]
SWEEP = pa.Table.from_pylist(ROWS, schema=RUNS)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    experiment = client.create_experiment("sweep")
    parent = client.create_run(experiment)
    return client, parent.info.run_id, experiment, log_points(SWEEP, client, parent.info.run_id, experiment)


@pytest.mark.slow
def test_every_point_is_a_finished_run_under_the_parent(sweep):
    client, parent, _, ids = sweep
    runs = [client.get_run(run_id) for run_id in ids.values()]
    assert [run.data.tags["mlflow.parentRunId"] for run in runs] == [parent, parent]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
def test_a_point_s_run_holds_its_loss_and_shape(sweep):
    client, _, _, ids = sweep
    run = client.get_run(ids["large"])
    assert (run.data.metrics["loss"], run.data.params["d_model"]) == (4.5, "32")


@pytest.mark.slow
def test_logging_again_adds_no_run(sweep):
    client, parent, experiment, ids = sweep
    assert log_points(SWEEP, client, parent, experiment) == ids
    assert len(client.search_runs([experiment])) == 3
