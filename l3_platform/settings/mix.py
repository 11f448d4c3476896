"""Tokens, and how much of which domain (Llama 3, section 3.1.2)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from l3_platform.settings.section import Section


class Tokenizer(Section):
    vocab_size: int = Field(default=2048, ge=512, description="including 256 bytes and the 256 special tokens (Llama 3: 128,256)")
    sample_bytes: int = Field(default=16 << 20, ge=1, description="text that the BPE is trained on, bytes")


class MixChange(Section):
    """From `from_tokens` of pre-training on, other weights; those that are not named stay as they were (Llama 3, 3.4.1)."""

    from_tokens: int = Field(ge=1)
    general: float | None = None
    math: float | None = None
    code: float | None = None
    multilingual: float | None = None


class Mix(Section):
    """Shares of tokens a domain. Llama 3, section 3.1.2: 50 % general, 25 % maths and reasoning, 17 % code, 8 % multilingual."""

    general: float = 0.50
    math: float = 0.25
    code: float = 0.17
    multilingual: float = 0.08
    choose: Literal["settings", "law"] = Field(
        default="settings", description="who sets the pre-training shares: the four above, or `mixture_law`'s search"
    )
    changes: tuple[MixChange, ...] = Field(default=(), description="of the shares while pre-training goes on, by tokens")
    max_epochs: float = Field(default=4.0, description="repetitions of a domain above which its share is capped")
    held_out_share: float = Field(default=0.05, description="documents kept for evaluation, by hash of doc_id")
    topic_weights: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={"arts_and_entertainment": 0.5},
        description="share of a topic's training documents that stays, by hash of doc_id (Llama 3, section 3.1.2)",
    )
    anneal_general: float = 0.30
    anneal_math: float = 0.40
    anneal_code: float = 0.25
    anneal_multilingual: float = 0.05


class Mixture(Section):
    """Small models on many mixtures, from which `mixture_law` finds one (Llama 3, section 3.1.2; Liu et al. 2024, RegMix).

    Shape and recipe of the models are those of section `scaling`.
    """

    runs: int = Field(default=16, ge=0, description="mixtures, at least 10 (RegMix: 512); 0: no sweep, no law, no validation")
    concentration: float = Field(
        default=4.0, gt=0, description="of the Dirichlet around the natural mixture that they are drawn from: larger is nearer"
    )
    layers: int = Field(default=2, ge=1, description="size of the models")
    budget: float = Field(default=4e10, gt=0, description="training FLOPs of each, C = 6·N·D")
    seeds: int = Field(default=1, ge=1, description="trainings of each mixture, whose mean loss is the law's")
    held_out_tokens: int = Field(default=16_384, ge=1, description="of each domain, on which losses are measured")
    target: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="weight of each domain's held-out loss in what is minimised; empty: the shares of section `mix`"
    )
    final_tokens: int = Field(
        default=0,
        ge=0,
        description="of the run that the mixture is for: bounds shares by mix.max_epochs; 0: one pass over the data",
    )
    doremi_seeds: int = Field(default=1, ge=0, description="runs of DoReMi, beside the law for comparison; 0 leaves it out")
    validation_layers: int = Field(default=3, ge=1, description="the next size up, for the candidates")
    validation_budget: float = Field(default=8e10, gt=0, description="training FLOPs of each run there")
    validation_seeds: int = Field(default=4, ge=2, description="trainings of each candidate there, with the same seeds: pairs")

    @field_validator("runs")
    @classmethod
    def _enough_for_a_law(cls, runs: int) -> int:
        if 0 < runs < 10:
            raise ValueError("a law is chosen by cross-validation over at least 10 mixtures; 0 leaves the sweep out")
        return runs


class Candidate(Section):
    """A set of documents whose value is asked: curated documents that a condition selects, or texts from elsewhere."""

    where: str = Field(default="", description="SQL over the columns of curated_documents, such as domain_group = 'math'")
    files: str = Field(default="", description="path or glob of .parquet, .jsonl or .jsonl.gz files with a column `text`")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.where) == bool(self.files):
            raise ValueError("a candidate set has either `where` or `files`")
        return self


class DataValue(Section):
    """What a candidate set adds to the default mix when a half-trained model is annealed on both (Llama 3, section 3.1.3).

    Shape and recipe of the model are those of section `scaling`; losses are weighed and measured as section `mixture` says.
    """

    candidates: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], Candidate] = Field(
        default={}, description="sets by name, each a partition of `data_value`; none: nothing is trained"
    )
    share: float = Field(default=0.30, gt=0, lt=1, description="of the tokens annealed on; the default mix has the others")
    tokens: int = Field(default=98_304, ge=1, description="of the annealing, the rate falling linearly to zero (Llama 3: 40 B)")
    seeds: int = Field(default=4, ge=2, description="annealings of each set and of the default mix, with the same seeds: pairs")
    layers: int = Field(default=3, ge=1, description="size of the model (Llama 3: 8 B parameters)")
    budget: float = Field(default=1.6e11, gt=0, description="FLOPs, C = 6·N·D, of its whole training, of which half is done")

    @field_validator("candidates")
    @classmethod
    def _named_apart(cls, candidates: dict[str, Candidate]) -> dict[str, Candidate]:
        if "default" in candidates:
            raise ValueError("`default` is the mix that every candidate set is compared with: give the set another name")
        return candidates
