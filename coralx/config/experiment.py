"""What a run is called, and the base model that it adapts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from coralx.config.metric_catalogue import TaskKind
from coralx.config.section import Name, Section


class Experiment(Section):
    """The run's name and the seed of every draw."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        default="run", description="Names the run and its folder under `runs/`. Not `latest`."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=42, description="Seeds every random draw of the run."
    )

    @field_validator("name", mode="after")
    @classmethod
    def _is_no_keyword(cls, name: str) -> str:
        if name == "latest":
            raise ValueError("`latest` stands for the newest run, so no run can have that name")
        return name


class Model(Section):
    """The base model, and what it is asked to do."""

    base: Name | None = Field(
        default=None,
        description="The base model: a hub id, a local folder, `builtin:minilm` or "
        "`builtin:smollm2`. Only a simulation does without.",
    )
    task: TaskKind = Field(
        default="sequence-classification",
        description="A classification head on the base, the label words of a causal language "
        "model, or supervised fine-tuning of one.",
    )
    max_length: Annotated[int, Field(ge=4, le=1 << 24)] = Field(
        default=128,
        description="Tokens read of a row, special tokens included. At most what the base reads "
        "(RoBERTa and its kin: two fewer than `max_position_embeddings`).",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run the Python files that come with the base, on this machine with your "
        "rights. Without it none is run.",
    )
