"""Screenshots for the README: `make pictures` after `make demo`, with Debian's Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from l3_platform.orchestration.instance import prepare_home
from l3_platform.orchestration.services import free_port
from tests.end_to_end.browser import chromium

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    home = prepare_home()
    IMAGES.mkdir(exist_ok=True)
    web, tracking = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("l3")), "up", "--port", str(web), "--mlflow-port", str(tracking)]
    servers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert servers.stdout is not None
        while "Ctrl-C" not in (line := servers.stdout.readline()):
            if not line:
                raise SystemExit(f"l3 up ended; see the logs under {home}")
        dagster(f"http://127.0.0.1:{web}")
        mlflow(f"http://127.0.0.1:{tracking}")
    finally:
        servers.terminate()
        servers.wait()


def dagster(url: str) -> None:
    with chromium(3400, 3300) as page:
        page.goto(f"{url}/asset-groups")
        page.get_by_text("evaluate", exact=True).first.wait_for(timeout=60_000)
        time.sleep(3)
        page.keyboard.press("Alt+e")  # expand all groups
        time.sleep(4)
        page.mouse.move(1900, 2000)
        page.mouse.wheel(0, 800)  # one step out is all there is
        time.sleep(2)
        page.mouse.down()
        page.mouse.move(1880, 2480, steps=10)  # and drag it into the middle
        page.mouse.up()
        time.sleep(2)
        page.screenshot(path=IMAGES / "asset-graph.png", clip={"x": 545, "y": 200, "width": 2800, "height": 2850})


def mlflow(url: str) -> None:
    """The charts of the newest run of `pretrained`."""
    with chromium(1500, 2900) as page:
        run = newest_run(url, "pretrained")
        page.goto(f"{url}/#/experiments/{run['experiment_id']}/runs/{run['run_id']}/model-metrics")
        time.sleep(12)  # the charts draw themselves one by one
        page.screenshot(path=IMAGES / "mlflow.png", clip={"x": 205, "y": 1772, "width": 900, "height": 743})


def newest_run(url: str, name: str) -> dict[str, str]:
    body = f'{{"experiment_ids": ["1"], "filter": "attributes.run_name = \'{name}\'", "max_results": 1}}'
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/runs/search", body.encode(), {"Content-Type": "application/json"})

    return json.loads(urllib.request.urlopen(request, timeout=30).read())["runs"][0]["info"]


if __name__ == "__main__":
    main()
