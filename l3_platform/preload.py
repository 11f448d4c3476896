"""What every worker of curation needs, in memory by importing this module: modules, kernels, tables of characters and words.

The fork server imports it once, before the first worker and beside the process that starts the run: two core seconds that each
worker would else spend on its own. Here is only what the shipped settings call for; the rest loads on first use.
"""

import uuid

import fasttext  # noqa: F401
import numpy as np
import pyarrow as pa

import l3_platform.crawl.fetch
import l3_platform.dedup.lines
import l3_platform.dedup.minhash
import l3_platform.dedup.urls
import l3_platform.mix.curated
import l3_platform.quality.classifier
import l3_platform.quality.scores  # noqa: F401
from l3_platform.curate import languages, pii, text_heuristics, url_policy
from l3_platform.curate.outlier_kernels import count_tokens
from l3_platform.curate.outlier_tokens import BINS, token_bins
from l3_platform.dedup.clusters import similarities
from l3_platform.dedup.code import code_shares
from l3_platform.dedup.lines import counted_lines
from l3_platform.dedup.shingles import first_words, shingle_sets, signatures
from l3_platform.engine.backend import leave_pandas_out
from l3_platform.extract import extract
from l3_platform.settings import Pii, UrlPolicy

leave_pandas_out()

PAGE = "<html><title>A page</title><body><p>The sum of x and y, a word to j.doe@example.org, and 127.0.0.1.</p></body></html>"
TEXT = extract(PAGE.encode()).text

texts = pa.chunked_array([pa.array([TEXT, "", TEXT])])
ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.uuid4().bytes for _ in range(len(texts))], pa.binary(16)))
pages = pa.table({"doc_id": ids, "url": ["https://example.org/"] * len(texts), "text": texts})
language = languages(pages)["language"]
text_heuristics(texts, language)
pii(pages.set_column(2, "text", [pa.array([50 * TEXT] * len(texts))]), Pii())  # a short text is worth no kernel
url_policy(pages, UrlPolicy())
signatures(texts)
first_words(TEXT, 1)
counted_lines(texts, 1)
code_shares(texts)
count_tokens(*token_bins(texts), np.zeros(len(texts), np.int64), np.zeros((1, BINS), np.int64))
sets = shingle_sets(texts)
one, other = np.array([0]), np.array([2])
similarities(one, sets, other, sets, 0.8)
