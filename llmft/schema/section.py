"""What every section of a configuration has in common, and how values are typed in one."""

from collections.abc import Iterable
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


def as_texts(values: Any) -> Any:
    """Cells are texts: `[1, 2, good]` is written without quotes."""
    if not isinstance(values, list):
        return values
    no_booleans(values)
    return [str(value) if isinstance(value, int | float) else value for value in values]


def no_booleans(values: Iterable[Any]) -> None:
    """Raise ValueError for what YAML has read as true or false: nobody can tell any more how it was written."""
    if any(isinstance(value, bool) for value in values):
        raise ValueError("holds true or false, as which YAML reads yes, no, on and off too: put texts into quotes")
