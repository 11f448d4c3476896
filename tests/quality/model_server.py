"""A local server with OpenAI's chat/completions, and its bad days: refusals, failures, nonsense, silence."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NONSENSE = b"<html>The proxy is having lunch.</html>"


@dataclass
class ModelServer:
    """`says(document) -> answer`. `bad_days` are what happens to the next requests before they are answered: an HTTP status,
    `nonsense`, `hang`, `trickle` or `close`."""

    says: Callable[[str], Any]
    bad_days: list[int | str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)  # of refusals
    requests: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serve(says: Callable[[str], Any]) -> Iterator[ModelServer]:
    server = ModelServer(says)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                bad = server.bad_days.pop(0) if server.bad_days else None
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                self._answer(body, bad)
            finally:
                with server.lock:
                    server.at_once -= 1

        def _answer(self, body, bad):
            if isinstance(bad, int):
                return self._send(bad, b"{}", server.headers)
            if bad == "nonsense":
                return self._send(200, NONSENSE)
            if bad == "hang":
                server.closing.wait(5)
            if bad == "close":
                self.close_connection = True
                return None
            document = body["messages"][-1]["content"].partition("<text>\n")[2].partition("\n</text>")[0]
            answer = {"message": {"role": "assistant", "content": server.says(document)}}
            usage = {"prompt_tokens": 100, "completion_tokens": 2}
            return self._send(200, json.dumps({"choices": [answer], "usage": usage}).encode(), slowly=bad == "trickle")

        def _send(self, status, content, headers=None, slowly=False):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            for byte in range(len(content)) if slowly else ():
                self.wfile.write(content[byte : byte + 1])
                self.wfile.flush()
                time.sleep(0.05)
            if not slowly:
                self.wfile.write(content)

        def handle(self):
            with contextlib.suppress(ConnectionError):  # of a client that did not wait
                super().handle()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()
