"""The rules of curation, in the order of the funnel: what each one measures, where it draws the line, whom it judges.

This table is all there is to a rule. The SQL of the decision, the sidecars that it reads, the settings that `l3 sweep` may
vary, the lines of `l3 why` and the bars of the funnel are derived from it: a new rule is one line here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from l3_platform.dedup.code import CODE_SHARE
from l3_platform.settings import Settings

# Every character counts as a word there.
UNSPACED = "('zh', 'ja', 'th', 'lo', 'my', 'km')"
# Where the classifier knows the language and there is prose to judge.
PROSE = f"list_contains($curate.quality_languages, languages.language) AND quality_scores.code_share < {CODE_SHARE}"


@dataclass(frozen=True)
class Rule:
    """A document that the rule `judges` and whose `score` `fails` is dropped for `reason`.

    All three are SQL over the columns of sidecars, written `stage.column`, and settings, written `$section.key`. Where `fails` is
    empty, to be judged is to be dropped. A null score, or a null setting, drops nothing.
    """

    reason: str
    score: str
    fails: str = ""  # a comparison and a limit, such as `< $heuristics.min_words`
    judges: str = "true"

    @property
    def drops(self) -> str:
        return f"({self.judges}) AND ({self.score}) {self.fails}" if self.fails else f"({self.judges})"

    @property
    def comparison(self) -> str:
        return self.fails.partition(" ")[0]

    @property
    def limit(self) -> str:
        return self.fails.partition(" ")[2] or "NULL"

    @cached_property
    def settings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_SETTING.findall(f"{self.fails} {self.judges}")))

    @cached_property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(stage, column) of each column that it reads."""
        return tuple(dict.fromkeys(_COLUMN.findall(f"{self.score} {self.fails} {self.judges}")))


_SETTING = re.compile(r"\$([a-z_]+\.[a-z_]+)")
_COLUMN = re.compile(r"(?<![$\w.])([a-z_]+)\.([a-z_]\w*)")

RULES = (
    # The page's address, and domains that give away people (Llama 3, section 3.1.1).
    Rule("url_policy", "url_policy.blocked_by", judges="url_policy.blocked_by IS NOT NULL"),
    Rule(
        "pii_domain",
        "pii_domains.pages_with_pii / pii_domains.pages",
        "> $url_policy.max_pii_share",
        judges="pii_domains.pages >= $curate.pii_domain_pages",
    ),
    # Language; a text without one, such as code, has no score to fail.
    Rule(
        "language",
        "languages.language",
        judges="len($curate.languages) > 0 AND NOT list_contains($curate.languages, languages.language)",
    ),
    Rule(
        "language_score",
        "languages.score",
        "< coalesce($languages.min_scores[languages.language], $languages.min_score)",
        judges="languages.language <> 'und'",
    ),
    # Heuristics (Rae et al. 2021, table A1; Raffel et al. 2020).
    Rule("few_words", "text_heuristics.words", "< $heuristics.min_words"),
    Rule("many_words", "text_heuristics.words", "> $heuristics.max_words"),
    Rule(
        "short_words",
        "text_heuristics.mean_word_length",
        "< $heuristics.mean_word_length_min",
        judges=f"coalesce(languages.language, '') NOT IN {UNSPACED}",
    ),
    Rule("long_words", "text_heuristics.mean_word_length", "> $heuristics.mean_word_length_max"),
    Rule("symbol_word_ratio", "text_heuristics.symbol_word_ratio", "> $heuristics.max_symbol_word_ratio"),
    Rule("bullet_lines", "text_heuristics.bullet_lines", "> $heuristics.max_bullet_lines"),
    Rule("ellipsis_lines", "text_heuristics.ellipsis_lines", "> $heuristics.max_ellipsis_lines"),
    Rule("alpha_words", "text_heuristics.alpha_words", "< $heuristics.min_alpha_words"),
    Rule("duplicate_lines", "text_heuristics.dup_line_char_fraction", "> $heuristics.dup_line_max"),
    Rule("duplicate_ngrams", "text_heuristics.dup_ngram_max", "> $heuristics.dup_ngram_max"),
    Rule("dirty_words", "text_heuristics.dirty_words", "> $heuristics.dirty_words_max"),
    # Words that the rest of the corpus does not use (Llama 3, section 3.1.1: outlier tokens).
    Rule("outlier_tokens", "outlier_tokens.kl", "> $heuristics.max_kl"),
    # Personal data; what stays is masked.
    Rule("pii_density", "pii.density", "> $pii.max_density"),
    # Another version or copy of it stays.
    Rule("url_version", "url_versions.versions", judges="NOT url_versions.newest"),
    Rule("duplicate", "duplicate_documents.jaccard", judges="NOT duplicate_documents.representative"),
    # Quality (Llama 3, section 3.1.1: would it be referenced by Wikipedia).
    Rule("quality", "quality_scores.score", "< $quality.min_score", judges=PROSE),
)

REASONS = tuple(rule.reason for rule in RULES)
SETTINGS = tuple(dict.fromkeys(setting for rule in RULES for setting in rule.settings))

# Pages of a document's domain and those of them with personal data: counted over the corpus on the way to the decision.
PII_DOMAINS = "pii_domains"

# Columns that the rules read, by stage.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    stage: tuple(dict.fromkeys(column for rule in RULES for name, column in rule.columns if name == stage))
    for stage in dict.fromkeys(name for rule in RULES for name, _ in rule.columns)
}
SIDECARS = tuple(stage for stage in COLUMNS if stage != PII_DOMAINS)


def decision(rules: Sequence[Rule] = RULES) -> str:
    """An SQL expression: the reason for which a document is dropped, the first that applies; null where it is kept."""
    cases = "\n".join(f"    WHEN {in_sql(rule.drops)} THEN '{rule.reason}'" for rule in rules)
    return f"CASE\n{cases}\nEND"


def judgements(rules: Sequence[Rule] = RULES) -> str:
    """An SQL expression: a list of what each rule says of a document (score, limit, judged, failed)."""
    return "[" + ",\n".join(_judgement(rule) for rule in rules) + "]"


def _judgement(rule: Rule) -> str:
    score, limit, judges, drops = map(in_sql, (rule.score, rule.limit, rule.judges, rule.drops))
    return (
        f"{{'score': ({score})::VARCHAR, 'limit': ({limit})::VARCHAR, "
        f"'judged': coalesce({judges}, false), 'failed': coalesce({drops}, false)}}"
    )


def in_sql(text: str) -> str:
    """`$section.key` as the column of `settings` that holds it."""
    return _SETTING.sub(r'settings."\1"', text)


def settings_table(points: Sequence[Settings]) -> pa.Table:
    """The table `settings` of the decision: a row a tree of settings, with its `point`, and a column a setting of the rules."""
    columns = {path: [_value(settings, path) for settings in points] for path in SETTINGS}
    return pa.table({"point": pa.array(range(len(points)), pa.int32())} | {path: _column(each) for path, each in columns.items()})


def _value(settings: Settings, path: str) -> Any:
    section, _, key = path.partition(".")
    return getattr(getattr(settings, section), key)


def _column(values: Sequence[Any]) -> pa.Array:
    if all(isinstance(value, Mapping) for value in values):
        return pa.array([list(value.items()) for value in values], pa.map_(pa.string(), pa.float64()))
    if all(isinstance(value, tuple) for value in values):
        return pa.array([list(value) for value in values], pa.list_(pa.string()))
    return pa.array(values)
