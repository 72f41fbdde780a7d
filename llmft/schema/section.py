"""What every section of a configuration has in common. The vocabulary imports nothing else of llmft."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen table of known keys; the text under each key is its documentation, here and in docs/config.md."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=False, protected_namespaces=(), allow_inf_nan=False
    )
