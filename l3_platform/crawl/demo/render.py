"""Source text as HTML: the reStructuredText that docstrings are written in, Markdown, and code.

docutils takes a hundred seconds for the demo crawl's text, so the blocks and roles that docstrings use are rendered here: sections,
definition and field lists, bullets, doctests, literal blocks, directives, footnotes, inline roles and maths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from html import escape, unescape
from textwrap import dedent

from l3_platform.crawl.demo.maths import formula
from l3_platform.crawl.demo.page import Article

_UNDERLINE = re.compile(r"([=\-~^*#+\"'`])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"\.\. ([\w:.-]+?)::(?:\s+(.*))?$")
_FOOTNOTE = re.compile(r"\.\. \[([#\w.*-]+)\]\s*(.*)$")
_FIELD = re.compile(r":(\w[^:`]{0,60}):(?:\s+(.*))?$")
_BULLET = re.compile(r"([-*+•]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+(?=\S)")
_TABLE = re.compile(r"(\+[-=+]{3,}\+|={2,}( +={2,})+)\s*$")
# Sections of Google style, and an entry in them.
_GOOGLE = re.compile(
    r"(Args|Arguments|Parameters|Returns|Raises|Yields|Attributes|Examples?|Notes?|Keyword (?:Args|Arguments)|Warning):\s*$"
)
_ENTRY = re.compile(r"(\*{0,2}\w[\w.]*(?: \([^)]*\))?):\s+(\S.*)?$")
_ADMONITIONS = {
    **{name: name.capitalize() for name in ("note", "warning", "tip", "important", "caution", "attention", "hint", "danger")},
    **{
        "seealso": "See also",
        "versionadded": "New in version",
        "versionchanged": "Changed in version",
        "deprecated": "Deprecated since",
    },
}
_LITERAL = frozenset({"code-block", "code", "sourcecode", "parsed-literal", "ipython", "testcode", "jupyter-execute", "prompt"})

_INLINE = re.compile(
    r"``(?P<literal>.+?)``"
    r"|:math:`(?P<math>[^`]+)`"
    r"|:[\w:+.-]+:`(?P<role>[^`]+)`"
    r"|`(?P<text>[^`<]+?)\s*<(?P<url>[^>`]+)>`__?"
    r"|`(?P<name>[^`]+)`_?_?"
    r"|\*\*(?P<strong>[^*\s](?:[^*]*[^*\s])?)\*\*"
    r"|(?<![\w*])\*(?P<emphasis>[^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])"
    r"|(?P<link>https?://[^\s<>()\"'`]+[^\s<>()\"'`.,;:])"
    r"|\[(?P<cite>#?[\w.-]+)\]_"
)


@dataclass(frozen=True)
class Rendered:
    """Main content as HTML, and the LaTeX of its formulas in page order."""

    html: str
    formulas: tuple[str, ...]


def render(article: Article, style: str = "mathjax") -> Rendered:
    """An article's sections, each under its heading. `style` is how formulas are carried: one of `maths.STYLES`."""
    writer = _Rst(style)
    parts = []
    for heading, text in article.sections:
        if heading:
            parts.append(f'<h2 id="{escape(heading)}"><code>{escape(heading)}</code></h2>')
        if article.markup == "code":
            parts.append(f'<pre><code class="language-python">{escape(text, quote=False)}</code></pre>')
        elif article.markup == "markdown":
            parts.append(_markdown().render(text))
        else:
            parts.append(writer.blocks(text.expandtabs().split("\n")))
    return Rendered("\n".join(parts), tuple(writer.formulas))


def visible_text(html: str) -> str:
    """What a reader sees of main content, without its scripts: tags out, block ends as line breaks."""
    html = re.sub(r"(?s)<(script|style|annotation)\b.*?</\1>", " ", html)
    html = re.sub(r"</?(?:p|div|h\d|li|ul|ol|dl|dt|dd|pre|table|tr|blockquote|br|hr)\b[^>]*>", "\n", html)
    return unescape(re.sub(r"<[^>]+>", "", html))


@cache
def _markdown():
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable("table")


