"""A crawl of real pages for benchmarks: the HTML documentation that Debian packages, as WARC files.

Books, manuals and API references in 28 languages with maths, code and untranslated chapters that repeat: real near-duplicates.
About 30,000 pages, 1.4 GB of HTML.
The packages come from the archive that this machine's apt is set up for, and are only unpacked, never installed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import xxhash

_TRANSLATIONS = {
    "debian-reference": ("common", "en", "de", "es", "fr", "id", "it", "ja", "pt", "pt-br", "zh-cn", "zh-tw"),
    "maint-guide": ("", "ca", "de", "es", "fr", "it", "ja", "ru", "vi", "zh-cn", "zh-tw"),
    "developers-reference": ("", "de", "fr", "it", "ja", "ru"),
}
PACKAGES = (
    *("debian-handbook", "python3.11-doc", "maxima-doc", "installation-guide-amd64", "lilypond-doc-html", "apache2-doc", "git-doc"),
    *("python-sklearn-doc", "python-sympy-doc", "python-django-doc", "postgresql-doc-15", "sqlite3-doc", "sagemath-doc"),
    *("python-pandas-doc", "python-scipy-doc", "singular-doc"),
    *(f"{name}-{language}".rstrip("-") for name, languages in _TRANSLATIONS.items() for language in languages),
)
PAGES_A_FILE = 560


class NoDebian(RuntimeError):
    """This machine has no apt, or its archive none of the packages."""


def build(pages: int, folder: Path) -> list[Path]:
    """WARC files with at most `pages` pages in `folder`, which keeps them and the packages. Raises NoDebian.

    The pages are a random sample in a random order, the same each time; a smaller sample is part of a larger one.
    """
    folder = folder / f"debian-{xxhash.xxh32_hexdigest(' '.join(PACKAGES).encode())}"  # another list is another crawl
    crawl = folder / f"crawl-{pages}"
    if not (crawl / "complete").exists():
        found = _pages(folder / "tree") or _pages(_unpack(folder))
        sample = sorted(found, key=lambda path: xxhash.xxh64_hexdigest(str(path.relative_to(folder)).encode()))[:pages]
        crawl.mkdir(parents=True, exist_ok=True)
        files = max(2, -(-len(sample) // PAGES_A_FILE))
        for number in range(files):
            records = (gzip.compress(_response(path), 6, mtime=0) for path in sample[number::files])
            (crawl / f"debian-{number:02}.warc.gz").write_bytes(b"".join(records))
        (crawl / "complete").write_text(f"{len(sample)} {sum(path.stat().st_size for path in sample)}\n")
    return sorted(crawl.glob("*.warc.gz"))


def size(files: Sequence[Path]) -> tuple[int, int]:
    """Pages of a crawl, and bytes of their HTML."""
    pages, html = (files[0].parent / "complete").read_text().split()
    return int(pages), int(html)


def _unpack(folder: Path) -> Path:
    packages, tree = folder / "packages", folder / "tree"
    packages.mkdir(parents=True, exist_ok=True)
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise NoDebian("the benchmark's crawl is made of Debian packages, and this machine has no apt-get")
    for name in PACKAGES:
        if not list(packages.glob(f"{name}_*.deb")):
            done = subprocess.run(["apt-get", "download", "-q", name], cwd=packages, capture_output=True, check=False)
            if done.returncode:
                print(f"the crawl lacks the package {name}: apt-get could not download it")
    found = sorted(packages.glob("*.deb"))
    if not found:
        raise NoDebian("apt-get found none of the packages of the benchmark's crawl: run `apt-get update`, or check the network")
    for package in found:
        subprocess.run(["dpkg", "-x", str(package), str(tree)], check=True)
    return tree


def _pages(tree: Path) -> list[Path]:
    return [path for path in tree.rglob("*.html") if path.is_file() and not path.is_symlink()]


def _response(path: Path) -> bytes:
    """A page as Common Crawl records it: with a digest, and with the payload's type as it was identified."""
    package, _, rest = path.as_posix().partition("/usr/share/")[2].removeprefix("doc/").partition("/")
    url = f"https://{package.replace('.', '-')}.debian.example/{quote(rest)}"
    body = path.read_bytes()
    block = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    fields = {
        "WARC-Type": "response",
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>",
        "WARC-Date": "2026-01-01T00:00:00Z",
        "WARC-Target-URI": url,
        "WARC-Payload-Digest": "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode(),
        "WARC-Identified-Payload-Type": "text/html",
        "Content-Type": "application/http; msgtype=response",
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"WARC/1.1\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"
