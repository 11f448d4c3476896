r"""The maths pass: every way a page carries a formula becomes text, `$...$` or `$$...$$`, before main content is chosen.

Source first: a TeX annotation or `alttext` beats a conversion of MathML, which beats the `alt` of an image. What a script
rendered from the source (spans of MathJax and KaTeX, fallback images) goes, so that no formula appears twice. `\( \)` and
`\[ \]` in plain text are kept as they are. Llama 3, section 3.1.1: maths kept, and the `alt` of images of formulas with it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from selectolax.lexbor import LexborHTMLParser, LexborNode

from l3_platform.extract.latex import latex

# Marks around a formula between this pass and the end of extraction: two of Unicode's noncharacters, which no page means.
OPEN, CLOSE = "\ufdd0", "\ufdd1"

_FORMULAS = (".katex", "mjx-container", ".mwe-math-element", "math")
_RENDERED = ".MathJax_Preview, .MathJax, .MathJax_Display, .MathJax_SVG, .MathJax_SVG_Display, .MathJax_CHTML, .MJXc-display"
_IMAGES = "img[class*=math], img[class*=Math], img[class*=tex], img[class*=latex], img[src*=latex], img[src*='render/math']"
_IMAGE_CLASS = re.compile(r"(?:^|[\s_-])(?:math|tex|latex|mwe-math|equation)", re.IGNORECASE)
_PLAIN = re.compile(r"\\\((.{1,4000}?)\\\)|\\\[(.{1,4000}?)\\\]", re.DOTALL)
_DOLLARS = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?![\s$\d,.])([^$\n]{1,400}?)(?<![\s\\])\$(?![\w$])", re.DOTALL)
_MARKED = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)


def mark_formulas(tree: LexborHTMLParser) -> None:
    """Replaces the formulas of `tree` by marked text, in place. `scan` tells which pages need it."""
    _scripts(tree)
    inside: set[int] = set()  # of an element that is already replaced
    for selector in _FORMULAS:
        for node in tree.css(selector):
            if node.mem_id not in inside:
                inside.update(inner.mem_id for inner in node.css(", ".join(_FORMULAS)))
                _mathml(node)
    _images(tree)


def unmark(text: str, *, dollars: bool) -> tuple[str, list[str]]:
    r"""Text without marks, and the LaTeX of the formulas in it, in order, without delimiters.

    Formulas are the marked ones and `\( \)`, `\[ \]`; with `dollars` (pages that load MathJax or KaTeX) also `$ $` and `$$ $$`.
    """
    found: list[tuple[int, str]] = []
    plain = _MARKED.sub(lambda match: " " * len(match.group()), text) if OPEN in text else text
    for match in _MARKED.finditer(text):
        found.append((match.start(), match.group(1).strip("$")))
    if "\\" in plain:
        found += [(match.start(), (match.group(1) or match.group(2)).strip()) for match in _PLAIN.finditer(plain)]
    if dollars and "$" in plain:
        found += [(match.start(), (match.group(1) or match.group(2)).strip()) for match in _DOLLARS.finditer(plain)]
    return text.replace(OPEN, "").replace(CLOSE, ""), [formula for _, formula in sorted(found)]


def _scripts(tree: LexborHTMLParser) -> None:
    """MathJax 2: the source is a script, what it rendered stands before it."""
    scripts = tree.css("script[type^='math/']")
    if not scripts:
        return
    for node in tree.css(_RENDERED):
        node.replace_with("")
    for node in scripts:
        kind = node.attributes.get("type") or ""
        source = node.text(deep=True)
        if "mml" in kind:
            inner = LexborHTMLParser(source).css_first("math")
            source = latex(inner) if inner is not None else ""
        _replace(node, source, display="mode=display" in kind.replace(" ", ""))


def _mathml(node: LexborNode) -> None:
    """One `<math>` element, or the element in which MathJax 3, KaTeX or MediaWiki wraps it."""
    math = node if node.tag == "math" else node.css_first("math")
    image = node.css_first("img[alt]")
    if math is None and image is None:
        return
    source = _source(math) if math is not None else (image.attributes.get("alt") or "" if image else "")
    _replace(node, source, display=_is_display(node, math))


def _source(math: LexborNode) -> str:
    for annotation in math.css("annotation"):
        if "tex" in (annotation.attributes.get("encoding") or "").lower():
            return annotation.text(deep=True)
    return math.attributes.get("alttext") or latex(math)


def _is_display(node: LexborNode, math: LexborNode | None) -> bool:
    if node.attributes.get("display") == "true" or (math is not None and math.attributes.get("display") == "block"):
        return True
    parent = node.parent
    return parent is not None and "katex-display" in (parent.attributes.get("class") or "")


def _images(tree: LexborHTMLParser) -> None:
    for node in tree.css(_IMAGES):
        attributes = node.attributes
        alt, src = (attributes.get("alt") or "").strip(), attributes.get("src") or ""
        service = re.search(r"(?:latex\.php\?latex=|codecogs\.com/[a-z.]*\?|render/math\?math=)([^&]+)", src)
        if not alt and service:
            alt = unquote_plus(service.group(1))
        if alt and (service or _IMAGE_CLASS.search(attributes.get("class") or "")):
            _replace(node, alt, display=False)


def _replace(node: LexborNode, source: str, *, display: bool) -> None:
    source = _unwrap(source)
    if not source:
        node.replace_with("")  # `decompose` would free what is inside while others still look at it
        return
    sign = "$$" if display else "$"
    node.replace_with(f"{OPEN}{sign}{source}{sign}{CLOSE}")


def _unwrap(source: str) -> str:
    r"""TeX without the delimiters and the `{\displaystyle }` that a renderer put around it."""
    text = source.strip()
    for opening, closing in (("% <![CDATA[", "%]]>"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            text = text[len(opening) : -len(closing)].strip()
    style = re.match(r"\{\\(?:displaystyle|textstyle|scriptstyle)\b", text)
    if style and text.endswith("}"):
        text = text[style.end() : -1].strip()
    return text.replace(OPEN, "").replace(CLOSE, "")
