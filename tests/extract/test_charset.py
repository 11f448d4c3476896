import codecs

import pytest

from l3_platform.extract.charset import Undecodable, decode

GERMAN = "<p>Größe, Übermut und “Gänsefüßchen” für alle</p>"
FRENCH = "<p>un café très corsé à l’hôtel</p>"


def test_utf8_declared_as_latin1_is_read_as_utf8():
    assert decode(GERMAN.encode(), "text/html; charset=iso-8859-1") == (GERMAN, "utf-8")


def test_cp1252_declared_as_utf8_is_read_as_cp1252():
    assert decode(GERMAN.encode("cp1252"), "text/html; charset=utf-8") == (GERMAN, "cp1252")


def test_latin1_is_read_as_cp1252_so_that_curly_quotes_survive():
    assert decode(FRENCH.encode("cp1252"), "iso-8859-1") == (FRENCH, "cp1252")


def test_the_http_header_beats_the_meta_tag():
    page = '<meta charset="windows-1252"><p>Привет, мир</p>'
    assert decode(page.encode("cp1251"), "windows-1251") == (page, "cp1251")


def test_the_meta_tag_is_read_where_the_header_is_silent():
    page = '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>日本語のページ</p>'
    assert decode(page.encode("cp932"), "text/html") == (page, "cp932")


def test_a_byte_order_mark_beats_every_declaration():
    assert decode(codecs.BOM_UTF16_LE + GERMAN.encode("utf-16-le"), "iso-8859-1") == (GERMAN, "utf-16-le")


def test_a_charset_that_does_not_exist_is_ignored():
    assert decode(GERMAN.encode(), "text/html; charset=klingon")[0] == GERMAN


def test_a_page_cut_inside_a_character_is_still_utf8():
    assert decode(GERMAN.encode()[:6])[1] == "utf-8"


def test_iso_2022_jp_is_not_taken_for_ascii():
    page = "<p>日本語のページ</p>"
    assert decode(page.encode("iso2022_jp"), "iso-2022-jp")[0] == page


def test_mostly_valid_utf8_with_one_broken_byte_stays_utf8():
    text, name = decode(("größer " * 50).encode() + b"\xff")
    assert (name, text.count("\ufffd")) == ("utf-8", 1)


def test_an_undeclared_polish_page_follows_its_lang_attribute():
    page = '<html lang="pl"><p>Zażółć gęślą jaźń, proszę</p>'
    assert decode(page.encode("cp1250"))[0] == page


@pytest.mark.parametrize(("code", "charset"), [("rus", "cp1251"), ("jpn", "cp932"), ("cmn_hans", "gb18030"), ("kor", "cp949")])
def test_an_undeclared_charset_of_another_script_is_guessed(shared_data, code, charset):
    text = _declaration(shared_data, code)
    assert decode(text.encode(charset, "ignore"))[0][:200] == text[:200]


def test_binary_is_refused():
    with pytest.raises(Undecodable, match="not text"):
        decode(bytes(range(256)) * 64)


def _declaration(shared_data, code):
    import pyarrow.parquet as pq
    from selectolax.lexbor import LexborHTMLParser

    rows = pq.read_table(shared_data / "language" / "udhr.parquet").to_pylist()
    page = next(row["html"] for row in rows if row["language"] == code)
    return LexborHTMLParser(page).body.text(separator="\n", strip=True)
