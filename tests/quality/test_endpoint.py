"""Labels over HTTP from a real local server: asked once, tried again, counted, and never at the price of the run."""

import time

import pyarrow as pa
import pytest

from l3_platform.quality import chat
from l3_platform.quality.annotators import annotator
from l3_platform.quality.chat import EndpointError
from l3_platform.quality.endpoint import LOST_IN_A_ROW, verdict
from l3_platform.quality.questions import CODE, QUALITY
from l3_platform.settings import Annotator, Classifier, Engine, Quality, Settings
from tests.quality.model_server import serve


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("L3_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(chat, "FIRST_WAIT", 0.01)
    with serve(lambda document: "Yes." if "good" in document else "no") as server:
        yield server


def endpoint(server, question=QUALITY, **more):
    asked = Annotator(**{"url": server.url, "model": "judge", "retries": 2, "timeout_seconds": 5.0, **more})
    sections = {"quality": Quality(labels="endpoint"), "code": Classifier(labels="endpoint")}
    return annotator(question, Settings(annotator=asked, engine=Engine(workers=1), **sections))


def label(made, *texts: str) -> list[dict]:
    return made.label(pa.table({"text": list(texts)})).to_pylist()


def test_a_text_is_held_against_the_written_requirements(server):
    rows = label(endpoint(server), "a good text", "a bad one")
    assert [row["label"] for row in rows] == [True, False]
    (first,) = [request for request in server.requests if "a good text" in request["messages"][1]["content"]]
    assert first["messages"][0]["content"].startswith(QUALITY.requirements[:200])
    assert (first["path"], first["model"], first["temperature"]) == ("/v1/chat/completions", "judge", 0)


def test_each_question_has_requirements_of_its_own_and_a_file_replaces_them(server, tmp_path):
    label(endpoint(server, CODE), "x")
    (tmp_path / "mine.txt").write_text("Only poems will do.")
    settings = Settings(
        quality=Quality(labels="endpoint", requirements=str(tmp_path / "mine.txt")),
        annotator=Annotator(url=server.url, model="judge"),
    )
    label(annotator(QUALITY, settings), "x")
    systems = [request["messages"][0]["content"] for request in server.requests]
    assert systems[0].startswith(CODE.requirements[:100]) and systems[1].startswith("Only poems will do.")


def test_tokens_are_counted_as_the_server_counts_them(server):
    (row,) = label(endpoint(server), "good")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (100, 2)


def test_nothing_is_asked_twice_not_even_by_another_run(server):
    first = label(endpoint(server), "good", "bad")
    again = label(endpoint(server), "bad", "good", "new")
    assert len(server.requests) == 3
    assert again[:2] == first[::-1]


@pytest.mark.parametrize("change", [{"model": "another"}, {"max_tokens": 5}])
def test_another_model_or_room_for_the_answer_is_another_question(server, change):
    label(endpoint(server), "good")
    label(endpoint(server, **change), "good")
    assert len(server.requests) == 2


def test_only_the_beginning_of_a_long_text_is_sent_and_paid(server):
    label(endpoint(server, max_chars=100), "good " * 1000)
    assert server.requests[0]["messages"][1]["content"].count("good") == 20


def test_the_key_comes_from_the_environment_and_is_stored_nowhere(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    label(endpoint(server, api_key_variable="MY_KEY"), "good")
    assert server.requests[0]["key"] == "Bearer sk-secret"
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()] == []


@pytest.mark.parametrize("bad", [500, 503, 429, 408, "nonsense", "close"])
def test_a_failure_that_passes_is_tried_again(server, bad):
    server.bad_days = [bad, bad]
    assert label(endpoint(server), "good")[0]["label"] is True
    assert len(server.requests) == 3


def test_the_server_says_how_long_to_wait(server):
    server.bad_days, server.headers = [429], {"Retry-After": "1"}
    started = time.monotonic()
    assert label(endpoint(server), "good")[0]["label"] is True
    assert time.monotonic() - started >= 1.0


def test_a_date_to_wait_for_is_understood_and_a_riddle_is_not():
    assert chat._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert chat._seconds("Wed, 21 Oct 2215 07:28:00 GMT") > 1e9
    assert (chat._seconds("7"), chat._seconds("soon"), chat._seconds("")) == (7.0, 0.0, 0.0)


def test_waits_grow_and_stay_bounded(monkeypatch):
    monkeypatch.setattr(chat, "FIRST_WAIT", 1.0)
    pauses = [chat._pause(attempt, 0.0) for attempt in range(12)]
    assert all(2.0**attempt / 2 <= pause <= 2.0**attempt for attempt, pause in enumerate(pauses[:5]))
    assert max(pauses) <= chat.LONGEST_WAIT and chat._pause(0, 1e9) == chat.LONGEST_WAIT


@pytest.mark.parametrize("bad", ["hang", "trickle"])
def test_an_answer_that_never_ends_is_given_up(server, bad):
    server.bad_days = [bad]
    started = time.monotonic()
    (row,) = label(endpoint(server, timeout_seconds=0.5, retries=0), "good")
    assert (row["label"], row["reason"]) == (None, "timed_out")
    assert time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("Perhaps.", "malformed"), ("", "malformed"), (None, "malformed"), ({"a": 1}, "malformed"), ("Both yes and no", "malformed")],
)
def test_an_answer_that_is_neither_yes_nor_no_is_counted_not_guessed(server, answer, reason):
    server.says = lambda document: answer
    (row,) = label(endpoint(server), "good")
    assert (row["label"], row["reason"], row["prompt_tokens"]) == (None, reason, 100)


