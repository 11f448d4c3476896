"""From the raw crawl to curated documents (Llama 3, section 3.1)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from l3_platform.settings.section import Section


class Crawl(Section):
    """Where raw pages come from."""

    source: Literal["demo", "files", "common_crawl"] = "demo"
    paths: tuple[str, ...] = Field(default=(), description="files: globs or URLs of WARC and ARC files (.gz, .lz4, .zst)")
    snapshot: str = Field(default="files", description="files: the name of the partition that the paths become")
    snapshots: tuple[str, ...] = Field(default=(), description="common_crawl: snapshot ids such as CC-MAIN-2024-10")
    base_url: str = Field(
        default="https://data.commoncrawl.org", description="common_crawl: server of warc.paths.gz and WARC files"
    )
    warc_files: int = Field(default=1, ge=1, description="common_crawl: WARC files to take from each snapshot")
    retries: int = Field(default=5, ge=0, description="common_crawl: attempts after the first, with exponential back-off")
    demo_pages: int = Field(default=3000, ge=50, description="demo: pages over both snapshots")
    demo_warc_files: int = Field(default=4, ge=1, description="demo: WARC files a snapshot")
    demo_seed: int = 1


class Extract(Section):
    """HTML to text (Llama 3, section 3.1.1)."""

    engine: Literal["l3", "trafilatura", "resiliparse"] = "l3"
    max_html_bytes: int = Field(default=8 << 20, description="larger payloads are dropped as `too_large`, bytes")
    max_depth: int = Field(default=512, description="deeper element nesting is quarantined")
    max_seconds: float = Field(default=10.0, description="a page that takes longer is quarantined as `too_slow`")
    min_text_chars: int = Field(default=1, description="shorter texts are dropped as `empty_text`")


class UrlPolicy(Section):
    """Block lists (Llama 3, section 3.1.1: domains with much PII or adult content)."""

    domain_lists: tuple[str, ...] = Field(default=(), description="files in UT1 format, a domain a line; beside the built-in list")
    url_lists: tuple[str, ...] = Field(default=(), description="files in UT1 format, a URL a line, which blocks the pages under it")
    ut1_folders: tuple[str, ...] = Field(default=(), description="categories of UT1: folders of domains, urls and expressions")
    words: tuple[str, ...] = Field(default=("casino", "porn", "xxx", "viagra"), description="words of a URL that block it")
    max_pii_share: float = Field(default=0.5, description="domains with a larger share of pages holding PII are flagged")


class Languages(Section):
    """Language identification."""

    model: str = Field(default="", description="path of a fastText model such as lid.176.bin or GlotLID's; empty: see `labelled`")
    labelled: str = Field(
        default="", description="Parquet, CSV or TSV of text and language to train an identifier on; empty: the built-in identifier"
    )
    min_score: float = 0.5
    min_scores: dict[str, float] = Field(default_factory=dict, description="the same for single languages")
    epochs: int = 20
    dim: int = 32


class Heuristics(Section):
    """Rae et al. 2021, table A1, and Raffel et al. 2020, as thresholds over the scores of `text_heuristics`."""

    min_words: int = 20
    max_words: int = 100_000
    mean_word_length_min: float = 2.5
    mean_word_length_max: float = 12.0
    max_symbol_word_ratio: float = 0.25
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    dup_line_max: float = Field(default=0.30, description="share of characters in duplicate lines")
    dup_ngram_max: float = Field(default=0.35, description="share of characters in duplicated 5- to 10-grams, worst n")
    dirty_words_max: float = Field(default=0.01, description="dirty words a word")
    dirty_word_lists: dict[str, str] = Field(
        default_factory=dict, description="language to a file in LDNOOBW format, an entry a line; beside the built-in list"
    )
    min_alpha_words: float = Field(default=0.5, description="share of words with a letter")
    max_kl: float = Field(default=6.0, description="KL divergence of a document's words from its language's, nats (Llama 3, 3.1.1)")


class OutlierTokens(Section):
    """Divergence of a document's tokens from its language's; the threshold is `heuristics.max_kl`."""

    min_tokens: int = Field(default=100, ge=1, description="shorter documents are not compared, words")
    min_corpus_tokens: int = Field(default=100_000, ge=1, description="nor those of a language with fewer words in the corpus")


class Pii(Section):
    """Personal data: masked in the text, and dense pages dropped."""

    max_density: float = Field(default=0.02, description="PII matches a word above which the document is dropped")


class Dedup(Section):
    """URL, document and line deduplication (Llama 3, section 3.1.1)."""

    num_perm: int = Field(default=128, description="MinHash permutations")
    ngram: int = Field(default=5, description="words a shingle")
    threshold: float = Field(default=0.8, description="true Jaccard similarity from which two documents are duplicates")
    bands: int = Field(default=0, ge=0, description="MinHash bands; 0 chooses them for the threshold")
    scope: Literal["global", "language"] = Field(default="global", description="compare all documents, or those of one language")
    seed: int = 1
    line_max_count: int = Field(default=6, description="lines seen more often in a bucket are removed (Llama 3: 6)")
    line_bucket_documents: int = Field(default=30_000_000, description="documents a line bucket (Llama 3: 30 M)")
    line_min_chars: int = Field(default=3, description="shorter lines are never counted")
    buckets: int = Field(default=8, description="shuffle buckets, at most")


class Classifier(Section):
    """One classifier of documents: who labels its sample, and what learns the labels (Llama 3, sections 3.1.1 and 3.1.2)."""

    kind: Literal["fasttext", "encoder"] = Field(
        default="fasttext", description="fastText, or the transformer of section `encoder`: better, and a thousand times the work"
    )
    model: str = Field(
        default="",
        description="path of a trained model: a fastText file, or an encoder's folder (config.json, model.safetensors, "
        "tokenizer.json); empty: train one",
    )
    labels: str = Field(
        default="simulated",
        description="who labels: `simulated`, a rule; `endpoint`, the model of section `annotator`; or a CSV of url, label",
    )
    requirements: str = Field(
        default="", description="endpoint: file of the requirements that a text is to meet; empty: the built-in"
    )
    sample_documents: int = Field(default=20_000, ge=20, description="documents the classifier is trained on, at most")
    epochs: int = Field(default=10, ge=1, description="fasttext: passes over the sample")
    dim: int = Field(default=16, ge=1, description="fasttext: width of a word's vector")


class Quality(Classifier):
    """Would this text be referenced by Wikipedia?"""

    min_score: float = Field(default=0.05, description="probability of `referenced` under which a document is dropped")


class Encoder(Section):
    """What classifiers of kind `encoder` are made of. Llama 3, sections 3.1.1 and 3.1.2: DistilRoBERTa."""

    path: str = Field(
        default="",
        description="folder of a pre-trained encoder (config.json, model.safetensors, tokenizer.json), such as DistilRoBERTa's; "
        "empty: a small one from random weights, of the sizes below",
    )
    layers: int = Field(default=1, ge=1)
    width: int = Field(default=64, description="a multiple of 16, the width of an attention head")
    vocab_size: int = Field(default=4096, ge=261, description="of the byte-level BPE learnt from the sample")
    max_tokens: int = Field(default=128, ge=8, description="read of a text, from its start (DistilRoBERTa: up to 512)")
    epochs: int = Field(default=3, ge=1)
    batch_documents: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-3, description="peak of AdamW's; 2e-5 to 5e-5 for a pre-trained encoder")
    seed: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=1, description="CPU threads a worker; the last bits of a score depend on it")


class Annotator(Section):
    """A model that labels documents, behind OpenAI's chat/completions (Llama 3: Llama 2 chat). The key is never stored."""

    url: str = Field(default="", description="base URL of the server, such as http://localhost:8000/v1")
    model: str = Field(default="", description="as the server names it")
    api_key_variable: str = Field(
        default="L3_ANNOTATOR_KEY", description="environment variable that holds the key, if there is one"
    )
    max_chars: int = Field(default=6000, ge=100, description="of a document that the model reads, from its start")
    max_tokens: int = Field(default=512, ge=1, description="of an answer; a word is asked for, but some models think first")
    timeout_seconds: float = Field(default=60.0, gt=0, description="for a whole answer")
    retries: int = Field(default=6, ge=0, description="attempts after the first, with exponential back-off or as Retry-After says")
    concurrency: int = Field(default=8, ge=1, description="questions at a time, over all workers (at least one each)")
    prompt_price: float = Field(default=0.0, ge=0, description="for a million tokens, in any currency")
    completion_price: float = Field(default=0.0, ge=0, description="for a million tokens")


class Curate(Section):
    """The one SQL decision over the sidecars."""

    languages: tuple[str, ...] = Field(default=(), description="keep only these; empty keeps all")
    quality_languages: tuple[str, ...] = Field(default=("en", "und"), description="languages the quality classifier may judge")
    pii_domain_pages: int = Field(default=20, description="pages from which a domain is judged by url_policy.max_pii_share")
