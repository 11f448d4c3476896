import ast
import importlib
import itertools
import random
import uuid
from pathlib import Path

import numpy
import pyarrow as pa
import pytest

from l3_platform.curate import mask, pii
from l3_platform.curate.pii import SIDECAR, matches
from l3_platform.settings import Pii

module = importlib.import_module("l3_platform.curate.pii")  # the package has a function of this name


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Mail jane.doe+x@mail.acme.io now", "Mail [EMAIL] now"),
        ("Call +49 30 901820 today", "Call [PHONE] today"),
        ("Call (555) 123-4567 today", "Call [PHONE] today"),
        ("Call 212-555-0147.", "Call [PHONE]."),
        ("Tel.: 030 / 1234567", "Tel.: [PHONE]"),
        ("to DE89 3704 0044 0532 0130 00 please", "to [IBAN] please"),
        ("to GB29NWBK60161331926819.", "to [IBAN]."),
        ("card 4111 1111 1111 1111 ok", "card [CARD] ok"),
        ("card 378282246310005 ok", "card [CARD] ok"),
        ("from 93.184.216.34 at noon", "from [IP] at noon"),
    ],
)
def test_personal_data_is_masked(text, masked):
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "version 93.184.216.34 is out",
        "numpy 1.26.4.1 and v10.20.30.40",
        "see section 4.12.33.127 below: §93.184.216.34",
        "localhost is 127.0.0.1, the router 192.168.178.1",
        "x = 3.14159265358979 + 2.718281828459045",
        "[1234567, 2345678, 3456789]",
        "array([ 0.1234567,  1.2345678, -9.8765432])",
        "2024-01-02 12:00:00 and 20240102T120000",
        "+2147483647 is the largest int32, -2147483648 the smallest",
        "card 4111 1111 1111 1112 has a wrong digit",
        "DE88 3704 0044 0532 0130 00 has wrong check digits",
        "icon@2x.png, git@github.com:me/repo.git, @decorator, f(x@y.T)",
        "a[1:2, 3:4] 10.1000/182 1-800 ISBN 978-3-16-148410-0",
        "0x7fffffff 4294967296 18446744073709551615",
    ],
)
def test_numbers_that_are_no_personal_data_stay(text):
    assert mask(text) == text


def test_false_alarms_on_documentation_are_rare():
    """Everything but e-mail addresses (there are real ones of authors) is a false alarm in numpy's docstrings."""
    strings = []
    for path in sorted(Path(numpy.__file__).parent.rglob("*.py"))[:120]:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        strings += [text for node in nodes if isinstance(node, kinds) and (text := ast.get_docstring(node))]
    alarms = [kind for text in strings for kind, _, _ in matches(text) if kind != "emails"]
    assert len(strings) > 500
    assert alarms == []


def plain_matches(text: str) -> list[tuple[str, int, int]]:
    """Every pattern over the whole text, without the kernel that says where to look."""
    found = [("emails", m.span()) for m in module._EMAIL.finditer(text) if module._is_email(m.group())]
    found += [("ibans", (m.start(), m.start() + n)) for m in module._IBAN.finditer(text) if (n := module._iban_chars(m.group()))]
    found += [("cards", m.span()) for m in module._CARD.finditer(text) if module._is_card(m.group())]
    found += [
        ("ips", m.span()) for m in module._IP.finditer(text) if module._is_ip(m.group(), text[max(0, m.start() - 16) : m.start()])
    ]
    found += [("phones", m.span()) for m in module._PHONE.finditer(text) if module._is_phone(m.group())]
    found += [("phones", m.span(1)) for m in module._CALLED.finditer(text) if module._is_phone(m.group(1))]
    taken: list[tuple[str, int, int]] = []
    for kind, (start, end) in found:
        if all(end <= other[1] or start >= other[2] for other in taken):
            taken.append((kind, start, end))
    return sorted(taken, key=lambda match: match[1])


def test_the_places_where_to_look_miss_nothing():
    faker = pytest.importorskip("faker")
    fake = faker.Faker(["en_US", "de_DE", "fr_FR", "ja_JP", "ar_AA"])
    fake.seed_instance(1)
    chance = random.Random(2)
    values = (
        *(fake.email, fake.phone_number, fake.iban, fake.credit_card_number, fake.ipv4, fake.sentence, fake.date),
        lambda: f"Tel.: {fake.phone_number()}",
        lambda: "".join(chance.choices("0123456789 .-/()+@abXY,:é漢٣", k=chance.randint(3, 40))),
    )
    found = 0
    for _ in range(800):
        text = chance.choice([" ", "", ", ", "\n"]).join(str(chance.choice(values)()) for _ in range(chance.randint(1, 30)))
        assert matches(text) == plain_matches(text), text
        found += len(matches(text))
    assert found > 1000


def test_patterns_find_the_places_that_the_kernel_finds(monkeypatch):
    draw = random.Random(11)
    pieces = [*"0123456789 ./-()@ABZab+,é日٣𝟎", "  ", "....", "(0) ", "DE89", "GB29 NWBK", "-----", "\n"]
    texts = ["".join(draw.choice(pieces) for _ in range(draw.choice((5, 60, 900)))) for _ in range(6000)]
    by_patterns = [module.places_by_patterns(text) for text in texts]
    monkeypatch.setattr(module, "_SHORT", -1)
    assert [module._places(text) for text in texts] == by_patterns


def test_matches_never_overlap():
    spans = sorted((start, end) for _, start, end in matches("Tel. +49 30 901820 4111 1111 1111 1111 93.184.216.34 a@b.de"))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_masking_twice_changes_nothing():
    once = mask("a@b.de, +49 30 901820 and 93.184.216.34")
    assert mask(once) == once


def test_the_sidecar_counts_each_kind_and_the_density_a_word():
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=i).bytes for i in range(2)], pa.binary(16)))
    table = pii(pa.table({"doc_id": ids, "text": ["mail a@b.de or c@d.fr", "nothing here"]}), Pii())
    assert table.schema == SIDECAR
    assert table.column("emails").to_pylist() == [2, 0]
    assert table.column("density").to_pylist() == [2 / 4, 0.0]


def test_a_long_line_of_digits_takes_no_time():
    text = "1 " * 100_000 + "+1" + " 23" * 50_000 + "a" * 50_000 + "@" + "b." * 50_000
    assert matches(text) is not None
