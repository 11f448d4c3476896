"""The first five minutes of a user: `l3 up`, look at the graph, click Materialize, read the card, Ctrl-C."""

from __future__ import annotations

import time
import urllib.request

import pytest

from l3_platform.lineage import STAGES
from l3_platform.orchestration.services import free_port
from tests.end_to_end.browser import chromium
from tests.end_to_end.conftest import wait_for
from tests.end_to_end.test_faults import Web, graphql

pytestmark = pytest.mark.slow

MATERIALIZED = """
query Newest($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 1) { runId timestamp } } } }"""


def newest(web: Web, asset: str) -> list[dict]:
    return graphql(web.url, MATERIALIZED, key={"path": [asset]})["assetOrError"]["assetMaterializations"]


def test_up_serves_both_addresses_within_a_minute_and_ctrl_c_leaves_nothing(world):
    started = time.monotonic()
    web = Web(world)
    addresses = [line.split()[-1] for line in (world.home / "up.log").read_text().splitlines() if "http://" in line]
    assert len(addresses) == 2
    for address in addresses:
        assert urllib.request.urlopen(address, timeout=10).status == 200
    assert time.monotonic() - started < 60
    web.stop()


def test_an_asset_is_materialized_by_clicking_and_its_card_opens(world):
    web = Web(world)
    before = newest(web, "data_mix")
    with chromium() as page:
        page.goto(f"{web.url}/asset-groups")
        for group in ("crawl", "clean", "dedup", "quality", "mix", "scaling", "pretrain", "evaluate"):
            page.get_by_text(group, exact=True).first.wait_for(timeout=30_000)
        page.goto(f"{web.url}/assets/data_mix?view=overview")
        page.get_by_role("button", name="Materialize").first.click(timeout=30_000)
        wait_for(lambda: newest(web, "data_mix") != before, 90, "the materialization of data_mix")
        page.reload()
        page.get_by_text("tokens_available").first.wait_for(timeout=30_000)
        shown = page.inner_text("body")
    assert "Shares of tokens a domain" in shown  # the description
    assert "made from" in shown and "digest" in shown  # the card
    web.stop()


def test_a_port_in_use_is_one_sentence_that_names_who_has_it(world):
    web = Web(world)
    second = world.l3("up", "--port", str(web.port), "--mlflow-port", str(free_port()))
    assert second.returncode == 1
    assert f"port {web.port} on 127.0.0.1 is in use by" in second.stderr and "--port" in second.stderr
    assert "Traceback" not in second.stderr
    web.stop()


def test_the_graph_shows_every_stage(world):
    web = Web(world)
    nodes = graphql(web.url, "{ assetNodes { assetKey { path } } }")["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes} == set(STAGES)
    web.stop()
