"""`l3 trained-on` on a world that was trained for real: two torchrun agents, a mixture that changes on the way."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.conftest import World

pytestmark = pytest.mark.slow


def index(world: World) -> list[dict[str, Any]]:
    shards = sorted((world.home / "data" / "token_shards").glob("all/*/*.parquet"))
    return pa.concat_tables([pq.read_table(shard) for shard in shards]).to_pylist()


def ask(world: World, *asked: str) -> dict[str, Any]:
    done = world.l3("trained-on", *asked, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_pages_of_every_domain_are_answered_and_the_ledger_agrees(undisturbed: World) -> None:
    rows = [row for row in index(undisturbed) if row["split"] == "train"]
    for domain in ("general", "math", "code", "multilingual"):
        url = next(row["url"] for row in rows if row["domain_group"] == domain)
        answer = ask(undisturbed, "pretrained", url)
        assert answer["verdict"] in ("seen", "seen in part", "beyond the end"), answer
        assert all(read["recorded"] for read in answer["fetches"][0]["sightings"])


def test_an_earlier_checkpoint_has_seen_less_and_says_what_comes(undisturbed: World) -> None:
    run = undisturbed.checkpoints()[0].parent
    rows = [row for row in index(undisturbed) if row["split"] == "train" and row["domain_group"] == "math"]
    answers = [(ask(undisturbed, str(run), row["url"]), ask(undisturbed, "pretrained", row["url"])) for row in rows[:4]]
    for early, late in answers:
        assert early["model"]["phases"][0]["step"] < late["model"]["phases"][0]["step"]
        before, after = early["fetches"][0], late["fetches"][0]
        assert before["sightings"] == after["sightings"][: len(before["sightings"])]
        assert [read["step"] for read in before["coming"]] == [
            read["step"] for read in after["sightings"][len(before["sightings"]) :]
        ]


def test_a_held_out_page_is_one_clear_paragraph(undisturbed: World) -> None:
    url = next(row["url"] for row in index(undisturbed) if row["split"] == "held_out")
    said = undisturbed.l3("trained-on", "pretrained", url)
    assert said.stdout.startswith(f"No: {url} (") and "is held out for evaluation" in said.stdout and said.stdout.count("\n") == 1


def test_what_the_run_was_fed_is_the_mix_before_and_after_its_change(undisturbed: World) -> None:
    report = json.loads(undisturbed.l3("report", "--json").stdout)
    (check,) = [check for check in report["checks"] if (check["asset"], check["name"]) == ("pretrained", "fed_as_mixed")]
    assert check["passed"] and any("from 65,536 tokens" in fact for fact in check["facts"]), check