@pytest.mark.parametrize(("bad", "reason"), [(400, "http_400"), (500, "http_500"), ("nonsense", "malformed")])
def test_a_text_that_fails_for_good_is_left_out_with_its_reason(server, bad, reason):
    server.bad_days = [bad] * 3
    rows = label(endpoint(server, concurrency=1), "good", "good too")
    assert [row["reason"] for row in rows] == ([reason, None] if bad != 400 else [reason, reason])


@pytest.mark.parametrize(
    ("status", "says"), [(401, "set L3_ANNOTATOR_KEY to a valid key"), (404, "check annotator.url"), (302, "check annotator.url")]
)
def test_a_server_that_will_answer_nothing_ends_the_run_in_one_sentence(server, status, says):
    server.bad_days, server.headers = [status] * 9, {"Location": "http://127.0.0.1:9/"}
    with pytest.raises(EndpointError, match=says):
        label(endpoint(server), "good")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_ends_the_run_and_keeps_the_answers(server):
    label(endpoint(server), "good")
    with pytest.raises(EndpointError, match="gave no answer in 3 attempts"):
        label(endpoint(server, url="http://127.0.0.1:9/v1"), "other")
    assert label(endpoint(server), "good")[0]["label"] is True and len(server.requests) == 1


def test_a_server_that_only_fails_is_taken_for_dead_before_every_text_was_tried(server):
    server.bad_days = [500] * 10_000
    with pytest.raises(EndpointError, match=f"{LOST_IN_A_ROW} questions in a row"):
        label(endpoint(server, retries=0, concurrency=2), *(f"good {number}" for number in range(200)))
    assert len(server.requests) < 40


def test_no_more_questions_are_open_than_allowed(server):
    def slowly(document: str) -> str:
        time.sleep(0.02)
        return "yes"

    server.says = slowly
    label(endpoint(server, concurrency=3), *(f"text {number}" for number in range(20)))
    assert 2 <= server.most_at_once <= 3


@pytest.mark.parametrize(
    ("answer", "meets"),
    [
        ("yes", True),
        ("**No.**", False),
        ("Yes, there is no doubt.", True),
        ("The answer is no", False),
        ("<think>yes, or no?</think>\n\nno", False),
        ('"yes"', True),
        ("yes or no", True),
        ("It is hard to say yes or no", None),
        ("nobody knows", None),
    ],
)
def test_a_verdict_is_the_first_word_or_the_only_one(answer, meets):
    assert verdict(answer) is meets
