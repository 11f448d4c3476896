"""Canonical URL, registered domain and block lists of each document (Llama 3, section 3.1.1: adult domains are removed)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pyarrow as pa

from l3_platform.curate.lists import read_words
from l3_platform.settings import UrlPolicy

SIDECAR = pa.schema([("doc_id", pa.uuid()), ("canonical_url", pa.string()), ("domain", pa.string()), ("blocked_by", pa.string())])
BUILT_IN = Path(__file__).with_name("listed_domains.txt")

_PORTS = {"http": 80, "https": 443}
_TRACKING = re.compile(
    r"utm_.*|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|twclid|igshid|mc_cid|mc_eid|_ga|_gl|_hsenc|_hsmi|mkt_tok|"
    r"vero_id|oly_enc_id|oly_anon_id|wickedid|s_cid|icid|ncid|cmpid|ref_src|phpsessid|jsessionid|sessionid|sid",
    re.IGNORECASE,
)
_INDEX = re.compile(r"/(?:index|default)\.(?:html?|php|aspx?|jsp)$", re.IGNORECASE)
_SESSION = re.compile(r";jsessionid=[^/?#]*", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_NO_WORD = re.compile(r"[^a-z0-9]+")
_SAFE = "/:@!$&'()*+,;=-._~%"

# Second-level suffixes under which anyone registers: the common part of the public suffix list.
_SECOND_LEVEL = frozenset(
    f"{second}.{country}"
    for country, seconds in {
        "uk": "co org ac gov ltd plc me net sch nhs police", "au": "com net org edu gov id asn",
        "nz": "co net org ac govt school geek",
        "jp": "co ne or ac go ad ed gr lg", "kr": "co or ne re pe go ac", "in": "co net org gen firm ind ac edu res gov nic",
        "br": "com net org gov edu blog eco art", "cn": "com net org gov edu ac", "tw": "com net org gov edu idv",
        "hk": "com net org gov edu idv",
        "sg": "com net org gov edu", "my": "com net org gov edu", "id": "co or ac go web sch my", "th": "co or ac go in net",
        "za": "co org net web gov ac law", "mx": "com net org gob edu", "ar": "com net org gob gov edu",
        "co": "com net org gov edu",
        "tr": "com net org gov edu bel k12 gen web", "il": "co org net ac gov muni k12", "ua": "com net org gov edu in kiev lviv",
        "ru": "com org net msk spb", "pl": "com net org edu gov waw", "vn": "com net org gov edu", "ph": "com net org gov edu",
        "ke": "co or ne go ac", "ng": "com org gov edu", "eg": "com net org gov edu", "pk": "com net org gov edu",
        "pe": "com net org gob edu",
        "es": "com org nom gob edu", "at": "co or ac gv", "hu": "co org", "gr": "com net org gov edu",
        "ve": "com net org gob", "sa": "com net org gov edu",
    }.items()
    for second in seconds.split()
) | frozenset({
    "github.io", "gitlab.io", "blogspot.com", "wordpress.com", "netlify.app", "vercel.app", "herokuapp.com", "pages.dev",
    "web.app", "readthedocs.io",
})  # fmt: skip


@dataclass(frozen=True)
class Lists:
    """What blocks a page: domains by the name of their list, URLs without scheme, words, and expressions by the name of theirs."""

    domains: tuple[tuple[str, frozenset[str]], ...]
    urls: frozenset[str]
    words: tuple[str, ...]
    expressions: tuple[tuple[str, re.Pattern[str]], ...]


def url_policy(documents: pa.Table, settings: UrlPolicy) -> pa.Table:
    """doc_id, canonical_url, registered domain and what blocks the document, in order.

    `blocked_by` is null, `domain_list:<name>`, `url_list`, `expression:<name>` or `word:<word>`, the first that applies. Raises
    FileNotFoundError where a list does not exist, ValueError where an expression cannot be read.
    """
    lists = _block_lists(settings.domain_lists, settings.url_lists, settings.ut1_folders, settings.words)
    canonical = [canonical_url(url or "") for url in documents.column("url").to_pylist()]
    columns = [
        documents.column("doc_id").combine_chunks(),
        pa.array(canonical, pa.string()),
        pa.array([registered_domain(host_of(url)) for url in canonical], pa.string()),
        pa.array([_blocked_by(url, lists) for url in canonical], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SIDECAR)


@lru_cache(maxsize=4)
def _block_lists(
    domain_lists: tuple[str, ...], url_lists: tuple[str, ...], ut1_folders: tuple[str, ...], words: tuple[str, ...]
) -> Lists:
    """All lists that the settings name. A folder of UT1 holds `domains`, `urls`, `expressions`, or some of them."""
    domains = [(PurePosixPath(path).stem, path) for path in (str(BUILT_IN), *domain_lists)]
    urls, expressions = list(url_lists), []
    for folder in map(Path, ut1_folders):
        found = {kind: str(folder / kind) for kind in ("domains", "urls", "expressions") if (folder / kind).is_file()}
        if not found:
            raise FileNotFoundError(f"url_policy.ut1_folders: {str(folder)!r} has no file domains, urls or expressions")
        domains += [(folder.name, found["domains"])] if "domains" in found else []
        urls += [found["urls"]] if "urls" in found else []
        expressions += [(folder.name, found["expressions"])] if "expressions" in found else []
    return Lists(
        tuple((name, _domains(path)) for name, path in domains),
        frozenset[str]().union(*(_urls(path) for path in urls)),
        tuple(word.lower() for word in words),
        tuple((name, expression) for name, path in expressions for expression in _expressions(path)),
    )


def canonical_url(url: str) -> str:
    """One spelling of the URLs that name one page; two pages never get the same but for the rules here.

    Lower-case scheme and host, no default port, credentials, fragment, session id or tracking parameter, sorted query, one spelling
    of percent-encoding, no `index.html`, no trailing slash but the root's. The scheme stays: http and https may differ.
    """
    url = url.strip().strip("<>")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return url
    scheme = parts.scheme.lower()
    if not host or scheme not in _PORTS:
        return url.partition("#")[0]
    try:
        host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return url
    path = quote(_ESCAPE.sub(_unescaped, _SESSION.sub("", parts.path)), safe=_SAFE, errors="surrogatepass")
    path = _INDEX.sub("/", _without_dots(path)).rstrip("/") or "/"
    pairs = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape") if parts.query else []
    query = urlencode(sorted(pair for pair in pairs if not _TRACKING.fullmatch(pair[0])), errors="surrogateescape")
    netloc = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{netloc}{path}" + (f"?{query}" if query else "")


def host_of(url: str) -> str:
    """Host of a canonical URL."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0].partition(":")[0]


