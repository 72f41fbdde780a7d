"""Composes overrides and YAML files into one plain tree, with the origin of every key. Hydra is used for nothing
else."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from hydra import __version__ as hydra_version
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import habits, overrides, sources
from llmft.config.folders import option_file, options, refusal, shipped
from llmft.config.precedence import COMMAND_LINE, GROUPS, Group, Setting
from llmft.config.references import HINT, resolve, secrets_in
from llmft.runs.index import model_path
from llmft.schema.migrate import escape
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import task_type

# Parts of Hydra's own node that could run code. They must be empty; config/sources.py already refuses files that set
# them, and this is the second check.
ACTIVE = ("callbacks", "job.env_set", "job.env_copy", "searchpath")

# Hydra's own logging, launcher, and help, which llmft replaces.
UNUSED = [
    f"~hydra/{part}" for part in ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging")
]

# Hydra 1.3 warns if `version_base` is missing, Hydra 1.4 warns if it is given.
VERSION: dict[str, Any] = {"version_base": "1.3"} if hydra_version.startswith("1.3.") else {}

BY_CLASS = ("folder", "images")  # formats of a folder for each class, of which each split may have one
SWEPT = "hydra.sweeper.params"  # the place of a recipe's own sweep, in messages


@dataclass(frozen=True)
class Composed:
    """The overrides and files as one tree, not yet checked."""

    tree: dict[str, Any]
    settings: Callable[[], list[Setting]]
    """Every place that sets a key; later ones win. Computed on demand: it takes 0.1 s, and only messages need it."""
    given: frozenset[str]
    """The keys set on the command line."""
    chosen: frozenset[str]
    """The groups whose option the command line chooses."""
    problems: list[Problem]
    """Problems found so far. The check adds its own, so that all are reported at once."""
    multirun: bool
    """Whether a recipe asks for a sweep by `hydra.mode: MULTIRUN`."""
    sweeper: dict[str, Any]
    """The sweep of a recipe, its `hydra.sweeper.params`: key -> values."""

    def place(self, key: str, default: str = "") -> str:
        """`command line` or `FILE:LINE`. A key inside a table has the place of the table."""
        return place_of(self.settings(), key, default)


def compose(
    command: str, arguments: list[str], swept: list[str] | None = None, run: dict[str, Any] | None = None
) -> Composed:
    """Compose `configs/COMMAND.yaml`, the chosen options and recipe, and the overrides.

    Args:
        swept: overrides from a recipe's own sweep. They win over its values, but do not count as typed.
        run: the config of the run, for a command that works from one.

    Raises:
        UserError: if an override, a file, or a choice makes it impossible to compose a tree.
    """
    arguments, folder = _recipe_files(arguments)
    typed = overrides.parse(arguments)
    with loader(folder) as hydra:
        composed = _compose(hydra, command, typed, [], overrides.parse(swept or []), run)
        # The first composition finds the files, a second one reads them: an override wins as if it had been typed.
        if more := _implied(composed, run):
            composed = _compose(hydra, command, typed, overrides.parse(more), overrides.parse(swept or []), run)
        return composed


def _implied(composed: Composed, run: dict[str, Any] | None) -> list[str]:
    """Overrides that follow from the files on the command line, if it does not say how to read them."""
    section, task = composed.tree.get("dataset"), (run or composed.tree).get("task")
    if "dataset.format" in composed.given or not isinstance(section, dict):
        return []
    hub = section.get("format") == "hub" and "dataset" in composed.chosen
    by_class = section.get("format") in BY_CLASS  # a folder with a folder of classes for each split
    if "dataset" in composed.chosen and not hub and not by_class:
        return []
    splits = ("train", "validation", "test")
    named = {split: section.get(split) for split in splits if f"dataset.{split}" in composed.given}
    if not hub and (not named if run else "train" not in named):
        return []
    from llmft.config.implied import implied  # importing the readers takes a tenth of the time of `--cfg job`

    base = section if run is None or hub else run.get("dataset")
    name = task.get("name") if isinstance(task, dict) else None
    pretrains = bool((found := task_type(str(name))) and found.pretrains)
    path = section.get("path") if "dataset.path" in composed.given else None
    more = implied(base if isinstance(base, dict) else {}, named, path, pretrains)
    if "dataset" in composed.chosen and not hub:  # whoever chose the format gets that one
        return [word for word in more if word.startswith(tuple(f"dataset.{split}=" for split in splits))]
    return more


@contextmanager
def loader(folder: Path | None = None) -> Iterator[ConfigLoader]:
    """Hydra's loader of `configs/` and of recipes. Recipes in `folder` come first."""
    sources.register(first=folder)
    with initialize_config_dir(str(shipped("configs")), **VERSION):
        yield GlobalHydra.instance().config_loader()


