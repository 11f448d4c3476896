"""What a model has seen of a page: the steps that read it, and which of its tokens, or why it never was read.

The inverse of the data order says where a document's tokens come, without a scan; the ledger of the run, where it lies on
this machine, says whether they did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, get_args

import numpy as np

from l3_platform import story
from l3_platform.lineage import Catalog
from l3_platform.store import StoreError
from l3_platform.story import Story, Told
from l3_platform.tokens.shards import stream_files
from l3_platform.tokens.split import HELD_OUT, TRAIN
from l3_platform.train import ledger
from l3_platform.train.data_plan import DataPlan, Stream
from l3_platform.trained import Phase, Trained, resolve

Verdict = Literal[
    "seen",
    "seen in part",
    "skipped",  # it was read, its steps did not reach the weights, and it does not come again
    "not reached",  # it comes in a later step of the run, and what was read of it before, if anything, was skipped
    "beyond the end",  # the run ends before it comes
    "no share",  # of its domain in any mixture, or not when its turn would come
    "held out",
    "thinned out",  # by mix.topic_weights
    "emptied",  # nothing is left of it without repeated lines
    "dropped",
    "undecided",
    "broken",  # its record: it never became a document
    "unknown",
]

Fate = Literal["taken", "skipped", "coming"]  # of a read: its step reached the weights, did not, or is still to come


@dataclass(frozen=True)
class Sighting:
    """Tokens `first` to `last` of the document, as one sequence of one step reads them. Steps count from 1, sequences and
    tokens from 0. `recorded`: whether the ledger has it; None where there is no ledger."""

    phase: str
    step: int
    sequence: int
    run_tokens: int  # of its phase that come before
    first: int
    last: int
    recorded: bool | None = None


@dataclass(frozen=True)
class Seen:
    """One fetch of the page."""

    story: Story
    verdict: Verdict
    tokens: int = 0
    sightings: list[Sighting] = field(default_factory=list)
    skipped: list[Sighting] = field(default_factory=list)  # in steps that did not reach the weights
    coming: list[Sighting] = field(default_factory=list)  # after the step that the model has reached
    tokens_seen: int = 0
    tokens_skipped: int = 0  # those that only skipped steps read
    least: int = 0  # how often the token that was read least was read
    most: int = 0
    reached_at: int | None = None  # beyond the end: the token of the last phase at which it would begin

    def unseen(self, reads: list[Sighting]) -> list[Sighting]:
        """Those of `reads` that hold a token which the model has not seen."""
        times = _times(_confirmed(self.sightings), self.tokens)
        return [read for read in reads if not times[read.first : read.last + 1].all()]


@dataclass(frozen=True)
class Exposure:
    """The answer; `fetches` are those of the page, the one in the training data first."""

    model: Trained
    told: Told
    fetches: list[Seen]

    @property
    def verdict(self) -> Verdict:
        return self.fetches[0].verdict if self.fetches else "broken" if self.told.lost else "unknown"


def of(url: str, checkpoint: str, catalog: Catalog) -> Exposure:
    """What `checkpoint` (see `trained.resolve`) has seen of a page, by URL or doc_id.

    Raises MissingDataset, and StoreError where the checkpoint was trained on other token shards than these settings lead to.
    """
    model = resolve(checkpoint, catalog)
    catalog.dataset("token_shards")
    told = story.of(url, catalog)
    fetches = [_seen(one, model, catalog) for one in told.stories]
    return Exposure(model, told, sorted(fetches, key=lambda seen: not seen.tokens))


def _seen(page: Story, model: Trained, catalog: Catalog) -> Seen:
    place = page.stages.get("token_shards")
    if place is None:
        return Seen(page, _absent(page, catalog))
    if place["split"] == HELD_OUT:
        return Seen(page, "held out", place["tokens"])
    domain, count = place["domain_group"], place["tokens"]
    listed = stream_files(catalog.dataset("token_shards"), TRAIN)[domain]
    before = [tokens for name, tokens in listed.items() if name < place["file"]]
    start = sum(before) + place["start"]
    every = [read for phase in model.phases for read in _reads(phase, domain, start, count, Stream.of(listed.items()), model)]
    sightings, skipped, coming = ([read for read, one in every if one == fate] for fate in get_args(Fate))
    times = _times(_confirmed(sightings), count)
    in_vain = int(np.count_nonzero((times == 0) & (_times(skipped, count) > 0)))
    counted = int(np.count_nonzero(times)), in_vain, int(times.min()), int(times.max())
    at = None if every else _first_place(model.phases[-1].plan, domain, start, count)
    return Seen(page, _verdict(times, skipped, coming, at), count, sightings, skipped, coming, *counted, at)


def _times(reads: list[Sighting], count: int) -> np.ndarray:
    """How often they hold each of a document's tokens: int64 [count]."""
    times = np.zeros(count, np.int64)
    for read in reads:
        times[read.first : read.last + 1] += 1
    return times


