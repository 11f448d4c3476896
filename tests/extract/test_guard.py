import os
import signal
import time

import pytest

from l3_platform.extract import ExtractError, extract
from l3_platform.extract.guard import TooSlow, guarded
from l3_platform.extract.slim import Cost, slim
from l3_platform.settings import Extract

LARGE = Cost(size=1 << 23, depth=1, work=1, copies=0)


def test_depth_is_counted_without_elements_that_close_themselves():
    assert slim("<div><p>a<p>b<br><img src=x><ul><li>c<li>d</ul></div>")[1].depth == 2


def test_scripts_and_comments_hold_no_elements():
    assert slim("<script>'<div><div>'</script><!-- <div><div> --><div></div><div></div>")[1].depth == 1


def test_a_page_of_ordinary_size_is_ordinary_work():
    assert slim("<div><ul>" + "<li><a href='/x' class=y>x</a></li>" * 5000 + "</ul></div>")[1].work < 1_000_000


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 4000,
        "<table>" + "<div>x" * 4000,
        "".join(f"<font role={i}>" for i in range(2000)) + "<p>x" * 2000,
        "<ul><li>" * 4000,
    ],
    ids=["nesting", "foster parents", "formatting", "lists"],
)
def test_what_costs_the_square_of_its_size_is_seen_before_it_is_parsed(html):
    assert slim(html)[1].work > 5_000_000


def test_a_large_page_is_stopped_at_its_limit_wherever_it_is():
    trap = b"<p>x" * 1_000_000
    started = time.monotonic()
    with pytest.raises(ExtractError, match="max_seconds") as caught:
        extract(trap, settings=Extract(max_seconds=0.1))
    assert (caught.value.reason, time.monotonic() - started < 3) == ("too_slow", True)


def test_a_page_whose_tree_would_fill_the_memory_is_refused():
    trap = "".join(f"<font role={i}>" for i in range(20_000)) + "<p>x" * 20_000
    with pytest.raises(ExtractError, match="opened again") as caught:
        extract(trap.encode(), settings=Extract(max_depth=100_000))
    assert caught.value.reason == "too_deep"


def test_a_large_page_gives_the_same_from_its_own_process():
    body = "<p>The moraine lake lies under a ring of grey peaks, and its water keeps the colour of old glass.</p>"
    padding = "<!--" + "x" * (4 << 20) + "-->"
    page = f"<html><body><article>{body * 5}</article>%s</body></html>"
    assert extract((page % padding).encode()) == extract((page % "").encode())


def test_an_error_in_the_process_of_a_page_is_the_callers_error():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0, LARGE, Extract())


def test_a_process_that_dies_is_a_page_that_is_too_much():
    with pytest.raises(TooSlow, match="ended with status"):
        guarded(lambda: os.kill(os.getpid(), signal.SIGKILL), LARGE, Extract())