def registered_domain(host: str) -> str:
    """The domain that somebody registered: `b.co.uk` of `a.b.co.uk`. IP addresses are their own."""
    labels = host.split(".")
    if len(labels) <= 2 or labels[-1].isdigit():
        return host
    return ".".join(labels[-3:] if ".".join(labels[-2:]) in _SECOND_LEVEL else labels[-2:])


def _unescaped(match: re.Match[str]) -> str:
    """RFC 3986, section 6.2.2: only unreserved characters lose their escape, `%2F` is no path separator."""
    char = chr(int(match.group(1), 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else match.group().upper()


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4: `.` and `..` resolved; repeated slashes become one."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part and part != ".":
            kept.append(part)
    return "/" + "/".join(kept) + ("/" if path.endswith("/") and kept else "")


def _blocked_by(url: str, lists: Lists) -> str | None:
    suffixes = _suffixes(host_of(url))
    for name, domains in lists.domains:
        if not domains.isdisjoint(suffixes):
            return f"domain_list:{name}"
    bare = _bare(url)
    if lists.urls and not lists.urls.isdisjoint(_prefixes(bare)):
        return "url_list"
    lower = bare.lower()
    for name, expression in lists.expressions:
        if expression.search(lower):
            return f"expression:{name}"
    tokens = frozenset(_NO_WORD.split(url.lower()))
    return next((f"word:{word}" for word in lists.words if word in tokens), None)


def _suffixes(host: str) -> list[str]:
    """`a.b.c` as a.b.c, b.c: a listed domain blocks everything under it, but never a longer name that ends like it."""
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(max(1, len(labels) - 1))]


def _prefixes(bare: str) -> list[str]:
    """A listed URL blocks the pages under it, at whole path segments."""
    parts = bare.partition("?")[0].split("/")
    return [bare, *("/".join(parts[:i]) for i in range(len(parts), 1, -1))]


def _bare(url: str) -> str:
    return url.partition("://")[2].removeprefix("www.").rstrip("/")


def _domains(path: str) -> frozenset[str]:
    return frozenset(entry.lower().removeprefix("www.").rstrip("./") for entry in read_words(path))


def _urls(path: str) -> frozenset[str]:
    return frozenset(_bare(canonical_url(f"http://{entry.partition('://')[2] or entry}")) for entry in read_words(path))


def _expressions(path: str) -> list[re.Pattern[str]]:
    try:
        return [re.compile(entry, re.IGNORECASE) for entry in read_words(path)]
    except re.error as error:
        raise ValueError(f"list {path!r}: {error.pattern!r} is no regular expression: {error}") from None
