"""The keys of the schema, read from its source code, because importing pydantic would cost each Tab 0.2 s."""

import ast
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from llmft.config.folders import PACKAGE


class Key(NamedTuple):
    """A key of the config."""

    name: str
    """The dotted name."""
    text: str
    """Its description."""
    default: str
    """As it is typed; empty if there is none."""
    values: tuple[str, ...]
    """The allowed values, if they are a short list."""
    is_open: bool = False
    """Whether other values are allowed besides `values`, such as a number besides `all`."""
    task: str = ""
    """The task that has the key, for keys below `task.`."""
    place: str = ""
    """`FILE:LINE` of its definition."""


class _Source(NamedTuple):
    """The classes of the schema, and other names that modules define, such as `Every = Literal["epoch"] | int`."""

    classes: dict[str, ast.ClassDef]
    names: dict[str, ast.expr]
    files: dict[str, str]
    """The file of each class."""


@cache
def vocabulary() -> dict[str, Key]:
    """Every key, in the order of the sections; `task.` has the keys of all tasks."""
    return {key.name: key for key in keys()}


@cache
def keys() -> tuple[Key, ...]:
    """Every key, listed separately for each task."""
    source = _Source({}, {}, {})
    for file in (*sorted((PACKAGE / "schema").glob("*.py")), *sorted((PACKAGE / "tasks").glob("*/config.py"))):
        text, place = file.read_text(encoding="utf-8"), str(file.relative_to(PACKAGE.parent))
        if not any(word in text for word in ("Section", "Config", "Literal")):
            continue  # no keys: parsing command.py would take a tenth of the time
        for node in ast.parse(text).body:
            match node:
                case ast.ClassDef():
                    source.classes[node.name] = node
                    source.files[node.name] = place
                case ast.Assign(targets=[ast.Name(id=name)]):
                    source.names[name] = node.value
    return tuple(_keys(source, source.classes["Config"], ""))


def _keys(source: _Source, section: ast.ClassDef, prefix: str) -> Iterator[Key]:
    for base in section.bases:
        if isinstance(base, ast.Name) and base.id in source.classes:
            yield from _keys(source, source.classes[base.id], prefix)
    for field, after in zip(section.body, [*section.body[1:], None], strict=True):
        match field:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _is_field(annotation):
                pass
            case _:
                continue
        if below := _section(source, annotation):
            tasks = [
                source.classes[found] for found in sorted(source.classes) if _is_task(source, source.classes[found])
            ]
            for found in tasks if below.name == "TaskConfig" else [below]:
                inside = list(_keys(source, found, f"{prefix}{name}."))
                own = next((key.default for key in inside if key.name == "task.name" and key.default), "")
                yield from (key._replace(task=own) for key in inside) if own else inside
            continue
        match after:
            case ast.Expr(value=ast.Constant(value=str(words))):
                text = " ".join(words.split())
            case _:
                text = ""
        yield Key(
            f"{prefix}{name}",
            text,
            _default(field.value),
            tuple(dict.fromkeys(_values(source, annotation))),
            _is_open(source, annotation),
            place=f"{source.files[section.name]}:{field.lineno}",
        )


def _is_task(source: _Source, section: ast.ClassDef) -> bool:
    """Whether a class inherits from TaskConfig, directly or not."""
    bases = [base.id for base in section.bases if isinstance(base, ast.Name)]
    return "TaskConfig" in bases or any(
        _is_task(source, source.classes[name]) for name in bases if name in source.classes
    )


def _is_field(annotation: ast.expr) -> bool:
    return not (isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "ClassVar")


def _section(source: _Source, annotation: ast.expr) -> ast.ClassDef | None:
    """The section class that a field holds, if any."""
    names = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)]
    return next((source.classes[name] for name in names if name in source.classes), None)


def _default(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call):  # Field(default=...)
        value = next((word.value for word in value.keywords if word.arg == "default"), None)
    try:
        found = ast.literal_eval(value) if value else None
    except ValueError:  # a name or an expression; docs/config.md has its value
        found = None
    if found is None:
        return ""
    return str(found).lower() if isinstance(found, bool) else str(found).replace("(", "[").replace(")", "]")


def _is_open(source: _Source, annotation: ast.expr) -> bool:
    """Whether a type has more values than can be listed."""
    match annotation:
        case ast.Name(id=name) if name in source.names:
            return _is_open(source, source.names[name])
        case ast.Name(id=name):
            return name in ("int", "float", "str", "Text")
        case ast.BinOp(left=left, right=right):
            return _is_open(source, left) or _is_open(source, right)
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _is_open(source, first)
        case ast.Subscript(value=ast.Name(id="list" | "dict" | "tuple")):
            return True
    return False


def _values(source: _Source, annotation: ast.expr) -> Iterator[str]:
    match annotation:
        case ast.Name(id="bool"):
            yield from ("true", "false")
        case ast.Name(id=name) if name in source.names:
            yield from _values(source, source.names[name])
        case ast.BinOp(left=left, right=right):
            yield from _values(source, left)
            yield from _values(source, right)
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            yield from _values(source, first)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=words):
            yield from (str(node.value) for node in ast.walk(words) if isinstance(node, ast.Constant))
