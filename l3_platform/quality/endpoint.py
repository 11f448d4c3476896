"""Labels from a model behind HTTP that reads the written requirements and the text (Llama 3, section 3.1.1: Llama 2 chat).

Every answer is kept as a file, by model, prompt and text: a run that was killed asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from l3_platform.engine import verbs
from l3_platform.quality.annotators import ANSWERS, LabelsError
from l3_platform.quality.chat import EndpointError, NoReply, Reply, ask
from l3_platform.quality.questions import Question
from l3_platform.settings import Annotator, Settings, home
from l3_platform.store import files

LOST_IN_A_ROW = 8  # questions without a reply, after which the server is taken for dead
ASK = "Does the text meet the requirements? Answer with one word, yes or no."


@dataclass(frozen=True)
class Endpoint:
    """An annotator that asks. `folder` keeps the answers, `threads` is the number of questions at a time."""

    server: Annotator
    requirements: str
    folder: str
    threads: int
    simulated: bool = False
    free: bool = False

    @classmethod
    def of(cls, question: Question, settings: Settings) -> Endpoint:
        """Raises LabelsError where a setting is missing."""
        server = settings.annotator
        if not server.model or not server.url.startswith(("http://", "https://")):
            raise LabelsError(
                f"{question.name}.labels is endpoint, so annotator.url must be the base URL of a server, such as "
                f"http://localhost:8000/v1, and annotator.model a model's name (they are {server.url!r} and {server.model!r})"
            )
        path = question.settings(settings).requirements
        requirements = files.read(path).decode() if path else question.requirements
        threads = max(1, server.concurrency // verbs.workers(settings.engine))
        return cls(server, requirements, str(home() / "annotations"), threads)

    @property
    def name(self) -> str:
        return f"endpoint: {self.server.model}"

    def label(self, documents: pa.Table) -> pa.Table:
        """Null with a reason for what stays unanswered. Raises EndpointError when the server answers nothing any more."""
        texts, patience = documents["text"].to_pylist(), _Patience()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                rows = list(pool.map(lambda text: self._answer(text or "", patience), texts))
            except BaseException:
                patience.over.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return pa.Table.from_pylist(rows, schema=ANSWERS)

    def _answer(self, text: str, patience: _Patience) -> dict[str, Any]:
        system = f"{self.requirements.strip()}\n\n{ASK}"
        user = f"The text:\n\n<text>\n{text[: self.server.max_chars]}\n</text>\n\n{ASK}"
        place = self._place(system, user)
        try:
            reply = _kept(place)
            if reply is None:
                reply = ask(self.server, system, user, patience.over)
                files.write(place, json.dumps(vars(reply)).encode())
        except NoReply as none:
            patience.lost(self.server, none.reason)
            return {"label": None, "reason": none.reason, "prompt_tokens": 0, "completion_tokens": 0}
        except EndpointError:
            patience.over.set()
            raise
        patience.answered()
        label = verdict(reply.text)
        reason = "malformed" if label is None else None
        tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return {"label": label, "reason": reason, **tokens}

    def _place(self, system: str, user: str) -> str:
        identity = json.dumps([self.server.model, self.server.max_tokens, system, user])
        digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
        return files.join(self.folder, digest[:2], f"{digest}.json")


_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def verdict(answer: str) -> bool | None:
    """Yes or no: the first word, or else the only one of the two that occurs; None where it is neither."""
    answer = _THOUGHTS.sub("", answer).strip(" \n\t\"'*`.")
    found = [word.lower() for word in _WORD.findall(answer)]
    begins = _WORD.match(answer) is not None
    return found[0] == "yes" if begins or len(set(found)) == 1 else None


def _kept(place: str) -> Reply | None:
    try:
        return Reply(**json.loads(files.read(place)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@dataclass
class _Patience:
    """Shared by the threads of one shard: counts questions lost in a row, and says when it is over."""

    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    in_a_row: int = 0

    def answered(self) -> None:
        with self.lock:
            self.in_a_row = 0

    def lost(self, server: Annotator, reason: str) -> None:
        if reason.startswith("http_4"):  # the server is well, the text is not to its taste
            return
        with self.lock:
            self.in_a_row += 1
            dead = self.in_a_row >= LOST_IN_A_ROW
        if dead:
            self.over.set()
            raise EndpointError(
                f"annotator.url: {server.url} left {LOST_IN_A_ROW} questions in a row unanswered (the last: {reason}); the "
                "answers so far are kept, so run it again when the server is well, or raise annotator.timeout_seconds"
            )
