"""The whole tree of sections."""

from __future__ import annotations

from l3_platform.settings.curation import (
    Annotator,
    Classifier,
    Crawl,
    Curate,
    Dedup,
    Encoder,
    Extract,
    Heuristics,
    Languages,
    OutlierTokens,
    Pii,
    Quality,
    UrlPolicy,
)
from l3_platform.settings.launchers import Hosts, Kubernetes, Slurm
from l3_platform.settings.mix import DataValue, Mix, Mixture, Tokenizer
from l3_platform.settings.operations import Engine, Mlflow, Retention, Store
from l3_platform.settings.section import Section
from l3_platform.settings.training import Anneal, Evaluate, LongContext, Model, Scaling, Train


class Settings(Section):
    """The whole tree. Only sections that a stage names enter its fingerprint (`l3_platform.lineage`)."""

    profile: str = "demo"
    crawl: Crawl = Crawl()
    extract: Extract = Extract()
    url_policy: UrlPolicy = UrlPolicy()
    languages: Languages = Languages()
    heuristics: Heuristics = Heuristics()
    outlier_tokens: OutlierTokens = OutlierTokens()
    pii: Pii = Pii()
    dedup: Dedup = Dedup()
    quality: Quality = Quality()
    code: Classifier = Classifier()
    reasoning: Classifier = Classifier(kind="encoder", sample_documents=500)
    encoder: Encoder = Encoder()
    annotator: Annotator = Annotator()
    curate: Curate = Curate()
    tokenizer: Tokenizer = Tokenizer()
    mix: Mix = Mix()
    mixture: Mixture = Mixture()
    data_value: DataValue = DataValue()
    scaling: Scaling = Scaling()
    model: Model = Model()
    train: Train = Train()
    long_context: LongContext = LongContext()
    hosts: Hosts = Hosts()
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes = Kubernetes()
    anneal: Anneal = Anneal()
    evaluate: Evaluate = Evaluate()
    engine: Engine = Engine()
    store: Store = Store()
    mlflow: Mlflow = Mlflow()
    retention: Retention = Retention()
