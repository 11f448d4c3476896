"""Finding a row among shards, on disk and elsewhere, and reading it alone."""

import uuid

import pyarrow as pa
import pytest

from l3_platform.find import find, row_at
from l3_platform.settings import Engine
from l3_platform.store import Output, Writer

ENGINE = Engine(workers=1)


@pytest.fixture(params=["disk", "memory"])
def dataset(request, tmp_path):
    folder = str(tmp_path / "data") if request.param == "disk" else f"memory://find/{uuid.uuid4().hex}"
    out = Writer(folder, "numbers", "all", code_version="1", settings={}, inputs={}, rows_per_group=3)
    for shard in range(3):
        numbers = list(range(shard * 10, shard * 10 + 10))
        out.put(f"part-{shard}", Output.annotated(pa.table({"number": numbers, "offset": [str(number) for number in numbers]})))
    return out.commit([f"part-{shard}" for shard in range(3)])


def test_a_row_is_found_in_its_shard(dataset):
    (found,) = find(dataset.shards, "number = ?", [17], ["offset"], ENGINE)
    assert (found.shard.name, found.row, found.values) == ("part-1", 7, {"offset": "17"})


def test_rows_come_as_they_lie_or_in_the_order_that_is_asked_for(dataset):
    assert [one.values["number"] for one in find(dataset.shards, "number % 9 = 0", [], ["number"], ENGINE)] == [0, 9, 18, 27]
    first = find(dataset.shards, "true", [], ["number"], ENGINE, first="number DESC", limit=2)
    assert [one.values["number"] for one in first] == [29, 28]


def test_values_are_never_read_as_sql(dataset):
    assert find(dataset.shards, '"offset" = ?', ["' OR true --"], ["number"], ENGINE) == []


def test_no_shards_hold_nothing():
    assert find([], "true", [], ["number"], ENGINE) == []


@pytest.mark.parametrize("row", [0, 2, 3, 9])
def test_a_row_is_read_from_its_group(dataset, row):
    assert row_at(dataset.shards[2], row, ["number"]).to_pylist() == [{"number": 20 + row}]


def test_a_row_beyond_the_last_is_an_error(dataset):
    with pytest.raises(IndexError, match="there is no row 10, it has 10"):
        row_at(dataset.shards[0], 10)
