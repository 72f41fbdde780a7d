"""Which keys hold texts: what is typed for them is taken letter by letter, not as Hydra would read it.

Hydra and OmegaConf give `null`, `true`, `1e3`, `1_000` and `${key}` a meaning in every value. Where a number is wanted
that is right; a file called `2024`, a label `no` or the text `I paid ${price}` must arrive as they were typed.
"""

from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from llmft.schema.config import Config
from llmft.schema.section import AS_TYPED, section_of
from llmft.schema.tasks import task_types


class Texts(NamedTuple):
    """How the value of a key that holds texts may be written."""

    lists: bool
    """`[a,b]` is a list of texts, not a text."""
    tables: bool
    """`{a: b}` is a table of texts."""
    null: bool
    """`null` means that nothing is said."""
    cells: bool
    """They are cells of rows, which may hold lists and tables in turn."""

    @property
    def inside(self) -> "Texts":
        """How those inside a list or a table are written."""
        return self if self.cells else Texts(self.lists and self.tables, tables=False, null=False, cells=False)


@cache
def texts_of(key: str) -> Texts | None:
    """How a dotted key's texts are written; None for a key that holds something else, or that is unknown."""
    first, *rest = key.split(".")
    annotations = _fields([Config], first)
    for name in rest:
        sections = [section for annotation in annotations if (section := section_of(annotation))]
        if sections and first == "task":
            annotations = _fields(list(task_types().values()), name)
        elif sections:
            annotations = _fields(sections, name)
        else:  # below a table: dataset.columns.text, predict.row.age
            members = [member for annotation in annotations for member in _members(annotation)]
            annotations = [get_args(member)[1] for member in members if get_origin(member) is dict]
    return next((found for found in map(_texts, annotations) if found), None)


def _fields(sections: list[Any], name: str) -> list[Any]:
    """The types of a key in the sections that have it."""
    return [section.model_fields[name].annotation for section in sections if name in section.model_fields]


def _texts(annotation: Any) -> Texts | None:
    members = list(_members(annotation))
    parts = set(_below(annotation))
    plain = {part for part in parts if not get_origin(part)}
    if not plain & {str, AS_TYPED} or plain - {str, Any, NoneType, AS_TYPED}:
        return None
    several, cells = {get_origin(part) for part in parts}, Any in plain
    null = cells if AS_TYPED in plain else NoneType in members or str not in members
    return Texts(cells or list in several, cells or dict in several, null, cells)


def _below(annotation: Any) -> Iterator[Any]:
    """The members of a type, and those of what its lists and tables hold."""
    for member in _members(annotation):
        yield member
        if get_origin(member) in (list, dict):
            yield from _below(get_args(member)[-1])


def _members(annotation: Any) -> Iterator[Any]:
    """The types of a union, and the mark AS_TYPED."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _members(part)
    elif get_origin(annotation) is Annotated:
        yield from [AS_TYPED] if AS_TYPED in annotation.__metadata__ else []
        yield from _members(annotation.__origin__)
    elif get_origin(annotation) is not Literal:
        yield annotation
