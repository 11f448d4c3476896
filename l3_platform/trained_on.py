"""Whether a model was trained on a page, and when, told to a person in one paragraph: `l3 trained-on CHECKPOINT URL`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from l3_platform.exposure import Exposure, Seen, Sighting, of
from l3_platform.trained import Phase

__all__ = ["as_json", "as_text", "of"]

MOST = 5  # reads that are told one by one


def as_text(exposure: Exposure) -> str:
    if not exposure.fetches:
        return _never_a_document(exposure)
    first, *others = exposure.fetches
    sentences = [_answer(first, exposure), *_reads(first, exposure), *_evidence(first, exposure), *_others(others)]
    return " ".join(sentences)


def as_json(exposure: Exposure) -> str:
    phases = [
        {"phase": phase.plan.phase, "run": phase.plan.run, "step": phase.step, "of": phase.plan.last_step, "ledger": phase.run}
        for phase in exposure.model.phases
    ]
    model = {"name": exposure.model.name, "phases": phases}
    answer = {"asked": exposure.told.asked, "url": exposure.told.url, "verdict": exposure.verdict, "model": model}
    return json.dumps(answer | {"fetches": [_row(seen) for seen in exposure.fetches]}, default=str, indent=1)


def _row(seen: Seen) -> dict[str, Any]:
    page = seen.story.document
    place = {name: page[name] for name in ("url", "doc_id", "snapshot", "fetch_time")}
    facts = {name: value for name, value in asdict(seen).items() if name != "story"}
    return place | {"domain_group": _domain(seen), "dropped_by": seen.story.dropped_by} | facts


def _never_a_document(exposure: Exposure) -> str:
    told = exposure.told
    if not told.lost:
        return f"No: {told.asked} was never seen in this crawl{told.hint}"
    (row, *_) = told.lost
    return f"No: {told.url} never became a document, its record in {row['file']} is broken ({row['reason']})."


def _answer(seen: Seen, exposure: Exposure) -> str:
    """The first sentence, which holds the answer."""
    page, model, step = seen.story.document["url"], _model(exposure), functools.partial(_step, exposure=exposure)
    what = f"{page} ({_domain(seen)}, {seen.tokens:,} tokens)"
    match seen.verdict:
        case "seen":
            return f"Yes: {model} was trained on all of {what}, {_how_often(seen)}{_when(seen.sightings, step)}."
        case "seen in part":
            return (
                f"In part: {model} was trained on {_share(seen.tokens_seen, seen)}, "
                f"{_how_often(seen)}{_when(seen.sightings, step)}{_lost(seen, step)}{_rest(seen, step)}."
            )
        case "skipped":
            return f"No: {_in_vain(seen, model, step)}{_rest(seen, step)}."
        case "not reached":
            come = seen.coming[0]
            if seen.skipped:
                return f"Not yet: {_in_vain(seen, model, step)}{_rest(seen, step)}, after {come.run_tokens:,} tokens."
            return f"Not yet: {model} has not come to {what}; it comes in {step(come)}, after {come.run_tokens:,} tokens."
        case "beyond the end":
            last = exposure.model.phases[-1].plan
            return (
                f"No: {model} ended before it came to {what}; the run had {last.tokens:,} tokens, "
                f"and its turn would have been at {seen.reached_at:,}."
            )
        case "no share":
            return f"No: {model} gives the domain {_domain(seen)} no share of its mix when {what} would have its turn."
        case "held out":
            return f"No: {what} is held out for evaluation, by a hash of its doc_id, so nothing is trained on it."
        case "thinned out":
            topic = seen.story.stages["knowledge_domains"]["topic"]
            return f"No: curation kept {page}, but its topic {topic} is thinned out (mix.topic_weights), and it is among what left."
        case "emptied":
            return f"No: nothing is left of {page} without its repeated lines; `l3 why` shows them."
        case "dropped":
            return f"No: curation dropped {page} ({_dropped(seen)}); `l3 why` tells the whole story."
        case _:
            return f"No: it is not decided yet whether {page} is kept; materialize curation_decisions."


def _model(exposure: Exposure) -> str:
    return f"{exposure.model.name} ({', then '.join(map(_progress, exposure.model.phases))})"


def _progress(phase: Phase) -> str:
    plan = phase.plan
    if phase.step >= plan.last_step:
        return f"{plan.last_step:,} steps of {plan.phase}"
    return f"step {phase.step:,} of {plan.last_step:,} of {plan.phase}"


def _domain(seen: Seen) -> str:
    return seen.story.stages.get("token_shards", {}).get("domain_group", "no domain")


def _how_often(seen: Seen) -> str:
    if seen.least == seen.most or seen.verdict == "seen in part":
        return _times(seen.most) if seen.most == 1 or seen.least == seen.most else f"up to {_times(seen.most)}"
    return f"some tokens {_times(seen.least)}, others {_times(seen.most)}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _share(tokens: int, seen: Seen) -> str:
    page = seen.story.document["url"]
    if tokens == seen.tokens:
        return f"all of {page} ({_domain(seen)}, {seen.tokens:,} tokens)"
    return f"{tokens:,} of the {seen.tokens:,} tokens of {page} ({_domain(seen)})"


def _when(reads: list[Sighting], step: Callable[[Sighting], str]) -> str:
    first, last = reads[0], reads[-1]
    if (first.phase, first.step) == (last.phase, last.step):
        return f", in {step(first)}"
    return f", first in {step(first)}, last in {step(last)}"


def _step(read: Sighting, exposure: Exposure) -> str:
    """With its phase where the model went through several."""
    return f"step {read.step:,}" + (f" of {read.phase}" if len(exposure.model.phases) > 1 else "")


def _in_vain(seen: Seen, model: str, step: Callable[[Sighting], str]) -> str:
    """What skipped steps read, where no other did."""
    return f"{model} read {_share(seen.tokens_skipped, seen)}, but {_skipped(seen.skipped, step)}: that did not reach its weights"


def _lost(seen: Seen, step: Callable[[Sighting], str]) -> str:
    """What skipped steps read beside the tokens that were seen."""
    if not seen.tokens_skipped:
        return ""
    every = seen.tokens_seen + seen.tokens_skipped == seen.tokens
    others = f"the other {seen.tokens_skipped:,}" if every else f"{seen.tokens_skipped:,} others"
    return f"; {others} were read {_skipped(seen.unseen(seen.skipped), step)}"


def _skipped(reads: list[Sighting], step: Callable[[Sighting], str]) -> str:
    if len({(read.phase, read.step) for read in reads}) == 1:
        return f"in {step(reads[0])}, which was skipped"
    return f"in steps that were skipped{_when(reads, step)}"


def _rest(seen: Seen, step: Callable[[Sighting], str]) -> str:
    """What is still to come of the tokens that were not seen, and whether any never come."""
    every = seen.tokens_seen + seen.tokens_skipped == seen.tokens
    if coming := seen.unseen(seen.coming):
        return f"; {'it comes again' if every else 'the next come'} in {step(coming[0])}"
    return "" if every else "; the run ended before the others"


def _reads(seen: Seen, exposure: Exposure) -> list[str]:
    """Which tokens the first steps read, where that is not simply all of them at once."""
    if len(seen.sightings) < 2 and seen.verdict != "seen in part":
        return []
    reads = [
        f"{_step(read, exposure)}, sequence {read.sequence:,}, tokens {read.first:,} to {read.last:,}"
        for read in seen.sightings[:MOST]
    ]
    more = [f"and {len(seen.sightings) - MOST:,} more reads (--json)"] if len(seen.sightings) > MOST else []
    return [f"Read as: {'; '.join([*reads, *more])}."]


def _evidence(seen: Seen, exposure: Exposure) -> list[str]:
    reads = [*seen.sightings, *seen.skipped]
    if not reads:
        return []
    absent = [read for read in reads if read.recorded is False]
    if absent:
        return [
            f"THE LEDGER DISAGREES: by the data order it should have {len(absent):,} more read(s), among them that of "
            f"{_step(absent[0], exposure)}; the run did not go as planned, or its ledger is damaged."
        ]
    unrecorded = {read.phase for read in reads if read.recorded is None}
    if unrecorded:
        return [f"By the data order alone: the ledger of {' and '.join(sorted(unrecorded))} is not on this machine."]
    phases = {read.phase for read in reads}
    runs = [str(phase.run) for phase in exposure.model.phases if phase.plan.phase in phases]
    return [f"So says the ledger in {' and '.join(runs)}."]


def _dropped(seen: Seen) -> str:
    story = seen.story
    if story.dropped_by == "duplicate" and (twin := next((copy for copy in story.copies if copy.stays), None)):
        return f"a near duplicate stays: ask for {twin.url}"
    evidence = next((said.evidence for said in story.judgements if said.rule.reason == story.dropped_by), "")
    return f"{story.dropped_by}: {evidence}" if evidence else f"{story.dropped_by}"


def _others(fetches: list[Seen]) -> list[str]:
    if not fetches:
        return []
    verdicts = sorted({seen.story.dropped_by or seen.verdict for seen in fetches})
    return [f"{len(fetches):,} other fetch(es) of the page: {', '.join(verdicts)}."]
