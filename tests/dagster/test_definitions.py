"""The code location: complete, light, and described for the people who use it."""

import json
import subprocess
import sys

import pytest

from docs.asset_graph import README, drawing
from jobs.definitions import definitions
from l3_platform.lineage import STAGES, inputs_of
from l3_platform.settings import load

HEAVY = ("torch", "mlflow", "ray", "transformers", "scipy", "matplotlib", "fasttext", "datasketch", "numba")
GROUPS = {"crawl", "clean", "dedup", "quality", "mix", "scaling", "data_value", "pretrain", "evaluate"}


@pytest.fixture(scope="module")
def graph():
    return definitions().resolve_asset_graph()


def loaded() -> dict:
    """Modules and processor seconds of a fresh process that loads the code location, as every step process does."""
    program = (
        "import time; start = time.process_time()\n"
        "import jobs.definitions; jobs.definitions.definitions().resolve_all_job_defs()\n"
        "import json, sys; print(json.dumps({'seconds': time.process_time() - start, 'modules': list(sys.modules)}))"
    )
    return json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)


def test_the_graph_has_every_stage_and_nothing_else(graph):
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == set(STAGES)


def test_the_readme_draws_the_graph():
    assert drawing() in README.read_text(encoding="utf-8"), "run `python -m docs.asset_graph`"


def test_the_graph_runs_as_the_lineage_says(graph):
    for name, stage in STAGES.items():
        (node,) = [node for node in graph.asset_nodes if node.key.to_user_string() == name]
        assert {key.to_user_string() for key in node.parent_keys} == set(inputs_of(name, load()))
        assert node.code_version == stage.version


def test_every_asset_tells_a_person_what_it_is(graph):
    for node in graph.asset_nodes:
        assert node.description and node.owners and node.kinds, node.key
        assert node.group_name in GROUPS


def test_every_asset_has_a_blocking_account_check(graph):
    checked = {key.asset_key for key in graph.asset_check_keys if key.name == "account_balances"}
    assert checked == set(graph.get_all_asset_keys())


def test_loading_the_code_location_imports_nothing_heavy():
    modules = loaded()["modules"]
    assert [name for name in HEAVY if name in modules] == []


def test_loading_the_code_location_takes_under_three_seconds_of_one_core():
    assert min(loaded()["seconds"] for _ in range(2)) < 3.0


def test_the_rebuild_is_scheduled_weekly_but_off_until_wanted():
    (schedule,) = [one for one in definitions().schedules or [] if one.name == "weekly_rebuild"]
    assert schedule.cron_schedule == "0 3 * * 0"
    assert schedule.default_status.value == "STOPPED"