def option(hydra: ConfigLoader, path: str) -> ConfigResult | None:
    """The file that Hydra reads at `GROUP/NAME`, from the first source that has it."""
    return next((source.load_config(path) for source in hydra.get_sources() if source.is_config(path)), None)


def names(hydra: ConfigLoader, group: str, kind: ObjectType) -> set[str]:
    """The groups, or the options in a group. Hydra's own `get_group_options` copies all configs first, which takes 0.01
    s."""
    return {name for source in hydra.get_sources() if source.is_group(group) for name in source.list(group, kind)}


def _recipe_files(arguments: list[str]) -> tuple[list[str], Path | None]:
    """A bare path that ends in .yaml is a recipe. Its folder is searched first."""
    folder = None
    for index, word in enumerate(arguments):
        if word.endswith((".yaml", ".yml")) and "=" not in word:
            file = Path(word)
            if not file.is_file():
                raise UserError(Problem(word, "must be a recipe, got a file that does not exist", "command line"))
            if file.suffix == ".yml":
                raise UserError(
                    Problem(word, "recipes end in .yaml", "command line", f"Rename it to {file.stem}.yaml.")
                )
            file = file.resolve()
            folder = file.parent
            arguments = [*arguments[:index], f"+recipe={file.stem}", *arguments[index + 1 :]]
    return arguments, folder


