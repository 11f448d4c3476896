import pytest
from selectolax.lexbor import LexborHTMLParser

from l3_platform.extract import extract
from l3_platform.extract.latex import latex

PROSE = "Every square matrix that equals its conjugate transpose has real eigenvalues, as this page goes on to show in full: "


def formulas(html: str) -> tuple[str, ...]:
    return extract(f"<p>{PROSE}{html}</p>".encode()).formulas


def test_a_tex_annotation_beats_the_mathml_around_it():
    math = (
        "<math><semantics><mi>z</mi><annotation encoding='application/x-tex'>{\\displaystyle A^{H}}</annotation></semantics></math>"
    )
    assert formulas(math) == ("A^{H}",)


def test_alttext_beats_a_conversion():
    assert formulas('<math alttext="a\\le b"><mi>a</mi></math>') == (r"a\le b",)


def test_a_katex_formula_appears_once():
    html = (
        '<span class="katex"><span class="katex-mathml"><math><semantics><mi>x</mi><annotation encoding="application/x-tex">x^2'
        '</annotation></semantics></math></span><span class="katex-html" aria-hidden="true">x2</span></span>'
    )
    assert extract(f"<p>{PROSE}{html}</p>".encode()).text.endswith("in full: $x^2$")


def test_a_mathjax_script_replaces_what_it_rendered():
    html = (
        '<span class="MathJax_Preview">x2</span><span class="MathJax">x2</span><script type="math/tex; mode=display">x^2</script>'
    )
    assert extract(f"<p>{PROSE}{html}</p>".encode()).text.endswith("in full: $$x^2$$")


def test_delimiters_in_plain_text_are_kept():
    page = extract(f"<p>{PROSE}\\(a+b\\) and \\[c\\]</p>".encode())
    assert page.text.endswith(r"\(a+b\) and \[c\]")
    assert page.formulas == ("a+b", "c")


def test_dollars_are_maths_only_where_the_page_loads_mathjax():
    body = f"<p>{PROSE} $x_i$ </p>"
    assert extract(body.encode()).formulas == ()
    assert extract(f"<script src=/mathjax.js></script>{body}".encode()).formulas == ("x_i",)


def test_the_alt_of_an_image_of_a_formula_is_kept():
    assert formulas(r'<img class="latex" alt="\frac{1}{2}" src="x.png">') == (r"\frac{1}{2}",)


def test_the_alt_of_any_other_image_is_not_a_formula():
    assert formulas('<img class="texture" alt="a wall" src="x.png">') == ()


@pytest.mark.parametrize(
    ("mathml", "tex"),
    [
        ("<mfrac><mi>a</mi><mi>b</mi></mfrac>", r"\frac{a}{b}"),
        ("<msup><mi>x</mi><mn>2</mn></msup>", "x^{2}"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_{i}^{2}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt[3]{x}"),
        ("<munderover><mo>∑</mo><mi>i</mi><mi>n</mi></munderover>", r"\sum_{i}^{n}"),
        ("<mover><mi>v</mi><mo>→</mo></mover>", r"\vec{v}"),
        ("<mi>sin</mi><mi>α</mi>", r"\sin \alpha"),
        ("<mtable><mtr><mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr></mtable>", r"\begin{matrix}a & b\end{matrix}"),
    ],
)
def test_mathml_without_source_is_converted(mathml, tex):
    assert latex(LexborHTMLParser(f"<math>{mathml}</math>").css_first("math")) == tex


def test_all_66_formulas_of_a_wikipedia_page_are_kept(shared_data):
    page = extract((shared_data / "math" / "wikipedia-hermitian-matrix.html").read_bytes())
    assert len(page.formulas) == 66
