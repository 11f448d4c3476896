"""Typed settings: one frozen tree, a profile in TOML, overrides as `section.key=value`.

A profile names only what differs from the defaults in these files, which are the demo's. `load` is the one way in;
every mistake in a setting becomes one `SettingsError` sentence that names the key and the nearest known one.
"""

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
from l3_platform.settings.mix import Candidate, DataValue, Mix, MixChange, Mixture, Tokenizer
from l3_platform.settings.operations import Engine, Mlflow, Retention, Store
from l3_platform.settings.profile import PROFILES, home, load
from l3_platform.settings.section import Section, SettingsError, first_mistake, nearest
from l3_platform.settings.training import (
    ActivationCheckpointing,
    Anneal,
    AttentionKernel,
    Beta,
    Evaluate,
    LongContext,
    LongStage,
    Model,
    Precision,
    RopeStretch,
    Scaling,
    Stage,
    Train,
    check_ramp,
)
from l3_platform.settings.tree import Settings

__all__ = [
    "PROFILES",
    "ActivationCheckpointing",
    "Anneal",
    "Annotator",
    "AttentionKernel",
    "Beta",
    "Candidate",
    "Classifier",
    "Crawl",
    "Curate",
    "DataValue",
    "Dedup",
    "Encoder",
    "Engine",
    "Evaluate",
    "Extract",
    "Heuristics",
    "Hosts",
    "Kubernetes",
    "Languages",
    "LongContext",
    "LongStage",
    "Mix",
    "MixChange",
    "Mixture",
    "Mlflow",
    "Model",
    "OutlierTokens",
    "Pii",
    "Precision",
    "Quality",
    "Retention",
    "RopeStretch",
    "Scaling",
    "Section",
    "Settings",
    "SettingsError",
    "Slurm",
    "Stage",
    "Store",
    "Tokenizer",
    "Train",
    "UrlPolicy",
    "check_ramp",
    "first_mistake",
    "home",
    "load",
    "nearest",
]
