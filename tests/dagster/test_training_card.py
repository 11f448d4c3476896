"""The card of a training: a timeline, the interruptions with their causes, and the share of the clock that counted."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from l3_platform.launch.causes import Cause
from l3_platform.launch.effective_time import PARTS, STEPS, EffectiveTime, Span
from l3_platform.launch.interruptions import Interruption
from l3_platform.lineage import EVERYTHING
from l3_platform.orchestration.card import markdown
from l3_platform.orchestration.report import AssetReport, Report, _unfinished, as_json, show
from l3_platform.orchestration.training_card import NOTE, training_card
from l3_platform.store import MissingDataset

START = datetime(2026, 1, 1, tzinfo=UTC)


def lost(attempt: int, cause: Cause, after: float, back: float | None) -> Interruption:
    return Interruption(
        attempt=attempt, cause=cause, planned=cause.planned, evidence=f"rank-00000.log: evidence {attempt}", started=START,
        lost=START + timedelta(seconds=after), restarted=None if back is None else START + timedelta(seconds=back), step=70,
        checkpoint=60, steps_lost=10,
    )  # fmt: skip


def told(interruptions: list[Interruption]) -> EffectiveTime:
    starts = [10.0 * number for number in range(len(interruptions) + 1)]
    spans = [
        span
        for start in starts
        for span in (Span(part="start-up", start=start, end=start + 1), Span(part=STEPS, start=start + 1, end=start + 10))
    ]
    parts = dict.fromkeys(PARTS, 0.0) | {"start-up": 1.0 * len(starts), STEPS: 9.0 * len(starts)}
    return EffectiveTime(
        share=0.9, wall_seconds=10.0 * len(starts), parts=parts, spans=spans, attempts=len(starts), interruptions=interruptions,
        metrics={"tokens_per_second": 1000.0, "tokens_per_second_per_device": 125.0},
    )  # fmt: skip


def test_a_card_shows_the_share_the_timeline_and_each_interruption() -> None:
    rows = [
        lost(1, Cause.NCCL_WATCHDOG_TIMEOUT, 10, 12.5),
        lost(2, Cause.FAULTY_GPU, 20, 20.5),
        lost(3, Cause.FAULTY_GPU, 30, None),
    ]
    card = training_card({NOTE: {"pretrained-0123": told(rows).told()}})
    assert card.facts["effective training time"] == pytest.approx(0.9) and card.facts["attempts"] == 4
    picture = card.charts["where the time went"]
    assert picture.startswith(b"\x89PNG") and 3_000 < len(picture) < 100_000
    table = markdown(card.samples["interruptions"])
    assert "| 1 | NCCL watchdog timeout | False | 2026-01-01 00:00:10 | 2.5 s | 70 | 10 | rank-00000.log: evidence 1 |" in table
    assert "for good" in table
    causes = card.samples["causes"].to_pylist()
    assert causes[0] == {"cause": "faulty GPU", "here": 2, "Llama 3, of 419": "148"}


def test_a_long_run_still_fits_on_a_card() -> None:
    rows = [lost(number, Cause.FAULTY_GPU, 10.0 * number, 10.0 * number) for number in range(1, 420)]
    assert len(training_card({NOTE: {"pretrained-0123": told(rows).told()}}).charts["where the time went"]) < 100_000


def test_several_jobs_of_one_asset_are_weighed_by_their_time() -> None:
    jobs = {"long_context-1": told([]), "long_context-2": told([lost(1, Cause.UNKNOWN, 10, 11)])}
    card = training_card({NOTE: {name: one.told() for name, one in jobs.items()}})
    assert card.facts["effective training time"] == pytest.approx((9 + 18) / 30) and card.facts["attempts"] == 3


def test_the_report_prints_evidence_as_it_is_even_where_it_looks_like_markup() -> None:
    line = "rank-00001.log: RuntimeError: [/gloo/transport/tcp/pair.cc:553] Connection closed by peer"
    row = lost(1, Cause.NETWORK, 10, 12.5).model_copy(update={"evidence": line})
    told_of = Report(
        profile="demo", source="demo", snapshots=[], data="", assets=[], checks=[], losses=[], links={},
        training={"pretrained": {"pretrained-0123": told([row])}},
    )  # fmt: skip
    out = io.StringIO()
    show(told_of, out)
    printed = out.getvalue()
    assert "90.0%" in printed and "network switch or cable" in printed.replace("\n", " ") and "[/gloo" in printed
    assert re.search(r"1,000 +125 +– ", printed)  # no MFU without `train.peak_flops`
    assert json.loads(as_json(told_of))["training"]["pretrained"]["pretrained-0123"]["share"] == 0.9


def test_the_report_says_how_far_an_unfinished_training_has_come() -> None:
    words = "step 27, 3,456 of 38,400 tokens; newest checkpoint step-00000020; last interrupted by [network]"
    told_of = Report(
        profile="demo", source="demo", snapshots=[], data="", checks=[], losses=[], links={}, training={},
        assets=[AssetReport("pretrained", materialized=False, unfinished=words), AssetReport("annealed", materialized=False)],
    )  # fmt: skip
    out = io.StringIO()
    show(told_of, out)
    printed = out.getvalue()
    assert f"pretrained: not finished: {words} 0 of 2 assets materialized" in " ".join(printed.split())
    assert re.search(r"pretrained +not finished", printed) and re.search(r"annealed +not materialized", printed)


def test_a_training_that_has_begun_is_found_by_the_identity_of_its_dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("L3_HOME", str(tmp_path))

    class Begun:
        def partitions(self, stage: str) -> list[str]:
            return ["demo-1"] if stage == "documents" else [EVERYTHING]

        def fingerprint(self, stage: str) -> str:
            if stage == "annealed":
                raise MissingDataset("pretrained")
            return "0123"

    catalog: Any = Begun()
    job = tmp_path / "checkpoints" / "pretrained-0123" / "job.json"
    job.parent.mkdir(parents=True)
    job.write_text("{}")
    assert _unfinished(catalog, "pretrained") == "no step yet; no checkpoint"
    assert _unfinished(catalog, "annealed") == _unfinished(catalog, "documents") == ""


def test_a_training_without_a_record_adds_nothing_to_its_card(tmp_path: Path) -> None:
    card = training_card({"seconds": 1.0})
    assert (card.samples, card.facts, card.charts) == ({}, {}, {})
