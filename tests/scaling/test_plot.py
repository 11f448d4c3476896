import pyarrow as pa
import pyarrow.csv
import pytest

from l3_platform.scaling.laws import fit_isoflop
from l3_platform.scaling.plot import isoflop_chart

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def paper_runs(shared_data) -> pa.Table:
    return pa.csv.read_csv(shared_data / "scaling" / "llama3-isoflops-digitised.csv")


def test_the_chart_of_the_paper_s_runs_is_a_png_of_under_100_kb(paper_runs):
    chart = isoflop_chart(paper_runs, fit_isoflop(paper_runs), 3.8e25)
    assert chart.startswith(PNG)
    assert len(chart) < 100_000


def test_the_same_runs_give_the_same_picture(paper_runs):
    law = fit_isoflop(paper_runs)
    assert isoflop_chart(paper_runs, law) == isoflop_chart(paper_runs, law)


def test_a_sweep_without_any_usable_budget_still_has_a_chart():
    runs = pa.table({"flops": [1e10] * 2, "params": [1e5, 2e5], "tokens": [17000, 8300], "loss": [5.0, 5.1]})
    assert isoflop_chart(runs, fit_isoflop(runs), 1e12).startswith(PNG)