def _compose(
    hydra: ConfigLoader,
    command: str,
    typed: list[Override],
    implied: list[Override],
    swept: list[Override],
    run: dict[str, Any] | None,
) -> Composed:
    groups = names(hydra, "", ObjectType.GROUP) - {"hydra"}
    problems: list[Problem] = []
    choices: list[str] = []
    values: list[tuple[Override, str]] = []
    given = frozenset(str(word.key_or_group) for word in [*typed, *implied] if word.key_or_group not in groups)
    chosen = frozenset(str(word.key_or_group) for word in [*typed, *implied] if word.key_or_group in groups)
    # Choices of options go to Hydra, which reads their files; values are applied afterwards. Wrong ones are collected,
    # not raised, so that all problems of a command are reported at once.
    layers = {"word": typed, "implied": implied, "swept": swept}
    for layer, override in [(layer, word) for layer, several in layers.items() for word in several]:
        key, where = override.key_or_group, SWEPT if layer == "swept" else COMMAND_LINE
        if problem := habits.wrong_override(override, groups, where):
            problems.append(problem)
        elif key in groups:
            if problem := _wrong_choice(hydra, override, where):
                problems.append(problem)
            else:
                choices.append(str(override.input_line))
        else:
            values.append((override, layer))
    # A typed model.path is another model: sha256, init, and sizes of the recipe's model must not apply to it.
    forgotten: dict[str, Any] = {}
    if path := next((v.value() for v, _ in values if v.key_or_group == "model.path" and not v.is_delete()), None):
        forgotten = {key: value for key, value in sources.model_of_path({"path": path}).items() if key != "path"}
        choices += [f"++model.{key}={overrides.quote(value) if value else 'null'}" for key, value in forgotten.items()]
    own = {group: _own_values(hydra, command, group, choices) for group, rule in GROUPS.items() if rule.own_values}
    choices += [word for found in own.values() for word in found]
    replaced = [group for group, found in own.items() if found]
    settings = cache(partial(_settings, hydra, command, choices, replaced, forgotten, values))

    def where_is(key: str) -> str:
        return place_of(settings(), key)

    def beneath(raw: dict[str, Any]) -> dict[str, Any]:
        return raw if run is None else _run_tree(run, raw, given, chosen)

    try:
        composed = _composed(hydra, command, choices, [value for value, _ in values])
        for part in ACTIVE:
            if OmegaConf.select(composed.hydra, part):
                problems.append(Problem(f"hydra.{part}", "is changed by a recipe; a recipe is data"))
        raw = OmegaConf.to_container(composed)
        assert isinstance(raw, dict)
        node = raw.pop("hydra")
        # A second check, of the merged tree: sources.py has checked each file by itself.
        if code := sources.code_in(overrides.restore(raw, dollar="")):
            raise UserError([*problems, *(Problem(key, what, where_is(key)) for key, what in code)])
        OmegaConf.set_struct(composed, False)
        composed.pop("hydra")
        # Our own resolution of ${key}, which also finds defaults of the schema and names the line of a wrong one.
        tree = overrides.restore(resolve(composed, beneath, where_is))
        _resolve_run_names(tree)
        problems += _without_effect(hydra, choices, [value for value, _ in values], tree)
        for key in secrets_in(tree):
            problems.append(Problem(key, "looks like a secret, and configurations are saved", where_is(key), HINT))
    except UserError as error:
        raise UserError([*problems, *(found for found in error.problems if found not in problems)]) from error
    except RecursionError as error:
        raise UserError(
            [*problems, Problem("defaults", "a recipe includes itself, directly or through others")]
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError([*problems, Problem(command, _first_line(error))]) from error
    return Composed(
        tree={str(key): value for key, value in tree.items()},
        settings=settings,
        given=given,
        chosen=chosen,
        problems=problems,
        multirun=node["mode"] == RunMode.MULTIRUN,
        sweeper=node["sweeper"].get("params") or {} if isinstance(node["sweeper"], dict) else {},
    )


T = TypeVar("T")
_shipped: dict[tuple[str, ...], Any] = {}
_planned: dict[tuple[str, ...], Any] | None = None


@contextmanager
def files_read_once() -> Iterator[None]:
    """Read the user's files once while this is open, for the jobs of one sweep; later their changes count again."""
    global _planned
    _planned = {}
    try:
        yield
    finally:
        _planned = None


def _cached(key: tuple[str, ...], read: Callable[[], T]) -> T:
    """The result of `read`, cached for good if it reads only files of llmft, which do not change."""
    folders = sources.user_folders()
    cached = _planned if folders else _shipped
    if cached is None:
        return read()
    if (key := (*key, *folders)) not in cached:
        cached[key] = read()
    return cast("T", cached[key])


def _defaults(hydra: ConfigLoader, command: str, choices: list[str]) -> list[ResultDefault]:
    """The chosen files, in the order in which Hydra merges them."""
    return _cached(
        ("defaults", command, *choices),
        lambda: hydra.compute_defaults_list(command, choices, RunMode.RUN).defaults,
    )


def _composed(hydra: ConfigLoader, command: str, choices: list[str], values: list[Override]) -> DictConfig:
    """The chosen files, composed by Hydra, with the values of the command line on top.

    Hydra takes 0.07 s to read and merge files, nearly all of the time of a config. The jobs of a sweep share them.
    """
    # `++` sets a key whether it exists or not: unknown ones are found by the check, all at once.
    forced = [f"++{v.input_line.lstrip('+')}" if not v.is_delete() else str(v.input_line) for v in values]
    if any(v.is_delete() or v.is_sweep_override() or v.package or "/" in v.key_or_group for v in values):
        return hydra.load_configuration(command, UNUSED + choices + forced, RunMode.RUN)
    files = _cached(
        ("files", command, *choices), lambda: hydra.load_configuration(command, UNUSED + choices, RunMode.RUN)
    )
    composed = deepcopy(files)  # the cached one must stay as it is
    try:
        for value in OverridesParser.create().parse_overrides(forced):
            OmegaConf.update(composed, value.key_or_group, value.value(), merge=True, force_add=True)
    except OmegaConfBaseException:
        return hydra.load_configuration(command, UNUSED + choices + forced, RunMode.RUN)  # its error names the override
    return composed


def _run_tree(
    run: dict[str, Any], raw: dict[str, Any], given: frozenset[str], chosen: frozenset[str]
) -> dict[str, Any]:
    """The tree in which references are looked up, for a command that works from a run: the run's config and the
    overrides."""
    tree = escape(run) | {group: raw[group] for group in chosen if group in raw}
    for key in given:
        section, value, path = tree, raw, key.split(".")
        for part in path[:-1]:
            section, value = section.setdefault(part, {}), value.get(part, {})
            if not isinstance(section, dict) or not isinstance(value, dict):
                break
        else:
            section[path[-1]] = value.get(path[-1])
    return tree


def place_of(settings: list[Setting], key: str, default: str = "") -> str:
    """The place that set a key last. A key inside a table has the place of the table."""
    places = {setting.key: setting.place for setting in settings}
    while key:
        if key in places:
            return places[key]
        key = key.rpartition(".")[0]
    return default


def _resolve_run_names(tree: dict[Any, Any]) -> None:
    """Replace names of runs by their folders: `model.path=tickets` becomes outputs/tickets/STAMP."""
    if isinstance(model := tree.get("model"), dict):
        for section in (model, model.get("tokenizer")):
            if isinstance(section, dict) and isinstance(path := section.get("path"), str):
                section["path"] = model_path(path)
        if isinstance(tokenizer := model.get("tokenizer"), str):
            model["tokenizer"] = model_path(tokenizer)


def _own_values(hydra: ConfigLoader, command: str, group: str, choices: list[str]) -> list[str]:
    """Overrides that give a chosen option its own values instead of those that a recipe has for another option.

    In Hydra the recipe wins: with `optimizer=lion`, lion would train at a learning rate meant for adamw.
    """
    chosen = next((choice.partition("=")[2] for choice in choices if choice.startswith(f"{group}=")), None)
    if chosen is None or not any(choice.startswith("+recipe=") for choice in choices):
        return []
    # What the recipe alone would choose: if it is the same option, its values are meant for it and stay.
    others = [choice for choice in choices if not choice.startswith(f"{group}=")]
    try:
        recipe = _defaults(hydra, command, others)
    except HydraException:
        return []  # reported by the composition of the whole config
    own = f"{group}/{chosen}"
    if any(default.config_path == own for default in recipe) or not (found := option(hydra, own)):
        return []
    mine = OmegaConf.to_container(found.config)
    assert isinstance(mine, dict)
    return [f"++{group}.{key!s}={value}" for key, value in mine.items() if key != "defaults"]


def _without_effect(
    hydra: ConfigLoader, choices: list[str], values: list[Override], tree: dict[Any, Any]
) -> list[Problem]:
    """Problems with options that have no effect, because a recipe sets the section itself."""
    if not any(choice.startswith("+recipe=") for choice in choices):
        return []
    given, problems = {value.key_or_group for value in values}, []
    for group, _, name in (choice.partition("=") for choice in choices):
        key, section = GROUPS.get(group, Group()).which, tree.get(group)
        if not key or not isinstance(section, dict) or given & {group, f"{group}.{key}"}:
            continue
        found = option(hydra, f"{group}/{name}")
        if found is not None and section.get(key) != found.config.get(key):
            value = "null" if section.get(key) is None else section[key]
            what = f"has no effect: the recipe itself sets {group}.{key}={value}"
            hint = f"Remove the section {group} from the recipe."
            problems.append(Problem(f"{group}={name}", what, "command line", hint))
    return problems


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _wrong_choice(hydra: ConfigLoader, override: Override, where: str) -> Problem | None:
    """The problem with `group=option`, if any."""
    group, option = override.key_or_group, override.value()
    known = sorted(names(hydra, group, ObjectType.CONFIG))
    if override.is_delete() or not isinstance(option, str):
        return Problem(group, "must be the name of one option", where, f"They are {', '.join(known)}.")
    if option in known:
        return None
    if "," in option:
        hint = "Write -m for a run with each."
        return Problem(f"{group}={option}", "names several options; a run takes one", where, hint)
    if group == "dataset" and (Path(option).suffix or Path(option).exists()):
        return Problem(f"{group}={option}", "names a file, not an option", where, f"Write dataset.train={option}.")
    sign = "+" if group == "recipe" else ""
    if why := refusal(group, option):
        return Problem(f"{sign}{group}={option}", why, where, "Write the path of a recipe." if sign else "")
    return Problem(f"{group}={option}", f"no such {group}", where, _meant(group, option, known))


def _meant(group: str, option: str, known: list[str]) -> str:
    """A suggestion for an unknown option: an id of the hub, or an option with a similar spelling."""
    if group == "model" and re.search(r"[-/.]", option):
        texts = {name: option_file(group, name).read_text(encoding="utf-8-sig") for name in options(group)}
        paths = {yaml.safe_load(text).get("path"): name for name, text in texts.items()}
        last = option.rpartition("/")[2].lower()
        same = [name for path, name in paths.items() if path and path.rpartition("/")[2].lower() == last]
        own = f"Write model={same[0]}. " if same else ""
        return f"{own}For a hub id or a folder, write model.path={option}."
    longer = [name for name in known if name.startswith(f"{option}_")]  # bert is nearer to roberta than to bert_base
    nearest = longer or get_close_matches(option, known, 1)
    return f"Did you mean {' or '.join(nearest)}?" if nearest else f"They are {', '.join(known)}."


def _settings(
    hydra: ConfigLoader,
    command: str,
    choices: list[str],
    own: list[str],
    forgotten: dict[str, Any],
    values: list[tuple[Override, str]],
) -> list[Setting]:
    """Every place that sets a key, in the order of LAYERS; files in the order of Hydra's defaults list."""
    found: list[Setting] = []
    chosen: dict[str, str] = {}
    # In the order of merging, so that the last setting of a key is the one that won.
    for default in _defaults(hydra, command, choices):
        if default.config_path is None or default.config_path.startswith("hydra"):
            continue
        group, _, name = default.config_path.partition("/")
        chosen[group] = name
        found += _of_file(
            hydra, default.config_path, default.package or "", "recipe" if group == "recipe" else "option"
        )
    path = next((word.value() for word, _ in values if word.key_or_group == "model.path"), "")
    by = f"model.path={path}"
    found += [Setting(f"model.{key}", value, COMMAND_LINE, "path", by) for key, value in forgotten.items()]
    for group in own:
        found += _of_file(hydra, f"{group}/{chosen[group]}", group, "own")
    for word, layer in values:
        value = None if word.is_delete() else overrides.restore(word.value())
        place = SWEPT if layer == "swept" else COMMAND_LINE
        found.append(Setting(str(word.key_or_group), value, place, layer))
    return found


def _of_file(hydra: ConfigLoader, path: str, package: str, layer: str) -> list[Setting]:
    """The settings in a file, by line. Keys that a recipe's `model.path` resets have the line of the path."""
    file, rows = _cached(("lines", path, package), lambda: _lines_of(hydra, path, package))
    group, _, name = path.partition("/")
    by = f"+recipe={name}" if group == "recipe" else f"{group}={name}" if name else ""
    return [
        Setting(key, value, f"{sources.display_path(file)}:{line}", layer if known else "path", by)
        for key, value, line, known in rows
    ]


def _lines_of(hydra: ConfigLoader, path: str, package: str) -> tuple[Path, list[tuple[str, Any, int, bool]]]:
    """The file at `GROUP/NAME` and its settings: key, value, line, and whether the file contains the key itself."""
    result = option(hydra, path)
    scheme, _, folder = result.path.partition("://") if result else ("", "", "")
    if result is None or not folder or scheme == "entrypoints":
        return Path(), []
    file = Path(folder) / f"{path.partition('/')[2] if scheme == 'recipes' else path}.yaml"
    prefix = "" if package in ("", "_global_") else f"{package}."
    node = yaml.compose(file.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    at = sources.lines(node, prefix)
    found = []
    for key, value in _nodes(OmegaConf.to_container(result.config), prefix):
        if key.split(".")[0] not in ("defaults", "hydra"):
            line, known = at.get(key), key in at
            if line is None and key.startswith("model."):
                line = at.get("model.path")
            if line is not None:
                found.append((key, value, line, known))
    return file, found


def _nodes(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every table and value of a tree, by its dotted key."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        yield f"{prefix}{name}", value
        yield from _nodes(value, f"{prefix}{name}.")
