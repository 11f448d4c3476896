"""Why a page is, or is not, in the training data, told to a person: `l3 why URL`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from l3_platform.curate.pii import KINDS
from l3_platform.mix.decision import Judgement
from l3_platform.story import Other, Story, Told, of

__all__ = ["as_json", "as_text", "of"]

LABEL = 12
MARGIN = " " * (LABEL + 2)
TOLD = {  # sidecars that have a line of their own, or whose every word is among the rules
    *("languages", "knowledge_domains", "quality_scores", "pii", "url_policy", "text_heuristics", "url_versions"),
    *("duplicate_documents", "repeated_lines", "curation_decisions", "token_shards"),
}


def as_text(told: Told) -> str:
    if not told.found:
        return f"{told.asked}: never seen in this crawl{told.hint}"
    found_as = [] if told.asked == told.url else [f"{told.asked}: told of {told.url}"]
    parts = [_story(story, told.line_max_count) for story in told.stories] + [_lost(row) for row in told.lost]
    return "\n\n".join([*found_as, *parts])


def as_json(told: Told) -> str:
    return json.dumps(asdict(told) | {"found": told.found}, default=str, indent=1)


def _lost(row: dict[str, Any]) -> str:
    return (
        f"{row['url']}\n  {row['snapshot']}: the record at offset {row['offset']} of {row['file']} is broken "
        f"({row['reason']}): {row['detail']}; quarantined, {row['bytes_lost']:,} bytes lost"
    )


def _story(story: Story, line_max_count: int) -> str:
    page, stages = story.document, story.stages
    place = f"{page['warc_file']} at offset {page['warc_offset']:,}, {page['warc_length']:,} bytes"
    lines = [
        page["url"],
        _line(page["snapshot"], f"fetched {page['fetch_time']:%Y-%m-%d %H:%M}, {place}"),
        _line("doc_id", page["doc_id"]),
        _line("title", page["title"] or "none"),
        *_language(stages),
        *_personal_data(stages.get("pii")),
        *(_line(name, _facts(facts)) for name, facts in stages.items() if name not in TOLD and facts),
        *_others("versions", story.versions, page["doc_id"], "the newest stays"),
        *_others("copies", story.copies, page["doc_id"], "one stays of all that resemble it"),
        *_lines(story, line_max_count),
        *_rules(story.judgements),
        f"  => {_verdict(story)}",
    ]
    return "\n".join(lines)


def _line(label: str, text: Any) -> str:
    return f"  {label:<{LABEL}}{text}" if len(label) < LABEL else f"  {label}  {text}"


def _language(stages: dict[str, dict[str, Any]]) -> Iterable[str]:
    language, topic, quality = (stages.get(name) for name in ("languages", "knowledge_domains", "quality_scores"))
    if language:
        yield _line("language", f"{language['language']}, score {language['score']:.3f}")
    if topic:
        yield _line("topic", f"{topic['topic']}, domain group {topic['domain_group']}")
    if quality:
        yield _line("quality", f"{quality['score']:.3f}, bucket {quality['bucket']} of 0 to 9")


def _personal_data(pii: dict[str, Any] | None) -> Iterable[str]:
    if pii is not None:
        found = [f"{pii[kind]} {kind}" for kind in KINDS if pii[kind]]
        yield _line("pii", f"{', '.join(found)}: masked in the text" if found else "none")


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())


def _others(label: str, others: list[Other], doc_id: Any, rule: str) -> Iterable[str]:
    if others:
        yield _line(label, f"{len(others)}, of which {rule}")
    for other in others:
        mark = "stays" if other.stays else "-" if other.jaccard is None else f"Jaccard {other.jaccard:.3f}"
        this = "  (this one)" if other.doc_id == str(doc_id) else ""
        yield f"{MARGIN}{mark:<14}{other.fetch_time}  {other.url}{this}"


def _lines(story: Story, line_max_count: int) -> Iterable[str]:
    facts = story.stages.get("repeated_lines")
    if facts is None:
        return
    removed = facts["removed_lines"] or []
    seen = f", each seen more than {line_max_count} times in its language and bucket of documents" if removed else ""
    yield _line("lines", f"{len(removed)} of {facts['lines']:,} removed, {facts['removed_chars']:,} characters{seen}")
    for line in story.removed_lines:
        yield f"{MARGIN}- {line.strip()[:100]}"
    if len(removed) > len(story.removed_lines):
        yield f"{MARGIN}- and {len(removed) - len(story.removed_lines):,} more"


def _rules(judgements: list[Judgement]) -> Iterable[str]:
    label = "rules"
    for said in judgements:
        mark = "FAILED" if said.failed else "passed" if said.judged or not said.rule.fails else "-"
        yield _line(label, f"{mark:<8}{said.rule.reason:<20}{_judged(said)}")
        label = ""


def _judged(said: Judgement) -> str:
    settings = f"  ({', '.join(said.rule.settings)})" if said.rule.settings else ""
    if said.failed:
        return said.evidence + settings
    if not said.rule.fails:
        return ""
    if not said.judged:
        return f"judges no document like this{settings}"
    return f"{said.measured}, drops {said.rule.comparison} {said.shown_limit}{settings}"


def _verdict(story: Story) -> str:
    if "curation_decisions" not in story.stages:
        return "not decided yet: materialize curation_decisions"
    stays = {kind: next((one for one in others if one.stays), None) for kind, others in _kinds(story)}
    if story.dropped_by == "url_version" and (newer := stays["versions"]):
        return f"dropped: a newer version of this URL was fetched {newer.fetch_time}"
    if story.dropped_by == "duplicate" and (twin := stays["copies"]):
        return f"dropped: duplicates {twin.url} (true Jaccard {story.stages['duplicate_documents']['jaccard']:.3f})"
    if story.dropped_by:
        evidence = next((said.evidence for said in story.judgements if said.rule.reason == story.dropped_by), "")
        return f"dropped by {story.dropped_by}: {evidence}"
    if story.emptied:
        return "dropped: nothing is left without its repeated lines"
    tokens = story.stages.get("token_shards")
    return f"kept, {tokens['tokens']:,} tokens of {tokens['split']} data" if tokens else "kept"


def _kinds(story: Story) -> tuple[tuple[str, list[Other]], ...]:
    return ("versions", story.versions), ("copies", story.copies)
