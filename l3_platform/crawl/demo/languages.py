"""Synthetic text in many languages: Faker's word lists, which are words of the language, joined as its sentences are.

Faker's lists for Hebrew and Korean are Latin filler or absent, so those languages are left out. Frequent function words are
mixed in where a list is of content words only; texts mean nothing, and their pages say that they are synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from l3_platform.crawl.demo.page import draw


@dataclass(frozen=True)
class Language:
    """`code` is ISO 639-1. `function_words` go between content words with probability `share`."""

    code: str
    locale: str
    function_words: tuple[str, ...] = ()
    share: float = 0.0
    gap: str = " "
    stop: str = "."


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LANGUAGES = (
    Language("ru", "ru_RU", _words("и в не на что с он как это по но она к у из за от так о его же для мы вы"), 0.4),
    Language("fr", "fr_FR", _words("le la les de des du un une et est dans pour que qui sur avec pas plus il nous à au ce"), 0.45),
    Language("de", "de_DE", _words("der die das und ist nicht ein eine mit auf für von zu den dem sich auch es wird über"), 0.45),
    Language("es", "es_ES", _words("el la los las de del que y en un una por con para se no es más como su"), 0.35),
    Language("ja", "ja_JP", _words("は が を に の と で も から まで"), 0.95, "", "。"),
    Language("zh", "zh_CN", _words("的 了 在 是 和 也 就 都 把 被 与 对"), 0.35, "", "。"),
    Language("ar", "ar_AA", _words("في من على إلى أن هذا هذه التي الذي مع عن كان لا ما بين كل بعد"), 0.4),
    Language("it", "it_IT", _words("il la i le di del della che e è un una per con non si sono nel come più anche da"), 0.45),
    Language("pl", "pl_PL", _words("i w na z się nie do to że jest o jak po za od dla przez ale który"), 0.35),
    Language("nl", "nl_BE", _words("de het een en van in is dat op te zijn met voor niet aan er ook als door maar bij"), 0.45),
    Language("cs", "cs_CZ", _words("a v se na je že s z do o to i k pro jsou ale jako by po za který"), 0.4),
    Language("el", "el_GR", _words("και το η ο να του της τα με για από που δεν στο στη είναι θα οι ένα"), 0.4),
    Language("uk", "uk_UA", _words("і в не на що з він як це до але вона у за від так та його для ми ви є"), 0.4),
    Language("da", "da_DK", _words("og i at det er en til på af for ikke med som der de den har et var jeg vi"), 0.4),
    Language("fa", "fa_IR", _words("و در به از که این را با است برای آن یک تا بر هم می"), 0.35),
    Language("vi", "vi_VN", _words("và là của có không cho trong một được với các người này đã"), 0.35),
)  # fmt: skip


def sentences(language: Language, count: int, key: str) -> list[str]:
    """Sentences of 7 to 16 content words."""
    return [_sentence(language, f"{key}:{i}") for i in range(count)]


def title(language: Language, key: str) -> str:
    words = _content(language.locale)
    return language.gap.join(words[int(draw(key, "title", i) * len(words))] for i in range(4)).capitalize()


def _sentence(language: Language, key: str) -> str:
    content, parts = _content(language.locale), []
    size = 7 + int(10 * draw(key, "size"))
    for i in range(size):
        if language.function_words and draw(key, i, "function") < language.share and i:
            parts.append(language.function_words[int(draw(key, i, "which") * len(language.function_words))])
        # The square makes words at the front of a list more frequent, as they are where lists are sorted by frequency.
        parts.append(content[int(draw(key, i, "word") ** 2 * len(content))])
    text = language.gap.join(parts)
    return text[0].upper() + text[1:] + language.stop


@cache
def _content(locale: str) -> tuple[str, ...]:
    from importlib import import_module

    provider = import_module(f"faker.providers.lorem.{locale}").Provider
    words = getattr(provider, "word_list", ()) or getattr(provider, "common_words", ())
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip(" .?!,;:")))
