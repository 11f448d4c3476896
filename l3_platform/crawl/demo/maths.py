"""Formulas in the four ways that web pages carry them: MathML with a TeX annotation, MathJax delimiters, scripts, images."""

from __future__ import annotations

import re
from html import escape

STYLES = ("mathml", "mathjax", "script", "image")

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[0-9]+(?:\.[0-9]+)?|\S")
_SYMBOLS = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ"},
    **{"iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ"},
    **{"pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "varepsilon": "ε"},
    **{"Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω"},
    **{"sum": "∑", "prod": "∏", "int": "∫", "infty": "∞", "partial": "∂", "nabla": "∇", "cdot": "⋅", "times": "×"},
    **{"le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "neq": "≠", "approx": "≈", "in": "∈", "to": "→", "rightarrow": "→", "pm": "±"},
    **{"ldots": "…", "cdots": "⋯", "dots": "…", "mid": "|", "sim": "∼", "equiv": "≡", "subset": "⊂", "cup": "∪", "cap": "∩"},
}
_OPERATOR_NAMES = frozenset(
    ["log", "exp", "sin", "cos", "tan", "max", "min", "arg", "det", "lim", "sup", "inf", "ln", "sinh", "cosh", "tanh"]
)
_IGNORED = frozenset(
    ["left", "right", "displaystyle", "limits", "big", "Big", "bigg", "Bigg", "nonumber", "quad", "qquad", *",;!: "]
)


def formula(tex: str, style: str, *, display: bool = False) -> str:
    """HTML of one formula. `tex` is LaTeX without delimiters, on one line."""
    if style == "mathml":
        kind = "block" if display else "inline"
        return (
            f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="{kind}"><semantics><mrow>{presentation(tex)}</mrow>'
            f'<annotation encoding="application/x-tex">{escape(tex, quote=False)}</annotation></semantics></math>'
        )
    if style == "script":
        mode = "; mode=display" if display else ""
        return f'<script type="math/tex{mode}">{tex}</script>'
    if style == "image":
        return f'<img class="math" src="/_images/math/{len(tex)}.png" alt="{escape(tex)}"/>'
    opening, closing = (r"\[", r"\]") if display else (r"\(", r"\)")
    return f'<span class="math notranslate">{opening}{escape(tex, quote=False)}{closing}</span>'


def presentation(tex: str) -> str:
    """Presentation MathML: fractions, roots, scripts, Greek and operators; what it does not know is written by name."""
    return "".join(_row(_Tokens(tex), until=""))


class _Tokens:
    """TeX tokens with one place in them."""

    def __init__(self, tex: str) -> None:
        self.tokens, self.at = _TOKEN.findall(tex), 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token


def _row(tokens: _Tokens, until: str) -> list[str]:
    parts: list[str] = []
    while (token := tokens.next()) and token != until:
        if token in "_^":
            base, script = parts.pop() if parts else "<mrow></mrow>", _atom(tokens)
            tag = "msub" if token == "_" else "msup"
            parts.append(f"<{tag}>{base}{script}</{tag}>")
        else:
            parts.append(_element(token, tokens))
    return [part for part in parts if part]


def _atom(tokens: _Tokens) -> str:
    token = tokens.next()
    return (_element(token, tokens) if token else "") or "<mrow></mrow>"


def _element(token: str, tokens: _Tokens) -> str:
    if token == "{":
        return f"<mrow>{''.join(_row(tokens, until='}'))}</mrow>"
    if token.startswith("\\"):
        return _command(token[1:], tokens)
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token.isalpha():
        return f"<mi>{token}</mi>"
    return "" if token in "&}" else f"<mo>{escape(token)}</mo>"


def _command(name: str, tokens: _Tokens) -> str:
    if name in ("frac", "dfrac", "tfrac"):
        return f"<mfrac>{_atom(tokens)}{_atom(tokens)}</mfrac>"
    if name == "sqrt":
        return f"<msqrt>{_atom(tokens)}</msqrt>"
    if name in ("hat", "bar", "tilde", "vec", "overline"):
        accent = {"hat": "^", "bar": "¯", "tilde": "~", "vec": "→", "overline": "¯"}[name]
        return f"<mover>{_atom(tokens)}<mo>{accent}</mo></mover>"
    if name in _SYMBOLS:
        symbol = _SYMBOLS[name]
        return f"<mi>{symbol}</mi>" if symbol.isalpha() else f"<mo>{symbol}</mo>"
    if name in _OPERATOR_NAMES:
        return f"<mi>{name}</mi>"
    if name in _IGNORED or name == "\\" or not name:
        return ""
    return f"<mo>{escape(name)}</mo>" if not name.isalpha() else f"<mi>{name}</mi>"
