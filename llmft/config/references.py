"""References: `${trainer.epochs}` in a recipe or an override is replaced by the value of that key, defaults included.

Secrets do not belong in a config, which is saved and shared: no reference reads a secret, and no key may hold one. They
are recognized by their key or their form.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from llmft.config.sources import ESCAPED
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError
from llmft.schema.section import section_of
from llmft.schema.tasks import task_type

# `pad_token` and the like are special tokens of a tokenizer, not access tokens.
KEY = re.compile(
    r"(?i)(?!(pad|eos|bos|unk|sep|cls|mask)_)(.*[_-]|hf|hub|auth|access|api|bearer)?token|.*(secret|passw(or)?d|api[_-]?key).*|credentials?"
)
SHAPES = (
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",
    r"\bgithub_pat_[A-Za-z0-9_]{16,}",
    r"\bAKIA[A-Z0-9]{12,}",
    r"\bAIza[A-Za-z0-9_-]{20,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"://[^/\s:@]+:[^/\s@]+@",
    r"(?i:[?&](\w*token|\w*key|sig|signature|password)=)",
)
VALUE = re.compile("|".join(SHAPES))
HINT = "Set an environment variable instead, such as HF_TOKEN."


def is_secret(key: str, value: Any = None) -> bool:
    """Whether a dotted key names an access token or a password, or a text looks like one."""
    named = any(KEY.fullmatch(part) for part in key.split("."))
    return (named and value not in ({}, None)) or (isinstance(value, str) and bool(VALUE.search(value)))


def secrets_in(tree: Any, path: str = "") -> list[str]:
    """The dotted keys of all secrets in a tree."""
    if isinstance(tree, dict):
        return [
            found for key, value in tree.items() for found in secrets_in(value, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(tree, list):
        return [found for value in tree for found in secrets_in(value, path)]
    return [path] if is_secret(path, tree) else []


REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")


def resolve(
    composed: DictConfig, beneath: Callable[[dict[str, Any]], Mapping[str, Any]], where: Callable[[str], str]
) -> dict[str, Any]:
    """The tree with its references replaced by values, and `\\${` by `${`.

    Args:
        composed: sections and values.
        beneath: from the tree with unresolved references to the tree in which they are looked up. The defaults of all
            keys lie below it, but do not become part of the result.
        where: the place of a dotted key.

    Raises:
        UserError: for references to an unknown key, to a secret, and in a cycle, each with its place.
    """
    raw = _plain(OmegaConf.to_container(composed))
    texts = list(_texts(raw))
    if not texts:
        return _plain(OmegaConf.to_container(composed, resolve=True))
    values = beneath(raw)
    task = values.get("task")
    tree = _merge(defaults(str(task.get("name")) if isinstance(task, dict) else ""), values)
    if problems := [Problem(key, what, where(key), hint) for key, what, hint in _problems(texts, tree)]:
        raise UserError(problems)
    if found := secrets_in(raw):  # before references copy it to a key that does not look secret
        what = "looks like a secret, and configurations are saved"
        raise UserError([Problem(key, what, where(key), HINT) for key in found])
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        key, text = texts[0]
        what = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise UserError(Problem(getattr(error, "full_key", None) or key, f"{text}: {what}", where(key))) from error
    return _plain(_select(resolved, raw))


def defaults(task: str) -> dict[str, Any]:
    """The default of every key that has one, for a task by its name."""
    section = task_type(task)
    found = _defaults(Config) | {"task": _defaults(section) if section else {}}
    return found | {"name": task} if section else found


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section and (field.is_required() or field.default is not None):
            found[name] = _defaults(section)
        elif not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _merge(lower: Any, upper: Any) -> Any:
    """The values of `upper`, and those of `lower` for missing keys."""
    if isinstance(lower, dict) and isinstance(upper, dict):
        return lower | {key: _merge(lower.get(key), value) for key, value in upper.items()}
    return upper


def _select(value: Any, raw: Any) -> Any:
    """The part of a resolved tree that has the keys of the raw one. The value of a reference is taken as a whole."""
    if isinstance(value, dict) and isinstance(raw, dict):
        return {key: _select(value[key], inside) for key, inside in raw.items()}
    return value


def _plain(tree: Any) -> dict[str, Any]:
    assert isinstance(tree, dict)
    return tree


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts that contain a reference, each with its dotted key; an item of a list has the key of the list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)
    elif isinstance(value, str) and "${" in ESCAPED.sub("", value):
        yield path, value


def _problems(texts: list[tuple[str, str]], tree: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The problems with references: the key that contains one, what is wrong, and what to write instead."""
    edges = {key: [target for _, target in _targets(key, text)] for key, text in texts}
    for key, text in texts:
        for reference, target in _targets(key, text):
            name = target.rpartition(".")[2]
            if is_secret(target, True):
                yield key, f"{reference} refers to a secret, and configurations are saved", HINT
            elif not _exists(tree, target):
                read = name in os.environ or name.isupper()
                hint = "A configuration does not read the environment. " if read else _suggest(target, tree)
                yield key, f"{reference} refers to no key", f"{hint}Write \\{reference} for the text itself."
            elif cycle := _cycle(key, target, edges, [key]):
                yield key, f"{reference} refers to itself: {' -> '.join(cycle)}", "Give one of them a value."


def _targets(key: str, text: str) -> list[tuple[str, str]]:
    """Each reference in a text, as written and as an absolute key. `${.x}` means a key next to the one that contains
    it."""
    found = []
    for match in REFERENCE.finditer(ESCAPED.sub("", text)):
        dots, name = match.groups()
        above = key.split(".")[: -len(dots)] if dots else []
        found.append((match[0], ".".join([*above, name])))
    return found


def _exists(tree: Any, key: str) -> bool:
    """Whether a key is in the tree. Keys inside a reference count as existing."""
    for part in key.split("."):
        if isinstance(tree, str) and "${" in tree:
            return True
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict) and (part in tree or (part.isdigit() and int(part) in tree)):
            tree = tree.get(part, tree.get(int(part)) if part.isdigit() else None)
        else:
            return False
    return True


def _cycle(start: str, target: str, edges: dict[str, list[str]], path: list[str]) -> list[str] | None:
    """The path from a reference back to the key that contains it, if there is one."""
    if start == target or start.startswith(f"{target}."):
        return [*path, target]
    for key, targets in edges.items():
        if key in path or not (key == target or key.startswith(f"{target}.") or target.startswith(f"{key}.")):
            continue
        for further in targets:
            if found := _cycle(start, further, edges, [*path, key]):
                return found
    return None


def _suggest(target: str, tree: dict[str, Any]) -> str:
    """The key that was probably meant: with the same last name in another section, or a similar spelling."""
    known = list(_names(tree))
    same = [key for key in known if key.rpartition(".")[2] == target.rpartition(".")[2]]
    found = same or get_close_matches(target, known, 1)
    return f"Did you mean ${{{found[0]}}}? " if found else ""


def _names(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
