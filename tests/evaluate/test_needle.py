"""The needle: what finds it scores 1, what guesses is at chance and called so, and it lies where it is said to lie."""

from pathlib import Path

import numpy as np
import pytest

from l3_platform.evaluate.needle import Needle, cells, finding, needles
from l3_platform.evaluate.plot import needle_chart
from l3_platform.settings import LongContext

BOS, EOS = 300, 301
RECIPE = LongContext(needle_depths=5, needle_trials=8, needle_choices=4)


def encode(texts):
    """A token a byte."""
    return [list(text.encode()) for text in texts]


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> list[Needle]:
    folder = tmp_path_factory.mktemp("held_out")
    return ask(folder, [128, 256, 512])


def ask(folder: Path, lengths: list[int], recipe: LongContext = RECIPE) -> list[Needle]:
    held_out = {}
    for domain, size in (("code", 20), ("general", 900)):
        text = [BOS, *f"A {domain} document without any numbers in it. ".encode() * size, EOS]
        np.array(text * 2, "<u4").tofile(folder / f"{domain}.bin")
        held_out[domain] = (str(folder / f"{domain}.bin"),)
    return needles(held_out, encode, bos_id=BOS, eos_id=EOS, lengths=lengths, settings=recipe, seed=3)


def reads_the_context(needle: Needle) -> list[float]:
    """An oracle: a choice costs nothing where the context says it, and one nat a token elsewhere."""
    context = bytes(needle.probe.context[1:])
    return [0.0 if bytes(choice) in context else float(len(choice)) for choice in needle.probe.choices]


def test_an_oracle_that_reads_the_context_finds_every_needle(asked):
    found = finding(cells(asked, [reads_the_context(one) for one in asked]), 4)
    assert found is not None and (found.accuracy, found.worst) == (1.0, 1.0)
    assert "100% found where blind choice finds 25% (p = " in found.in_words


@pytest.mark.parametrize("blind", ["random", "always the first", "the smallest number"])
def test_what_does_not_read_the_context_is_at_chance_and_called_so(asked, blind):
    random = np.random.default_rng(1)
    score = {
        "random": lambda one: random.random(4).tolist(),
        "always the first": lambda one: [0.0, 1.0, 1.0, 1.0],
        "the smallest number": lambda one: [float(bytes(choice)[:-1]) for choice in one.probe.choices],
    }[blind]
    found = finding(cells(asked, [score(one) for one in asked]), 4)
    assert found is not None and found.in_words.endswith("at chance") and found.worst < 1.0


def test_a_short_sight_fails_at_the_depths_that_it_does_not_see(asked):
    """A model of a window of 100 tokens: the last depths pass, the first do not."""

    def near(one: Needle) -> list[float]:
        seen = bytes(one.probe.context[-100:])
        return [0.0 if bytes(choice) in seen else 1.0 + (number == one.answer) for number, choice in enumerate(one.probe.choices)]

    table = {(row["length"], row["depth"]): row["accuracy"] for row in cells(asked, [near(one) for one in asked]).to_pylist()}
    assert table[512, 1.0] == 1.0 and table[512, 0.0] == 0.0


def test_every_needle_lies_at_its_depth_in_a_text_of_its_length(asked):
    for one in asked:
        context = bytes(one.probe.context[1:])
        statement = context[context.rindex(b"\nThe secret number") :]
        place, room = context.index(statement), len(context) - len(statement)
        assert context.count(statement) == 2 and statement.endswith(b" is")
        assert place == pytest.approx(one.depth * (room - len(statement) - 10), abs=2)
        longest = max(map(len, one.probe.choices))
        assert len(one.probe.context) + longest == one.probe.length + 1


def test_no_document_boundary_hides_the_needle_from_the_question(asked):
    assert all(one.probe.context[0] == BOS and not {BOS, EOS} & set(one.probe.context[1:]) for one in asked)


def test_the_same_settings_ask_the_same_questions(asked, tmp_path):
    assert ask(tmp_path, [128, 256, 512]) == asked


def test_a_length_without_room_for_a_needle_is_left_out(tmp_path):
    assert {one.probe.length for one in ask(tmp_path, [64, 256])} == {256}
    assert finding(cells([], []), 4) is None


def test_the_heat_map_is_a_small_picture(asked):
    table = cells(asked, [reads_the_context(one) for one in asked])
    chart = needle_chart(table, 0.25)
    assert chart.startswith(b"\x89PNG") and len(chart) < 100_000
    with pytest.raises(ValueError, match="nothing was asked"):
        needle_chart(table.slice(0, 0), 0.25)
