"""The base of all sections of a config, and how values are typed in one."""

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict

AS_TYPED = "as typed"
Text = Annotated[str, AS_TYPED]
"""Free text, such as a question. On the command line, `null` and `${x}` in it are read as letters."""
Cell = Annotated[Any, AS_TYPED]
"""A cell of a row. On the command line it is text, as in a csv; `null` is a missing value."""


class Section(BaseModel):
    """A frozen table of known keys. The string under each key is its documentation, here and in docs/config.md."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class that a field of this type holds, or None for a plain value."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def as_texts(values: Any) -> Any:
    """Convert cells to texts, so that `[1, 2, good]` needs no quotes."""
    if not isinstance(values, list):
        return values
    no_booleans(values)
    return [str(value) if isinstance(value, int | float) else value for value in values]


def no_booleans(values: Iterable[Any]) -> None:
    """Raise ValueError if a value is a boolean: YAML reads yes, no, on, and off as booleans too, and how the user wrote
    it is lost."""
    if any(isinstance(value, bool) for value in values):
        raise ValueError("must hold texts, and YAML reads yes, no, on and off as true or false. Put them in quotes")
