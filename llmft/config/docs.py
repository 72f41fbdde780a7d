"""docs/config.md and the JSON Schema for editors, made from the vocabulary: `python -m llmft.config.docs [--check]`."""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from llmft.config.folders import PACKAGE, options
from llmft.config.precedence import GROUPS, LAYERS
from llmft.schema.config import Config
from llmft.schema.section import section_of
from llmft.schema.tasks import TaskConfig, task_types

DOCS = PACKAGE.parent / "docs"
INTRO = """# Every key of a configuration

Made by `make docs` from `llmft/schema` and `llmft/tasks/*/config.py`; change the text there. `llmft finetune ...
--cfg job` prints the values of a run.

For completion and checks while you write a recipe, point your editor at `docs/config.schema.json`, such as by a first
line `# yaml-language-server: $schema=PATH/docs/config.schema.json`.
"""


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The text under each key of a model, its parents' included.

    Read from the source, here and not at import: pydantic's own way costs every start of llmft 0.1 s.
    """
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


def page() -> str:
    """docs/config.md."""
    parts = [INTRO, _precedence(), "## Top level\n", _table(Config, {"task", "expect"})]
    for name, field in Config.model_fields.items():
        section = section_of(field.annotation)
        if name == "task":
            for task, model in task_types().items():
                parts += [f"## task={task}\n", inspect.cleandoc(model.__doc__ or ""), "", _table(model)]
        elif section:
            parts += [f"## {name}\n", inspect.cleandoc(section.__doc__ or ""), ""]
            if found := options(name):
                parts += [f"Options: {', '.join(f'`{name}={option}`' for option in found)}.", ""]
            parts.append(_table(section))
    return "\n".join(parts).rstrip() + "\n"


def _precedence() -> str:
    """Which value wins, as config/precedence.py has it."""
    layers = [f"| {count} | {layer.where} | {layer.why} |" for count, layer in enumerate(LAYERS.values(), 1)]
    groups = [f"| `{name}` | {group.rule} |" for name, group in GROUPS.items() if group.rule]
    intro = "`llmft explain KEY ...` shows every place that sets a key. Of these the last one wins."
    lines = ["## Which value wins", "", intro, ""]
    lines += ["| | where the value stands | why it wins over those above it |", "|---|---|---|", *layers, ""]
    lines += ["| group | what else holds |", "|---|---|", *groups, ""]
    return "\n".join(lines)


def _table(model: type[BaseModel], skip: Collection[str] = ()) -> str:
    lines = ["| key | values | default | |", "|---|---|---|---|"]
    lines += _rows(model, "", skip)
    return "\n".join([*lines, ""])


def _rows(model: type[BaseModel], prefix: str, skip: Collection[str]) -> list[str]:
    texts = descriptions(model)
    lines = []
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if name in skip:
            continue
        if section and model is not Config:
            lines += _rows(section, f"{prefix}{name}.", skip)
        elif not section:
            default = "" if field.is_required() else _shown(field.get_default(call_default_factory=True))
            text = " ".join(texts.get(name, "").split())
            lines.append(f"| `{prefix}{name}` | {_kind(field.annotation)} | {default} | {text} |")
    return lines


def _shown(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return "" if value is None else f"`{json.dumps(value)}`"


def _kind(annotation: Any) -> str:
    """A type as a reader of YAML says it."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _kind(annotation.__origin__)
    arguments = get_args(annotation)
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return f"list of {_kind(arguments[0])}s".replace("`s", "`")
    if origin is dict:
        return "table"
    if origin is tuple:
        return f"{len(arguments)} {_kind(arguments[0])}s"
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return ", ".join(f"`{argument}`" for argument in arguments)
    return " or ".join(_kind(a) for a in arguments if a is not type(None)) if arguments else "any"


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe: every key optional, `defaults` and Hydra's `mode` and `sweeper` allowed."""
    found = Config.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "llmft recipe"
    properties = found["properties"]
    for task, model in task_types().items():
        found["$defs"][f"task_{task}"] = model.model_json_schema()
        properties["task"].setdefault("anyOf", []).append({"$ref": f"#/$defs/task_{task}"})
    properties["task"].pop("$ref", None)
    properties["defaults"] = {
        "type": "array",
        "description": "Options of groups, such as `override /model: minilm`.",
    }
    properties["hydra"] = {
        "type": "object",
        "properties": {"mode": {}, "sweeper": {}},
        "additionalProperties": False,
    }
    _describe(found, Config)
    for part in _models(Config):
        _describe(found["$defs"][part.__name__], part)
    for task, section in task_types().items():
        _describe(found["$defs"][f"task_{task}"], section)
    found["$defs"].pop(TaskConfig.__name__, None)
    return found


def _describe(part: dict[str, Any], model: type[BaseModel]) -> None:
    part.pop("required", None)  # a recipe states what differs; the rest comes from the groups
    for key, text in descriptions(model).items():
        if key in part.get("properties", {}):
            part["properties"][key]["description"] = text


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    sections = [
        s for field in model.model_fields.values() if (s := section_of(field.annotation)) and s is not TaskConfig
    ]
    return [found for section in sections for found in [section, *_models(section)]]


def pages() -> dict[Path, str]:
    """Each generated file with what it must hold."""
    return {
        DOCS / "config.md": page(),
        DOCS / "config.schema.json": json.dumps(schema(), ensure_ascii=False, indent=2) + "\n",
    }


def main() -> int:
    """Write the pages; with `--check`, only say which ones are out of date and return 1 if there are any."""
    stale = [file for file, text in pages().items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for file in stale:
            print(f"{file.relative_to(PACKAGE.parent)} is out of date: run `make docs`", file=sys.stderr)
        return int(bool(stale))
    for file in stale:
        file.write_text(pages()[file], encoding="utf-8")
        print(f"wrote {file.relative_to(PACKAGE.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
