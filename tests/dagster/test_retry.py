"""What failed in a finished dataset can be made again alone, and only where the settings ask for it."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa
import pytest

from l3_platform.lineage import EVERYTHING, Catalog
from l3_platform.orchestration.resources import Tracking
from l3_platform.orchestration.stage import Build, Built, _made
from l3_platform.scaling.proxy import failed
from l3_platform.settings import load
from l3_platform.store import Output

STAGE = "language_identifier"  # any stage without inputs
ROWS = pa.table({"x": [1]})


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Builds the dataset of two points, of which `diverging` fail; returns it with the points that were trained."""
    monkeypatch.setenv("L3_HOME", str(tmp_path))

    def made(*overrides: str, diverging: tuple[str, ...] = ()):
        trained = []

        def body(build: Build) -> Built:
            for name in sorted({"a", "b"} - build.out.finished()):
                trained.append(name)
                error = RuntimeError("loss nan")
                build.out.put(name, failed(ROWS.schema, name, error) if name in diverging else Output.annotated(ROWS))
            return ["a", "b"], {}

        catalog = Catalog(load("demo", overrides), ["s1"], str)
        context = dg.build_asset_context()
        result = _made(context, catalog, Tracking(), STAGE, EVERYTHING, body, lambda settings: settings.scaling.retry_failed)
        return result.dataset, trained

    return made


def test_a_failed_point_leaves_the_others_a_dataset_with_its_reason(make):
    dataset, _ = make(diverging=("b",))
    assert (dataset.manifest.counts.kept, dataset.manifest.counts.failed) == (1, 1)
    assert dataset.quarantine()["detail"].to_pylist() == ["loss nan"]


def test_what_failed_stays_as_it_is_until_somebody_asks(make):
    make(diverging=("b",))
    dataset, trained = make()
    assert trained == []
    assert dataset.manifest.counts.failed == 1


def test_a_retry_makes_what_failed_again_and_nothing_else(make):
    make(diverging=("b",))
    dataset, trained = make("scaling.retry_failed=true")
    assert trained == ["b"]
    assert (dataset.manifest.counts.kept, dataset.manifest.counts.failed) == (2, 0)


def test_a_retry_that_fails_again_is_the_same_dataset(make):
    before, _ = make(diverging=("b",))
    after, trained = make("scaling.retry_failed=true", diverging=("b",))
    assert trained == ["b"]
    assert after.digest == before.digest


def test_a_retry_of_what_did_not_fail_does_nothing(make):
    make()
    assert make("scaling.retry_failed=true")[1] == []
