"""What every section of a configuration has in common. The vocabulary imports nothing else of llmft."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict

AS_TYPED = "as typed"
Text = Annotated[str, AS_TYPED]
"""What a person says, such as a question: on the command line `null` and `${x}` are letters of it like others."""
Cell = Annotated[Any, AS_TYPED]
"""A cell of a row: a text on the command line, as in a csv, and `null` for a missing value."""


class Section(BaseModel):
    """A frozen table of known keys; the text under each key is its documentation, here and in docs/config.md."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field of this type holds, or None for a plain value."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
