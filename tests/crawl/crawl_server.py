"""A local server with Common Crawl's layout, and its bad days: cut connections, refusals, wrong bytes."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """`cut`, `refuse`, `corrupt`: how many more answers of a path go wrong in that way."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    corrupt: dict[str, int] = field(default_factory=dict)
    cut_after: int = 2000
    ranges: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    url: str = ""


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Server]:
    server = Server(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format, *args):
            pass

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, body):
            path = self.path.lstrip("/")
            server.requests.append((self.command, path, self.headers.get("Range", "")))
            if _spend(server.refuse, path):
                return self._head(503, {"Content-Length": "0", "Retry-After": "3"})
            if path not in server.files:
                return self._head(404, {"Content-Length": "0"})
            data, headers, status, start = server.files[path], {}, 200, 0
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and server.ranges and self.headers.get("If-Range", etag) == etag:
                status, start = 206, int(asked[1])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            sent = data[start:]
            headers |= {"ETag": etag, "x-amz-request-id": "1", "Content-Length": str(len(sent))}
            self._head(status, headers)
            if not body:
                return None
            if _spend(server.corrupt, path):
                sent = bytes([sent[0] ^ 1]) + sent[1:]
            if _spend(server.cut, path):
                self.wfile.write(sent[: server.cut_after])
                self.close_connection = True
                return None
            self.wfile.write(sent)

        def _head(self, status, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def _spend(budget: dict[str, int], path: str) -> bool:
    left = budget.get(path, 0)
    budget[path] = max(left - 1, 0)
    return left > 0
