"""MathML to LaTeX, for pages that carry no TeX source.

A plain conversion of presentation MathML (MathML Core): structure is kept, styling is not. Content MathML is read as its
tokens in order.
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

MAX_DEPTH = 64  # deeper trees are read as flat text

_OPERATORS = {
    "−": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∼": r"\sim ", "≃": r"\simeq ", "∝": r"\propto ", "≪": r"\ll ", "≫": r"\gg ",
    "∞": r"\infty ", "∂": r"\partial ", "∇": r"\nabla ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∬": r"\iint ",
    "∮": r"\oint ",
    "√": r"\surd ", "∈": r"\in ", "∉": r"\notin ", "∋": r"\ni ", "⊂": r"\subset ", "⊆": r"\subseteq ", "⊃": r"\supset ",
    "⊇": r"\supseteq ",
    "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∖": r"\setminus ", "∀": r"\forall ", "∃": r"\exists ", "¬": r"\neg ",
    "∧": r"\wedge ", "∨": r"\vee ", "⊕": r"\oplus ", "⊗": r"\otimes ", "→": r"\to ", "←": r"\leftarrow ", "↔": r"\leftrightarrow ",
    "⇒": r"\Rightarrow ", "⇐": r"\Leftarrow ", "⇔": r"\Leftrightarrow ", "↦": r"\mapsto ", "…": r"\dots ", "⋯": r"\cdots ",
    "⋮": r"\vdots ",
    "⋱": r"\ddots ", "∘": r"\circ ", "∗": "*", "⟨": r"\langle ", "⟩": r"\rangle ", "‖": r"\| ", "∣": r"\mid ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "′": "'", "″": "''", "†": r"\dagger ", "ℓ": r"\ell ",
    "ℏ": r"\hbar ", "ℜ": r"\Re ",
    "ℑ": r"\Im ", "ℵ": r"\aleph ", "⊥": r"\perp ", "∥": r"\parallel ", "∠": r"\angle ", "°": r"^{\circ}", "{": r"\{", "}": r"\}",
    "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "_": r"\_",
    "\u2061": "", "\u2062": "", "\u2063": ",", "\u2064": "", "\u200b": "", "\u00a0": "~",
}  # fmt: skip
_GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega",
]  # fmt: skip
_LETTERS = {chr(0x3B1 + i): f"\\{name} " for i, name in enumerate(_GREEK)} | {
    "Γ": r"\Gamma ", "Δ": r"\Delta ", "Θ": r"\Theta ", "Λ": r"\Lambda ", "Ξ": r"\Xi ", "Π": r"\Pi ", "Σ": r"\Sigma ",
    "Υ": r"\Upsilon ",
    "Φ": r"\Phi ", "Ψ": r"\Psi ", "Ω": r"\Omega ", "ϵ": r"\epsilon ", "ϕ": r"\phi ", "ϑ": r"\vartheta ", "ο": "o",
    "ε": r"\varepsilon ",
    "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}", "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℙ": r"\mathbb{P}",
}  # fmt: skip
_CHARACTERS = _OPERATORS | _LETTERS
_FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "arcsin", "arccos", "arctan", "log", "ln",
    "exp", "lim", "limsup", "liminf", "max", "min", "sup", "inf", "det", "dim", "ker", "gcd", "deg", "arg", "hom", "Pr",
})  # fmt: skip
_ACCENTS = {
    "^": "hat", "ˆ": "hat", "¯": "bar", "‾": "overline", "_": "underline", "~": "tilde", "˜": "tilde", "→": "vec",
    "⃗": "vec", "˙": "dot",
    "¨": "ddot", "⏞": "overbrace", "⏟": "underbrace", "ˇ": "check", "˘": "breve",
}  # fmt: skip
_SKIPPED = frozenset({"annotation", "annotation-xml", "-comment", "mphantom", "maligngroup", "malignmark", "none", "mprescripts"})


def latex(math: LexborNode) -> str:
    """LaTeX of a `<math>` element, without delimiters. Empty for an empty element."""
    text = re.sub(r"\s+", " ", _row(math, 0)).strip()
    return re.sub(r" (?=[\^_{}(),.=+)\]])", "", text)


def _row(node: LexborNode, depth: int) -> str:
    return "".join(_element(child, depth + 1) for child in node.iter(include_text=False))


def _element(node: LexborNode, depth: int) -> str:
    tag = (node.tag or "").removeprefix("m:")
    if tag in _SKIPPED:
        return ""
    if depth > MAX_DEPTH or tag in ("mi", "mn", "mo", "mtext", "ms", "ci", "cn"):
        return _token(tag, node.text(deep=True).strip())
    if tag in ("mspace",):
        return " "
    parts = [_element(child, depth + 1) for child in node.iter() if (child.tag or "") != "-comment"]
    return _structure(tag, node, parts) if parts else ""


def _token(tag: str, text: str) -> str:
    if tag == "mtext":
        return rf"\text{{{text}}}" if text else " "
    if tag == "mi" and text in _FUNCTIONS:
        return f"\\{text} "
    if tag == "mi" and len(text) > 1 and text.isascii() and text.isalpha():
        return rf"\mathrm{{{text}}}"
    return "".join(_CHARACTERS.get(char, char) for char in text)


def _structure(tag: str, node: LexborNode, parts: list[str]) -> str:
    """LaTeX of an element from the LaTeX of its children; wrong arities fall through to a row."""
    first, second, third = (*parts, "", "", "")[:3]
    if tag == "mfrac":
        return rf"\frac{{{first}}}{{{second}}}"
    if tag == "msqrt":
        return rf"\sqrt{{{''.join(parts)}}}"
    if tag == "mroot":
        return rf"\sqrt[{second}]{{{first}}}"
    if tag == "msub":
        return f"{_base(first)}_{{{second}}}"
    if tag == "msup":
        return _superscript(first, second)
    if tag == "msubsup":
        return f"{_base(first)}_{{{second}}}^{{{third}}}"
    if tag in ("munder", "mover", "munderover"):
        return _limits(tag, node, first, second, third)
    if tag == "mfenced":
        opening, closing = node.attributes.get("open") or "(", node.attributes.get("close") or ")"
        return f"{_token('mo', opening)}{','.join(parts)}{_token('mo', closing)}"
    if tag == "mtable":
        rows = r" \\ ".join(parts)
        return rf"\begin{{matrix}}{rows}\end{{matrix}}"
    if tag in ("mtr", "mlabeledtr"):
        return " & ".join(parts)
    return "".join(parts)


def _base(text: str) -> str:
    stripped = text.strip()
    return stripped if len(stripped) == 1 or re.fullmatch(r"\\[A-Za-z]+|\)|\]", stripped) else f"{{{stripped}}}"


def _superscript(base: str, exponent: str) -> str:
    if set(exponent.strip()) == {"'"}:
        return base.rstrip() + exponent.strip()
    return f"{_base(base)}^{{{exponent.strip()}}}"


def _limits(tag: str, node: LexborNode, base: str, first: str, second: str) -> str:
    """Sums with limits, and accents: an accent is a mover or munder whose script is one mark."""
    children = [child for child in node.iter() if child.tag != "-comment"]
    mark = children[1].text(deep=True).strip() if len(children) > 1 else ""
    if tag != "munderover" and mark in _ACCENTS:
        return rf"\{_ACCENTS[mark]}{{{base.strip()}}}"
    head = base.strip() if base.strip().startswith("\\") else rf"\operatorname*{{{base.strip()}}}"
    if tag == "munder":
        return f"{head}_{{{first}}}"
    return f"{head}^{{{first}}}" if tag == "mover" else f"{head}_{{{first}}}^{{{second}}}"