def _confirmed(reads: list[Sighting]) -> list[Sighting]:
    """Those that the ledger does not lack."""
    return [read for read in reads if read.recorded is not False]


def _verdict(times: np.ndarray, skipped: list[Sighting], coming: list[Sighting], beyond: int | None) -> Verdict:
    if times.all():
        return "seen"
    if times.any():
        return "seen in part"
    if coming or skipped:
        return "not reached" if coming else "skipped"
    return "no share" if beyond is None else "beyond the end"


def _absent(page: Story, catalog: Catalog) -> Verdict:
    """Why a document has no tokens."""
    if "curation_decisions" not in page.stages:
        return "undecided"
    if page.dropped_by:
        return "dropped"
    topic = page.stages.get("knowledge_domains", {}).get("topic")
    return "thinned out" if not page.emptied and topic in catalog.settings.mix.topic_weights else "emptied"


def _reads(phase: Phase, domain: str, start: int, count: int, stream: Stream, model: Trained) -> Iterator[tuple[Sighting, Fate]]:
    """Every read of a document in a run, and what came of it; in the order of the run."""
    plan = phase.plan
    if plan.streams.get(domain) != stream:
        raise StoreError(
            f"{model.name} was trained on other token shards than these settings lead to ({domain}: "
            f"{plan.streams[domain].tokens if domain in plan.streams else 0:,} tokens, here {stream.tokens:,}); "
            "give the --profile, --source and --set of its run"
        )
    run = phase.run
    records = cache(lambda step: ledger.read(run, step, step)) if run else None
    index, ranges = sorted(plan.streams).index(domain), _skipped_in(phase, model)
    for piece, position in plan.order().occurrences(domain, start, count, plan.tokens):
        if position is None or (step := plan.step_at(position)) is None:
            continue
        ring = piece.start
        while ring < piece.start + piece.tokens:
            at = position + ring - piece.start
            sequence, inside = divmod(at - step.start, step.seq_len)
            tokens = min(step.seq_len - inside, piece.start + piece.tokens - ring)
            reached = step.index + 1 <= phase.step
            recorded = _recorded(records(step.index + 1), index, ring, tokens) if records and reached else None
            first = ring % stream.tokens - start
            skipped = any(begin <= at < end for begin, end in ranges)
            fate: Fate = "coming" if not reached else "skipped" if skipped else "taken"
            yield Sighting(plan.phase, step.index + 1, sequence, at, first, first + tokens - 1, recorded), fate
            ring += tokens


def _skipped_in(phase: Phase, model: Trained) -> tuple[tuple[int, int], ...]:
    """The ranges of `model.skipped` that are of this phase's tokens: a run that took its weights by `init_from` counts from 0
    again, and knows nothing of what was skipped before."""
    later = model.phases[model.phases.index(phase) + 1 :]
    return model.skipped if all(one.plan.start for one in later) else ()


def _recorded(records: np.ndarray, domain: int, start: int, tokens: int) -> bool:
    whole = (records["start"] <= start) & (start + tokens <= records["start"] + records["tokens"])
    return bool((whole & (records["domain"] == domain)).any())


def _first_place(plan: DataPlan, domain: str, start: int, count: int) -> int | None:
    """Where the document would come, were the run longer; None where its domain has no share by then."""
    places = plan.order().occurrences(domain, start, count, plan.tokens)
    return min((position for _, position in places if position is not None), default=None)
