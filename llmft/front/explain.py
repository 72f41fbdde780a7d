"""`llmft explain KEY ...`: the value of a key, every place that set it, and why the last one won."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llmft.config.compose import Composed, compose
from llmft.config.load import checked, load, members, read_run
from llmft.config.nearest import KEYS_ELSEWHERE
from llmft.config.precedence import COMMAND_LINE, GROUPS, LAYERS, Setting, history
from llmft.config.references import defaults
from llmft.config.sources import display_path, lines
from llmft.front.help import filled, topic_like
from llmft.front.recipes import command_of
from llmft.front.vocabulary import Key, keys
from llmft.runs.folder import flat
from llmft.runs.index import is_run
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError

HINT = "Write llmft explain optimizer.lr +recipe=bert_textcls, or llmft explain optimizer.lr RUN."


def run(words: list[str]) -> list[dict[str, Any]]:
    """Explain each key for the config of a command.

    Args:
        words: keys or sections; then a command with its overrides (without a command: the recipe's, or `finetune`), or
            a run with overrides as for `llmft eval RUN`.

    Returns:
        For each key: `key`, `value`, `text`, `set` (`value`, `place`, `layer`, and `by` of each place), and `why`.

    Raises:
        UserError: for an unknown key, and with every problem of the config.
    """
    names, command, rest = _read(words)
    if command in COMMANDS and COMMANDS[command].needs_run:
        config, settings = _for_run(command, rest)
    else:
        composed = compose(command, rest)
        config, settings = checked(command, composed), composed.settings()
    # Keys of the chosen task come second, so that they replace the general key `task.name`.
    known = {key.name: key for task in ("", config.task.name) for key in keys() if key.task == task}
    values = flat(config.model_dump(mode="json"))
    facts, sections = [], []
    for key in dict.fromkeys(names):
        below = [name for name in values if name == key or name.startswith(f"{key}.")]
        table = _at(config.model_dump(mode="json"), key.rpartition(".")[0])
        if not below and isinstance(table, dict) and key.rpartition(".")[0] in known:  # a table with free names
            below, values[key] = [key], None
        if not below:
            other = {name.task for name in keys() if name.name == key and name.task}
            hint = topic_like(key)
            if other:
                hint = f"It is a key of task={', '.join(sorted(other))}. Write llmft explain {key} task={min(other)}."
            raise UserError(
                Problem(key, f"no such key for task={config.task.name}", COMMAND_LINE, hint), "this command"
            )
        found = [_explain(name, values[name], known, settings, config) for name in below]
        facts += found
        sections.append("\n".join(_key_lines(found[0]) if below == [key] else _section_lines(found)))
    print("\n\n".join(sections))
    return facts


def _read(words: list[str]) -> tuple[list[str], str, list[str]]:
    """The keys to explain, the command, and its overrides."""
    first = {name.partition(".")[0] for name in Config.model_fields}
    leaves = {key.name.rpartition(".")[2]: key.name for key in keys()}
    names: list[str] = []
    runs: list[str] = []
    rest: list[str] = []
    command = ""
    for word in words:
        if word.startswith("-"):
            raise UserError(Problem(word.partition("=")[0], "no such flag", COMMAND_LINE, HINT), "this command")
        if "=" in word or word.endswith(".yaml"):
            rest.append(word)
        elif not command and word in COMMANDS and (names or word not in first):  # `explain predict` means the section
            command = word
        elif names and is_run(Path(word)):
            runs.append(word)
        elif word.partition(".")[0] in first:
            names.append(word)
        elif not (command or runs) and (full_name := leaves.get(word) or KEYS_ELSEWHERE.get(word)):
            names.append(full_name)
        elif not names:
            raise UserError(Problem(word, "no such key", COMMAND_LINE, topic_like(word)), "this command")
        else:
            runs.append(word)
    if not names:
        raise UserError(Problem("explain", "needs a key", COMMAND_LINE, HINT), "this command")
    if runs and not (command and COMMANDS[command].needs_run):
        command = "eval"
    recipe = next((word.partition("=")[2] for word in rest if word.startswith("+recipe=")), None)
    return names, command or (command_of(recipe) if recipe else "finetune"), [*runs, *rest]


def _for_run(command: str, words: list[str]) -> tuple[Config, list[Setting]]:
    """The config of a run, with the overrides after it, and the places that set its keys."""
    config = load(command, words)
    named = [word for word in words if "=" not in word]
    folder = members(named, sweeps=command == "eval")[0]
    file = folder / "config.yaml"
    tree = read_run(folder)
    at = lines(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
    place = display_path(file.resolve())
    settings = [Setting(key, value, f"{place}:{at[key]}", "run") for key, value in flat(tree).items() if key in at]
    composed: Composed = compose(command, words[len(named) :], run=tree)
    # Of the composition only typed keys and groups chosen again count: everything else is the run's own value.
    for setting in composed.settings():
        group = setting.key.partition(".")[0]
        kept = [f"{group}.{part}" for part in GROUPS[group].kept] if group in GROUPS else []
        if setting.place == COMMAND_LINE:
            settings.append(setting)
        elif group in composed.chosen and not any(f"{setting.key}.".startswith(f"{part}.") for part in kept):
            settings.append(Setting(setting.key, setting.value, setting.place, "again", setting.by))
    return config, settings


def _explain(name: str, value: Any, known: dict[str, Key], settings: list[Setting], config: Config) -> dict[str, Any]:
    """Everything about one key."""
    key = known.get(name) or known.get(name.rpartition(".")[0])
    # A non-empty table sets its keys, which have places of their own; `{}` is a value.
    places = [setting for setting in history(settings, name) if not (isinstance(setting.value, dict) and setting.value)]
    default = _at(defaults(config.task.name), name)
    if default is None and not places and not config.smoke:
        default = value  # a key in a section that is null by default, such as search
    if key and key.name == name and (default is not None or not places):
        places.insert(0, Setting(name, default, key.place, "default"))
    if not places:
        places.append(Setting(name, None, "", "default"))
    last = places[-1]
    if config.smoke and last.layer not in ("word", "implied") and last.value != value:
        places.append(Setting(name, value, COMMAND_LINE, "smoke", "smoke=true"))
    elif name == "name" and last.layer == "default":  # the default in the schema is always replaced
        places[-1] = Setting(name, value, "", "derived", f"task={config.task.name}")
    placed = [{"value": one.value, "place": one.place, "layer": one.layer, "by": one.by} for one in places]
    return {"key": name, "value": value, "text": key.text if key else "", "set": placed, "why": _why(places)}


def _at(tree: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _why(places: list[Setting]) -> str:
    """Why the last place won: the rule of its layer, or that of the group if it has one."""
    last = places[-1]
    rule = GROUPS[group].rule if (group := last.key.partition(".")[0]) in GROUPS else ""
    if last.layer == "path" and rule:
        return rule
    if last.layer == "own":  # scheduler refers to the rule of optimizer
        return GROUPS["optimizer"].rule
    return LAYERS[last.layer].why


def _format(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key_lines(fact: dict[str, Any]) -> Iterator[str]:
    """One key, with a line for each place."""
    yield f"{fact['key']} = {_format(fact['value'])}"
    if fact["text"]:
        yield filled(fact["text"], 4)
    rows = [(_format(one["value"]), one["place"] or "-", one["by"] or one["layer"]) for one in fact["set"]]
    widths = [min(max(len(row[column]) for row in rows), 60) for column in (0, 1)]
    yield "set by, the last one wins" if len(rows) > 1 else "set by"
    for value, place, by in rows:
        source = by if by not in ("word", "run") else ""
        yield f"  {value:<{widths[0]}}  {place:<{widths[1]}}  {source}".rstrip()
    yield "why"
    yield filled(fact["why"])


def _section_lines(facts: list[dict[str, Any]]) -> Iterator[str]:
    """The keys of a section, one line each: the value, and the place that set it last."""
    texts = {fact["key"]: f"{fact['key']} = {_format(fact['value'])}" for fact in facts}
    width = min(max(map(len, texts.values())), 60)
    for fact in facts:
        last = fact["set"][-1]
        place = "default" if last["layer"] == "default" else last["place"] or last["by"]
        yield f"{texts[fact['key']]:<{width}}  {place}"