class _Rst:
    """Renders blocks of lines; collects the formulas it meets."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.formulas: list[str] = []

    def blocks(self, lines: list[str]) -> str:
        out: list[str] = []
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            html, at = self._block(lines, at)
            if html:
                out.append(html)
        return "\n".join(out)

    def _block(self, lines: list[str], at: int) -> tuple[str, int]:
        """HTML of the block that begins at a line, and the line after it."""
        line = lines[at]
        if line[0] == " ":
            body, end = _indented(lines, at, 0)
            return f"<blockquote>{self.blocks(body)}</blockquote>", end
        if at + 1 < len(lines) and _UNDERLINE.match(lines[at + 1]) and not _TABLE.match(line):
            if _UNDERLINE.match(line):  # an overlined title: the text stands between
                return "", at + 1
            end = at + 2
            return f"<h3>{self.inline(line.strip())}</h3>", end
        if _UNDERLINE.match(line):
            return "", at + 1
        if line.startswith(">>>") or _TABLE.match(line):
            end = _until_blank(lines, at)
            return _pre("\n".join(lines[at:end])), end
        if line.startswith(".."):
            return self._explicit(lines, at)
        if (found := _GOOGLE.match(line)) and at + 1 < len(lines) and lines[at + 1].startswith(" "):
            body, end = _indented(lines, at + 1, 0)
            return f"<h3>{found[1]}</h3>{self._entries(body)}", end
        if _FIELD.match(line):
            return self._fields(lines, at)
        if _BULLET.match(line):
            return self._bullets(lines, at)
        if at + 1 < len(lines) and lines[at + 1].startswith(" ") and lines[at + 1].strip() and not line.endswith("::"):
            return self._definitions(lines, at)
        return self._paragraph(lines, at)

    def _paragraph(self, lines: list[str], at: int) -> tuple[str, int]:
        end = at
        while end < len(lines) and lines[end].strip() and (end == at or not lines[end].startswith((" ", ">>>", ".. "))):
            end += 1
        text = " ".join(line.strip() for line in lines[at:end])
        if not text.endswith("::"):
            return f"<p>{self.inline(text)}</p>", end
        text = text[:-1] if not text.endswith(" ::") else text[:-3]
        body, after = _indented(lines, end, 0)
        html = f"<p>{self.inline(text)}</p>" if text.strip(": ") else ""
        return html + (_pre("\n".join(body)) if body else ""), after if body else end

    def _definitions(self, lines: list[str], at: int) -> tuple[str, int]:
        """`term` lines, each with an indented text: parameters in numpydoc, glossaries elsewhere."""
        items = []
        while at + 1 < len(lines) and lines[at].strip() and not lines[at].startswith((" ", "..")) and lines[at + 1].startswith(" "):
            body, end = _indented(lines, at + 1, 0)
            items.append(f"<dt>{self.inline(lines[at].strip())}</dt><dd>{self.blocks(body)}</dd>")
            at = _skip_blank(lines, end)
        return f"<dl>{''.join(items)}</dl>", at

    def _entries(self, lines: list[str]) -> str:
        """`name (type): text` entries of a Google-style section; anything else as blocks."""
        starts = [i for i, line in enumerate(lines) if _ENTRY.match(line)]
        if not starts or starts[0]:
            return self.blocks(lines)
        items = []
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            found = _ENTRY.match(lines[start])
            rest = dedent("\n".join(lines[start + 1 : end])).split("\n")
            assert found is not None
            items.append(f"<dt>{escape(found[1])}</dt><dd>{self.blocks([found[2] or '', *rest])}</dd>")
        return f"<dl>{''.join(items)}</dl>"

    def _fields(self, lines: list[str], at: int) -> tuple[str, int]:
        """Sphinx fields such as `:param name: text`."""
        items = []
        while at < len(lines) and (found := _FIELD.match(lines[at])):
            body, end = _indented(lines, at + 1, 0, through_blank=False)
            name = re.sub(r"^(?:param|parameter|arg|type|raises|return|returns|rtype)\s*(?=\S)", "", found[1]) or found[1]
            items.append(f"<dt>{escape(name)}</dt><dd>{self.blocks([(found[2] or '').strip(), *body])}</dd>")
            at = _skip_blank(lines, end)
        return f'<dl class="field-list">{"".join(items)}</dl>', at

    def _bullets(self, lines: list[str], at: int) -> tuple[str, int]:
        items = []
        ordered = lines[at][0].isdigit()
        while at < len(lines) and (found := _BULLET.match(lines[at])):
            body, end = _indented(lines, at + 1, 0)
            first, nested = [lines[at][found.end() :]], body
            while nested and nested[0].strip() and not nested[0].startswith(" ") and not _BULLET.match(nested[0]):
                first.append(nested.pop(0).strip())
            rest = self.blocks(nested)
            items.append(f"<li>{self.inline(' '.join(first))}{rest}</li>")
            at = _skip_blank(lines, end)
        tag = "ol" if ordered else "ul"
        return f"<{tag}>{''.join(items)}</{tag}>", at

    def _explicit(self, lines: list[str], at: int) -> tuple[str, int]:
        """Directives and footnotes; comments, targets and substitutions show nothing."""
        body, end = _indented(lines, at + 1, 0)
        if found := _FOOTNOTE.match(lines[at]):
            return (
                f'<p class="footnote">[{escape(found[1])}] {self.inline(" ".join([found[2], *(b.strip() for b in body)]))}</p>',
                end,
            )
        if not (found := _DIRECTIVE.match(lines[at])):
            return "", end
        name, argument = found[1].rpartition(":")[2], (found[2] or "").strip()
        while body and re.match(r":[\w-]+:(?:\s|$)", body[0].strip()):  # options
            body.pop(0)
        if name == "math":
            chunks = re.split(r"\n\s*\n", "\n".join([argument, *body]))
            return "".join(f"<p>{self._formula(c, display=True)}</p>" for c in chunks if c.strip()), end
        if name in _ADMONITIONS:
            lead = f"<p>{self.inline(argument)}</p>" if argument else ""
            title = f'<p class="admonition-title">{_ADMONITIONS[name]}</p>'
            return f'<div class="admonition {name}">{title}{lead}{self.blocks(body)}</div>', end
        if name in _LITERAL:
            return _pre("\n".join(body)), end
        if name in ("rubric", "topic", "admonition"):
            return f"<h4>{self.inline(argument)}</h4>{self.blocks(body)}", end
        return "", end

    def inline(self, text: str) -> str:
        """Roles, literals, emphasis, links and maths inside a paragraph."""
        out, last = [], 0
        for found in _INLINE.finditer(text):
            out.append(_plain(text[last : found.start()]))
            out.append(self._span(found))
            last = found.end()
        return "".join([*out, _plain(text[last:])])

    def _span(self, found: re.Match[str]) -> str:
        kind, value = next((k, v) for k, v in found.groupdict().items() if v is not None)
        if kind == "math":
            return self._formula(value, display=False)
        if kind == "text":
            return f'<a href="{escape(found["url"])}">{_plain(value)}</a>'
        if kind == "role":
            shown = re.sub(r"\s*<[^>]*>$", "", value).lstrip("~!.")
            return f"<code>{escape(shown)}</code>"
        if kind == "link":
            return f'<a href="{escape(value)}">{escape(value)}</a>'
        if kind == "cite":
            return f'<a class="reference" href="#{escape(value)}">[{escape(value)}]</a>'
        tag = {"literal": "code", "name": "code", "strong": "strong", "emphasis": "em"}[kind]
        return f"<{tag}>{escape(value, quote=False)}</{tag}>"

    def _formula(self, tex: str, *, display: bool) -> str:
        tex = " ".join(tex.split())
        self.formulas.append(tex)
        return formula(tex, self.style, display=display)


def _plain(text: str) -> str:
    return escape(re.sub(r"\\(?=[^\w\s])", "", text), quote=False)


def _pre(text: str) -> str:
    return f"<pre>{escape(dedent(text).strip(chr(10)), quote=False)}</pre>"


def _until_blank(lines: list[str], at: int) -> int:
    while at < len(lines) and lines[at].strip():
        at += 1
    return at


def _skip_blank(lines: list[str], at: int) -> int:
    while at < len(lines) and not lines[at].strip():
        at += 1
    return at


def _indented(lines: list[str], at: int, margin: int, through_blank: bool = True) -> tuple[list[str], int]:
    """The lines from `at` on that are blank or indented deeper than `margin`, dedented; and the line after them."""
    end = at
    while end < len(lines) and (lines[end][: margin + 1].isspace() if lines[end].strip() else through_blank):
        end += 1
    return dedent("\n".join(lines[at:end])).strip("\n").split("\n") if any(map(str.strip, lines[at:end])) else [], end
