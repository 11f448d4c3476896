"""What a person sees of the long-context stages: the table, the heat map, and a check that warns or stops."""

import dagster as dg
import pytest

from assets.pretrain import _full_length, _show_long_context
from l3_platform.lineage import Catalog
from l3_platform.orchestration.card import card
from l3_platform.orchestration.resources import Tracking
from l3_platform.orchestration.stage import Check, Made, _judge
from tests.pretrained import catalog, long_context, settings

CHECK = Check("reached_full_length", _full_length, blocking=True, description="as far as wanted")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of a model that has to find every needle, and does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L3_HOME", str(tmp_path_factory.mktemp("card")))
        home = catalog(settings("long_context.needle_accuracy=1.0", "long_context.extra_slices=1"))
        yield Made(home, "all", home.inputs("long_context"), long_context(home), {})


def judged(made: Made, *overrides: str) -> dg.AssetCheckResult:
    chosen = settings("long_context.needle_accuracy=1.0", *overrides)
    return _judge(CHECK, [Made(Catalog(chosen, ["s1"], str), "all", {}, made.dataset, {})])


def test_a_length_that_is_not_reached_is_a_warning_or_stops_by_setting(made):
    warning, error = judged(made), judged(made, "long_context.required=true")
    assert not warning.passed and not error.passed
    assert (warning.severity, error.severity) == (dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR)
    assert "needles are found" in str(error.metadata["stopped because"].value)


def test_the_card_has_a_table_of_stages_and_a_heat_map(made):
    metadata = card(made, _show_long_context(made), Tracking(uri=""))
    stages = str(metadata["stages"].value)
    assert stages.count("128-") == 2 and "short loss after" in stages and "False" in stages
    assert str(metadata["needle in a haystack"].value).startswith("![needle in a haystack](data:image/png")
    assert metadata["needle"].endswith("at chance") and metadata["reached"] == 64
