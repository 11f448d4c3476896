"""The first five minutes of a user: `l3 up`, look at the graph, click Materialize, read the card, Ctrl-C."""

from __future__ import annotations

import shutil
import time
import urllib.request
from collections.abc import Iterator

import pytest

from l3_platform.lineage import STAGES
from l3_platform.orchestration.services import free_port
from tests.end_to_end.browser import chromium
from tests.end_to_end.buttons import Web
from tests.end_to_end.conftest import World, graphql, wait_for

pytestmark = pytest.mark.slow

MATERIALIZED = """
query Newest($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 1) { runId timestamp } } } }"""


def newest(web: Web, asset: str) -> list[dict]:
    return graphql(web.url, MATERIALIZED, key={"path": [asset]})["assetOrError"]["assetMaterializations"]


@pytest.fixture(scope="module")
def web(curated: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One `l3 up` for all: ready within a minute, and on Ctrl-C it leaves no process."""
    world = World(tmp_path_factory.mktemp("web") / "home")
    shutil.copytree(curated.home, world.home)
    started = time.monotonic()
    web = Web(world)
    assert time.monotonic() - started < 60
    yield web
    web.stop()


def test_up_prints_two_addresses_and_both_answer(web):
    addresses = [line.split()[-1] for line in (web.world.home / "up.log").read_text().splitlines() if "http://" in line]
    assert len(addresses) == 2
    for address in addresses:
        assert urllib.request.urlopen(address, timeout=10).status == 200


def test_the_graph_shows_every_stage(web):
    nodes = graphql(web.url, "{ assetNodes { assetKey { path } } }")["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes} == set(STAGES)


def test_an_asset_is_materialized_by_clicking_and_its_card_opens(web):
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


def test_a_port_in_use_is_one_sentence_that_names_who_has_it(web):
    second = web.world.l3("up", "--port", str(web.port), "--mlflow-port", str(free_port()))
    assert second.returncode == 1
    assert f"port {web.port} on 127.0.0.1 is in use by" in second.stderr and "--port" in second.stderr
    assert "Traceback" not in second.stderr
