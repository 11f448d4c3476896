"""`l3 trained-on`: held against a scan of the ledger, and every way of saying no."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from l3_platform.exposure import Exposure, of
from l3_platform.lineage import Catalog
from l3_platform.model import ModelConfig
from l3_platform.settings import Stage, load
from l3_platform.store import MissingDataset, StoreError
from l3_platform.tokens.build import build_token_shards, build_tokenizer, vocabulary
from l3_platform.tokens.shards import stream_files
from l3_platform.train import TrainJob, ledger
from l3_platform.train.branch import complete
from l3_platform.train.interleave import Mixture
from l3_platform.train.job import run_folder
from l3_platform.train.loop import train
from l3_platform.train.streams import local_streams
from l3_platform.trained import resolve
from l3_platform.trained_on import as_json, as_text
from tests.mix.corpus import catalog

OVERRIDES = ("engine.workers=1", "tokenizer.vocab_size=560", "mix.held_out_share=0.15", "heuristics.min_words=5")
PAGES = 40
STEPS = 21  # of 96 tokens up to 600, then of 160 to 2,784, the whole sequences of 32 in 2,800
DROPPED, COPY, THIN = "https://b.example/dropped", "https://b.example/copy", "https://b.example/thin"


def page(number: int) -> dict[str, Any]:
    words = " ".join(f"word{(number * at) % 17} of {number}" for at in range(3 + number % 11))
    domain = ("general", "math", "code", "multilingual")[number % 4]
    return {"documents": {"text": words}, "knowledge_domains": {"domain_group": domain, "topic": "science"}}


def build_shards(made: Catalog) -> Catalog:
    for stage, build in {"tokenizer": build_tokenizer, "token_shards": build_token_shards}.items():
        out = made.writer(stage)
        out.commit(*build(**made.inputs(stage), out=out, settings=made.settings))
    return Catalog(made.settings, made.snapshots, made.identity)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L3_HOME", str(tmp_path_factory.mktemp("trained-on")))
        special = [
            {"documents": {"url": DROPPED}, "text_heuristics": {"words": 1}},
            {"documents": {"url": COPY}, "duplicate_documents": {"representative": False, "jaccard": 0.9}},
        ]
        arts = {"knowledge_domains": {"domain_group": "general", "topic": "arts_and_entertainment"}}
        thin = [{"documents": {"url": f"{THIN}-{at}"}, **arts} for at in range(8)]
        pages = {"demo-1": [page(number) for number in range(PAGES)], "demo-2": [*special, *thin]}
        yield build_shards(catalog(pages, load("demo", OVERRIDES)))


def job_for(home: Catalog, asset: str, **changes: Any) -> TrainJob:
    """Two mixtures, a ramp, and more tokens than there are, so that all but `code` is read again; `code` only later, half."""
    folder = run_folder(asset, "0123")
    words = vocabulary(home.dataset("tokenizer"))
    return TrainJob(**({
        "folder": str(folder), "output": str(folder / "model"), "data": local_streams(home.dataset("token_shards"), "train"),
        "model": ModelConfig(vocab_size=words.size, d_model=16, layers=1, heads=2, kv_heads=1, ffn=32),
        "shares": {"general": 0.6, "math": 0.4}, "mix_changes": (Mixture(from_tokens=1024, shares={"general": 0.9, "code": 0.1}),),
        "bos_id": words.bos_id, "eos_id": words.eos_id, "total_tokens": 2800,
        "ramp": (Stage(batch_tokens=96, seq_len=16), Stage(from_tokens=600, batch_tokens=160, seq_len=32)),
        "learning_rate": 1e-3, "checkpoint_every_tokens": 800, "keep_checkpoints": 9,
    } | changes))  # fmt: skip


@pytest.fixture(scope="module")
def run(home: Catalog) -> TrainJob:
    job = job_for(home, "pretrained")
    train(job)
    return job


def documents(home: Catalog, split: str = "train") -> list[dict[str, Any]]:
    return [row for row in home.dataset("token_shards").read().to_pylist() if row["split"] == split]


def scanned(home: Catalog, run: TrainJob, row: dict[str, Any], last_step: int) -> tuple[Counter[int], list[int]]:
    """How often each token of a document was read, and in which steps, by looking at every record of the ledger."""
    files = stream_files(home.dataset("token_shards"), "train")[row["domain_group"]]
    names = sorted(files)
    start = sum(files[name] for name in names[: names.index(row["file"])]) + row["start"]
    times: Counter[int] = Counter()
    steps = []
    for record in ledger.read(run.folder, 1, last_step):
        if sorted(run.data)[record["domain"]] == row["domain_group"]:
            inside = [(int(record["start"]) + at) % sum(files.values()) - start for at in range(record["tokens"])]
            own = [at for at in inside if 0 <= at < row["tokens"]]
            times.update(own)
            steps += [int(record["step"])] * bool(own)
    return times, sorted(steps)


@pytest.mark.parametrize("newest", [0, 2])
def test_every_document_was_seen_as_a_scan_of_the_ledger_says(home: Catalog, run: TrainJob, newest: int) -> None:
    checkpoint = complete(run.folder)[newest]
    step = int(checkpoint.name.removeprefix("step-"))
    verdicts = Counter()
    for row in documents(home):
        exposure = of(str(row["doc_id"]), str(checkpoint), home)
        (seen,) = exposure.fetches
        times, steps = scanned(home, run, row, step)
        counts = [times[at] for at in range(row["tokens"])]
        assert (seen.tokens_seen, seen.least, seen.most) == (sum(map(bool, counts)), min(counts), max(counts))
        assert sorted(read.step for read in seen.sightings) == steps
        assert all(read.recorded for read in seen.sightings) and all(read.step > step for read in seen.coming)
        verdicts[exposure.verdict] += 1
    assert verdicts["seen"] and (newest or verdicts["no share"]) and (not newest or verdicts["not reached"]), verdicts


def first(home: Catalog, run: TrainJob, verdict: str, checkpoint: str = "") -> Exposure:
    """Of some document with that verdict."""
    answers = (of(row["url"], checkpoint or run.folder, home) for row in documents(home))
    return next(answer for answer in answers if answer.verdict == verdict)


def test_a_seen_page_is_told_with_its_steps_and_the_ledger(home: Catalog, run: TrainJob) -> None:
    exposure = first(home, run, "seen")
    seen = exposure.fetches[0]
    text = as_text(exposure)
    assert text.startswith("Yes: pretrained-0123/model (")
    assert f"first in step {seen.sightings[0].step}, last in step {seen.sightings[-1].step}." in text
    read = seen.sightings[1]
    assert f"step {read.step}, sequence {read.sequence}, tokens {read.first} to {read.last}" in text
    assert text.endswith(f"So says the ledger in {run.folder}.") and "\n" not in text


def test_a_page_that_comes_later_is_told_with_its_step(home: Catalog, run: TrainJob) -> None:
    oldest = str(complete(run.folder)[-1])
    exposure = first(home, run, "not reached", oldest)
    (seen,) = exposure.fetches
    url = seen.story.document["url"]
    assert as_text(exposure).startswith(f"Not yet: pretrained-0123/{Path(oldest).name} (step ")
    assert f"it comes in step {seen.coming[0].step}, after {seen.coming[0].run_tokens:,} tokens." in as_text(exposure)
    assert of(url, run.folder, home).fetches[0].sightings[0].step == seen.coming[0].step


def test_a_domain_that_loses_its_share_leaves_pages_that_never_come(home: Catalog, run: TrainJob) -> None:
    exposure = first(home, run, "no share")
    assert "gives the domain multilingual no share of its mix" in as_text(exposure)


def test_a_run_that_ends_too_early_says_when_the_turn_would_have_been(home: Catalog, run: TrainJob) -> None:
    short = job_for(home, "short", total_tokens=320, mix_changes=())
    train(short)
    exposure = first(home, short, "beyond the end")
    (seen,) = exposure.fetches
    assert f"the run had 320 tokens, and its turn would have been at {seen.reached_at:,}." in as_text(exposure)
    longer = job_for(home, "longer", total_tokens=2800, mix_changes=())
    train(longer)
    assert of(seen.story.document["url"], longer.folder, home).fetches[0].sightings[0].run_tokens == seen.reached_at
    for job in (short, longer):
        shutil.rmtree(job.folder)


def test_a_held_out_page_says_so(home: Catalog, run: TrainJob) -> None:
    url = documents(home, "held_out")[0]["url"]
    text = as_text(of(url, run.folder, home))
    assert text.startswith(f"No: {url} (") and "is held out for evaluation" in text


def test_a_dropped_page_points_to_why(home: Catalog, run: TrainJob) -> None:
    assert as_text(of(DROPPED, run.folder, home)) == (
        f"No: curation dropped {DROPPED} (few_words: words 1 < 5); `l3 why` tells the whole story."
    )


def test_a_page_of_a_topic_that_is_thinned_out_says_so(home: Catalog, run: TrainJob) -> None:
    answers = [of(f"{THIN}-{at}", run.folder, home) for at in range(8)]
    gone = [answer for answer in answers if answer.verdict == "thinned out"]
    assert 0 < len(gone) < 8
    assert "its topic arts_and_entertainment is thinned out (mix.topic_weights)" in as_text(gone[0])


def test_a_page_never_seen_is_one_sentence(home: Catalog, run: TrainJob) -> None:
    exposure = of("https://a.example/nothing", run.folder, home)
    assert exposure.verdict == "unknown" and "No: https://a.example/nothing was never seen in this crawl" in as_text(exposure)


def test_an_annealed_model_has_seen_what_both_runs_read(home: Catalog, run: TrainJob) -> None:
    job = job_for(
        home, "annealed", init_from=run.output, schedule="linear_to_zero", total_tokens=640, seed=8, mix_changes=(),
        shares={"math": 1.0}, ramp=(Stage(batch_tokens=160, seq_len=32),),
    )  # fmt: skip
    train(job)
    row = next(row for row in documents(home) if row["domain_group"] == "math")
    before, after = (of(row["url"], folder, home).fetches[0] for folder in (run.output, job.output))
    own = Counter(at for read in after.sightings if read.phase == "annealing" for at in range(read.first, read.last + 1))
    assert own == scanned(home, job, row, 10**9)[0] and own
    assert [read for read in after.sightings if read.phase == "pre-training"] == before.sightings
    assert f"{STEPS} steps of pre-training, then 4 steps of annealing" in as_text(of(row["url"], job.output, home))
    shutil.rmtree(job.folder)


def test_a_model_that_was_carried_away_finds_the_ledger_of_its_run(home: Catalog, run: TrainJob, tmp_path: Path) -> None:
    model = tmp_path / "elsewhere"
    shutil.copytree(run.output, model)
    assert resolve(str(model), home).phases[0].run == Path(run.folder)


def test_without_a_ledger_the_answer_says_that_it_is_computed(home: Catalog, run: TrainJob, tmp_path: Path, monkeypatch) -> None:
    model = tmp_path / "model"
    shutil.copytree(run.output, model)
    row = documents(home)[0]
    expected = of(row["url"], run.folder, home).fetches[0]
    with monkeypatch.context() as patch:
        patch.setattr("l3_platform.trained._runs", list)
        exposure = of(row["url"], str(model), home)
    seen = exposure.fetches[0]
    assert (seen.least, seen.most) == (expected.least, expected.most)
    assert "By the data order alone: the ledger of pre-training is not on this machine." in as_text(exposure)


def test_a_ledger_that_lacks_a_read_is_not_passed_over(home: Catalog, run: TrainJob, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    exposure = first(home, run, "seen")
    ledger.rewind(folder, exposure.fetches[0].sightings[-1].step - 1)
    doubted = of(exposure.told.url, str(folder), home)
    assert doubted.fetches[0].sightings[-1].recorded is False and "THE LEDGER DISAGREES" in as_text(doubted)
    assert doubted.fetches[0].least < exposure.fetches[0].most


@pytest.mark.parametrize("where", ["run", "model", "step", "newest"])
def test_a_checkpoint_is_named_by_any_of_its_folders(home: Catalog, run: TrainJob, where: str) -> None:
    step = complete(run.folder)[0]
    asked = {"run": run.folder, "model": run.output, "step": str(step), "newest": ""}[where]
    model = resolve(asked, home)
    assert model.phases[0].step == STEPS and model.phases[0].run == Path(run.folder)
    assert model.name == (f"pretrained-0123/{step.name}" if where == "step" else "pretrained-0123/model")


def test_what_is_no_checkpoint_is_refused_in_words(home: Catalog, run: TrainJob, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="neither a checkpoint, nor a run with one, nor an exported model"):
        resolve(str(tmp_path), home)
    with pytest.raises(StoreError, match="no such asset; did you mean 'annealed'"):
        resolve("anealed", home)
    with pytest.raises(MissingDataset, match="is not materialized"):
        resolve("pretrained", home)


def test_other_token_shards_are_noticed(home: Catalog, run: TrainJob) -> None:
    other = load("demo", [*OVERRIDES, "mix.held_out_share=0.3"])
    remade = build_shards(Catalog(other, home.snapshots, home.identity))
    row = documents(remade)[0]
    with pytest.raises(StoreError, match="was trained on other token shards than these settings lead to"):
        of(row["url"], run.folder, remade)


def test_the_answer_as_json_has_every_read(home: Catalog, run: TrainJob) -> None:
    exposure = first(home, run, "seen")
    told = json.loads(as_json(exposure))
    assert told["verdict"] == "seen" and told["model"]["phases"][0]["of"] == STEPS
    (fetch,) = told["fetches"]
    assert [read["step"] for read in fetch["sightings"]] == [read.step for read in exposure.fetches[0].sightings]


@contextmanager
def skipping(checkpoint: Path, *ranges: tuple[int, int]) -> Iterator[str]:
    """As if the steps that read these tokens of the run had been bad."""
    path = checkpoint / "complete.json"
    honest = path.read_text()
    facts = json.loads(honest)
    facts["position"]["memory"]["skipped"] = ranges
    path.write_text(json.dumps(facts))
    try:
        yield str(checkpoint)
    finally:
        path.write_text(honest)


def test_a_page_read_only_in_steps_that_were_skipped_did_not_reach_the_weights(home: Catalog, run: TrainJob) -> None:
    """As if the whole run but its first step had been bad: what that step read was seen, all else was skipped."""
    verdicts = Counter()
    with skipping(complete(run.folder)[0], (96, 2784)) as checkpoint:
        for row in documents(home):
            exposure = of(str(row["doc_id"]), checkpoint, home)
            (seen,) = exposure.fetches
            assert all(read.step == 1 for read in seen.sightings) and all(read.step > 1 for read in seen.skipped)
            own, every = scanned(home, run, row, 1)[0], scanned(home, run, row, STEPS)[0]
            assert (seen.tokens_seen, seen.tokens_skipped) == (len(own), len(every) - len(own))
            verdicts[seen.verdict] += 1
            if seen.verdict == "skipped":
                assert "did not reach its weights" in as_text(exposure)
    assert verdicts["skipped"] and verdicts["seen"] + verdicts["seen in part"]


def test_what_skipped_steps_read_of_a_page_seen_in_part_is_not_told_as_never_read(home: Catalog, run: TrainJob) -> None:
    whole = next(
        answer
        for answer in (of(row["url"], run.folder, home) for row in documents(home))
        if len({read.step for read in answer.fetches[0].sightings}) == 2
        and answer.fetches[0].most == 1
        and answer.verdict == "seen"
    )
    bad, good = whole.fetches[0].sightings[0], whole.fetches[0].sightings[-1]
    plan = whole.model.phases[0].plan
    step = plan.step_at(bad.run_tokens)
    assert step is not None
    with skipping(complete(run.folder)[0], (step.start, step.end)) as checkpoint:
        exposure = of(whole.told.url, checkpoint, home)
    (seen,) = exposure.fetches
    assert (seen.verdict, seen.tokens_seen + seen.tokens_skipped) == ("seen in part", seen.tokens)
    told = f"once, in step {good.step}; the other {seen.tokens_skipped} were read in step {bad.step}, which was skipped. "
    assert told in as_text(exposure)
    (fetch,) = json.loads(as_json(exposure))["fetches"]
    assert fetch["tokens_skipped"] == seen.tokens_skipped and {read["step"] for read in fetch["skipped"]} == {bad.step}


def test_a_page_that_was_skipped_and_comes_again_is_not_told_as_never_come_to(home: Catalog, run: TrainJob) -> None:
    oldest = complete(run.folder)[-1]
    reached = json.loads((oldest / "complete.json").read_text())["position"]["tokens"]
    answers = [(row, of(row["url"], str(oldest), home).fetches[0]) for row in documents(home)]
    row, honest = next(
        (row, seen)
        for row, seen in answers
        if seen.verdict == "seen" and len({read.step for read in seen.sightings}) > 1 and seen.coming
    )
    with skipping(oldest, (0, reached)) as checkpoint:
        exposure = of(row["url"], checkpoint, home)
    (seen,) = exposure.fetches
    assert seen.skipped == honest.sightings and seen.coming == honest.coming and not seen.sightings
    first, last, come, text = seen.skipped[0], seen.skipped[-1], seen.coming[0], as_text(exposure)
    assert text.startswith("Not yet: ") and "has not come to" not in text
    assert f"read all of {row['url']} (" in text
    assert f", but in steps that were skipped, first in step {first.step}, last in step {last.step}: that did not" in text
    assert f"; it comes again in step {come.step}, after {come.run_tokens:,} tokens." in text


def test_what_a_run_skipped_says_nothing_of_the_run_whose_model_it_began_with(home: Catalog, run: TrainJob) -> None:
    """Both count their tokens from 0."""
    job = job_for(home, "annealed", init_from=run.output, schedule="linear_to_zero", total_tokens=640, mix_changes=())
    train(job)
    with skipping(complete(job.folder)[0], (0, 640)) as checkpoint:
        answers = [
            (of(row["url"], checkpoint, home).fetches[0], of(row["url"], run.folder, home).fetches[0]) for row in documents(home)
        ]
    shutil.rmtree(job.folder)
    assert all(after.sightings == before.sightings for after, before in answers)
    assert {read.phase for after, _ in answers for read in after.skipped} == {"annealing"}
