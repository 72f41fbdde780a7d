"""The sources from which Hydra reads options and recipes: llmft's and the user's (config/folders.py).

Anybody may have written a recipe or an option, so it has to be data: everything that could make Hydra or OmegaConf run
code or read the environment is refused here, before composition. tests/config/test_recipes_are_data.py lists the forms.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from llmft.config.folders import all_groups, inside, names_in, recipe_folders, shipped, user_configs
from llmft.runs.folder import as_recipe
from llmft.runs.index import is_run, model_path, title
from llmft.schema.config import Config
from llmft.schema.migrate import migrate
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import plugins

MAX_BYTES = 256_000  # the longest of llmft's recipes has 1.3 kB
MAX_ALIASES = 50  # 166 bytes of nested aliases cost OmegaConf 4.2 s
ESCAPED = re.compile(r"(?<!\\)\\(?:\\\\)*\$\{")  # \${, which is text and not a reference
REFERENCE = re.compile(r"\$\{[\w.]+\}")  # ${optimizer.lr}; not ${oc.env:HF_TOKEN}, nor ${oc.${x}:HF_TOKEN}
HYDRA_KEYS = {"mode", "sweeper"}


def display_path(file: Path) -> str:
    """The file as messages show it: relative to the working directory, or starting with `recipes` or `configs`."""
    for base in (Path.cwd(), shipped("recipes").parent):
        if file.is_relative_to(base):
            return str(file.relative_to(base))
    return str(file)


def lines(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    """The line of each dotted key below a YAML node, counted from 1."""
    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            found[name] = key.start_mark.line + 1
            found |= lines(value, f"{name}.")
    return found


def _strings(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every key and text of a tree, each with its dotted path."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in [(f"{path}{k}", str(k)), *_strings(v, f"{path}{k}.")]]
    if isinstance(value, list):
        return [pair for item in value for pair in _strings(item, path)]
    return [(path.rstrip("."), value)] if isinstance(value, str) else []


def code_in(tree: Any) -> list[tuple[str, str]]:
    """The parts of a tree that could run code or read the environment: (dotted key, what is wrong)."""
    found = []
    for key, text in _strings(tree):
        if "_target_" in text:
            found.append((key, "names code to run; a configuration is data"))
        elif "${" in REFERENCE.sub("", ESCAPED.sub("", text)):
            found.append((key, "calls a resolver; only plain ${key} is allowed"))
    return found


def refuse_code(text: str, tree: dict[Any, Any], header: dict[str, str], file: Path, group: str = "recipe") -> None:
    """Raise UserError with every line of a recipe, or of an option of a group, that is more than data."""
    where = display_path(file)
    at = lines(yaml.compose(text, Loader=yaml.SafeLoader))
    problems = [Problem(key, what, f"{where}:{at.get(key, 1)}") for key, what in code_in(tree)]
    if group != "recipe":
        problems += _of_an_option(tree, header, where, at, group)
    elif header.get("package") not in (None, "_global_"):
        problems.append(
            Problem(
                "# @package",
                "must be _global_: a recipe sets keys of all groups",
                f"{where}:1",
                "Write # @package _global_ on its first line.",
            )
        )
    hydra = (tree.get("hydra") or {}) if group == "recipe" else {}
    for key in sorted(set(hydra) - HYDRA_KEYS if isinstance(hydra, dict) else {"hydra"}):
        problems.append(
            Problem(
                f"hydra.{key}",
                "a recipe may set only hydra.mode and hydra.sweeper.params",
                f"{where}:{at.get(f'hydra.{key}', 1)}",
            )
        )
    sweeper = hydra.get("sweeper") or {} if isinstance(hydra, dict) else {}
    for key in sorted(set(sweeper) - {"params"} if isinstance(sweeper, dict) else {"sweeper"}):
        problems.append(Problem(f"hydra.sweeper.{key}", "a recipe may set only hydra.sweeper.params", where))
    defaults = tree.get("defaults") or []
    for item in defaults if isinstance(defaults, list) else [defaults]:
        words = " ".join(map(str, item)) if isinstance(item, dict) else str(item)
        named = isinstance(item, str) or (isinstance(item, dict) and len(item) == 1)
        if not named or not isinstance(defaults, list):
            problems.append(Problem("defaults", f"{words!r} names no option", where, "Write - override /GROUP: OPTION"))
        elif "@" in words or "hydra" in words or ".." in words:
            problems.append(Problem("defaults", f"{words!r} reaches outside the recipe's groups", where))
    if problems:
        raise UserError(problems)


def _of_an_option(
    tree: dict[Any, Any], header: dict[str, str], where: str, at: dict[str, int], group: str
) -> list[Problem]:
    """Problems with an option for what only a recipe may do: set keys outside of its group."""
    problems = []
    if header.get("package") not in (None, "_group_", group):
        hint = "Leave out # @package; a recipe sets several groups."
        problems.append(
            Problem("# @package", f"must be {group}: an option of a group only sets its own keys", f"{where}:1", hint)
        )
    defaults = tree.get("defaults") or []
    for item in defaults if isinstance(defaults, list) else []:
        if isinstance(item, dict) or "/" in str(item):
            line = f"{where}:{at.get('defaults', 1)}"
            problems.append(Problem("defaults", f"an option of {group} can only include options of {group}", line))
    return problems


def model_of_path(model: dict[str, Any]) -> dict[str, Any]:
    """The section `model` with a new path: name, digest, sizes, and the like of another model are reset."""
    path = Path(model_path(str(model["path"])))
    run = next((folder for folder in (path, path.parent) if path.is_dir() and is_run(folder)), None)
    name = title(run) if run else re.sub(r"[^\w.-]+", "-", path.name) or "custom"
    mine = {"sha256": None, "architecture": _architecture(path), "name": name}
    return {**mine, "init": None, "config": None, **model}


def _architecture(folder: Path) -> str | None:
    """The architecture of a model folder or run folder, from its config.json."""
    for file in (folder / "config.json", folder / "model" / "config.json"):
        try:
            kind = json.loads(file.read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return kind if isinstance(kind, str) else None
    return None


class RecipeSource(ConfigSource):
    """Serves a folder of YAML files, and its subfolders, as the config group `recipe`."""

    @staticmethod
    def scheme() -> str:
        return "recipes"

    def file(self, config_path: str) -> Path | None:
        """The file of a recipe; None if there is none, or if it lies outside the folder after links are resolved."""
        group, _, name = self._normalize_file_name(config_path).partition("/")
        file = Path(self.path) / name
        return file if group == "recipe" and name and inside(file, Path(self.path)) else None

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", "recipe")

    def is_config(self, config_path: str) -> bool:
        return self.file(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG else ["recipe"]
        if config_path != "recipe" or results_filter == ObjectType.GROUP:
            return []
        folder = Path(self.path)
        if folder in [found.resolve() for found in recipe_folders()]:
            return sorted(names_in(folder))
        return sorted(
            file.stem for file in folder.glob("*.yaml")
        )  # the folder of a recipe given by its path may be large: subfolders are not searched

    def load_config(self, config_path: str) -> ConfigResult:
        file = self.file(config_path)
        if file is None:
            raise ConfigLoadError(f"no recipe at {config_path}")
        config, tree, header = _read(file, "recipe", self._get_header_dict)
        if file.name == "config.yaml" and (file.parent / "manifest.json").is_file():
            config = OmegaConf.create(_migrated(tree))
        header["package"] = "_global_"  # a recipe sets keys of all groups, whether its first line says so or not
        if "expect" not in tree:
            config.expect = None  # the result that an included recipe promises does not hold for this one
        if isinstance(model := tree.get("model"), dict) and model.get("path"):
            config.model = model_of_path(model)
        return ConfigResult(provider=self.provider, path=f"recipes://{self.path}", config=config, header=header)


class OptionSource(ConfigSource):
    """Serves the options of a user's folder, GROUP/NAME.yaml for existing groups; ignores everything else."""

    @staticmethod
    def scheme() -> str:
        return "options"

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return config_path == "" or config_path in all_groups()

    def is_config(self, config_path: str) -> bool:
        file = self._normalize_file_name(config_path)
        group, _, name = file.partition("/")
        return group in all_groups() and "/" not in name and inside(Path(self.path) / file, Path(self.path))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter == ObjectType.GROUP or config_path not in all_groups():
            return []
        names = (file.stem for file in (Path(self.path) / config_path).glob("*.yaml"))
        return sorted(name for name in names if self.is_config(f"{config_path}/{name}"))

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path) / self._normalize_file_name(config_path)
        group = config_path.partition("/")[0]
        config, tree, header = _read(file, group, self._get_header_dict)
        header["package"] = group
        if group == "model" and tree.get("path"):
            config = OmegaConf.create(model_of_path(tree))
        return ConfigResult(provider=self.provider, path=f"options://{self.path}", config=config, header=header)


def _read(file: Path, group: str, header_of: Callable[[str], dict[str, Any]]) -> tuple[Any, dict[Any, Any], Any]:
    """A recipe, or an option of a group, checked to be data: for Hydra, as a plain tree, and its header.

    Raises:
        UserError: naming the file, and every line that is more than data.
    """
    text = read_yaml(file)
    try:
        config = OmegaConf.create(text)
        tree = OmegaConf.to_container(config)
    except yaml.YAMLError as error:
        raise UserError(_not_yaml(file, error)) from error
    except OmegaConfBaseException as error:
        raise UserError(Problem(display_path(file), f"cannot be read: {error}")) from error
    if not isinstance(tree, dict):
        raise UserError(Problem(display_path(file), "must contain lines of key: value"))
    try:
        header = header_of(text)
    except ValueError as error:
        raise UserError(Problem("# @package", str(error), f"{display_path(file)}:1")) from error
    refuse_code(text, tree, header, file, group)
    return config, tree, header


def _migrated(tree: dict[Any, Any]) -> Any:
    """The config of a run, possibly of an earlier version, with present keys.

    A missing key gets its default, as it had when the run was made, not the value of a present option.
    """
    try:
        return yaml.safe_load(as_recipe(Config.model_validate(migrate(tree))))
    except ValidationError:
        return tree  # somebody edited it; the check reports what is wrong


def read_yaml(file: Path) -> str:
    """The text of a YAML file, checked: small, UTF-8, well-formed, and without excessive aliases.

    Raises:
        UserError: naming the file, and the line if there is one.
    """
    if file.stat().st_size > MAX_BYTES:
        raise UserError(
            Problem(display_path(file), f"must be at most {MAX_BYTES // 1000} kB, got {file.stat().st_size // 1000} kB")
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise UserError(Problem(display_path(file), "is not UTF-8 text", hint="Save it as UTF-8.")) from error
    except yaml.YAMLError as error:
        raise UserError(_not_yaml(file, error)) from error
    if aliases > MAX_ALIASES:
        raise UserError(Problem(display_path(file), f"must have at most {MAX_ALIASES} YAML aliases, got {aliases}"))
    return text


def _not_yaml(file: Path, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(display_path(file), f"is not YAML: {what}", f"{display_path(file)}:{mark.line + 1 if mark else 1}")


class EntryPointSource(ConfigSource):
    """Serves the tasks and models of other packages: `task=NAME` for an entry point NAME of `llmft.tasks`."""

    @staticmethod
    def scheme() -> str:
        return "entrypoints"

    def _names(self, config_path: str) -> set[str]:
        if config_path == "task":
            return set(plugins("llmft.tasks"))
        return set(plugins("llmft.models")) if config_path == "model" else set()

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path == "" or bool(self._names(config_path))

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.rpartition("/")
        return name.removesuffix(".yaml") in self._names(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return sorted(self._names(config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, file = config_path.rpartition("/")
        name = file.removesuffix(".yaml")
        tree = {"name": name} if group == "task" else {"name": name, "architecture": name, "init": "random"}
        return ConfigResult(
            provider=self.provider,
            path="entrypoints://",
            config=OmegaConf.create(tree),
            header={"package": group},
        )


_first: list[Path] = []


class SearchPath(SearchPathPlugin):
    """The user's options before llmft's; recipes next to one given by its path, then the user's, then llmft's;
    packages."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(user_configs()):
            search_path.prepend(provider="options", path=f"options://{folder}")
        for folder in [*_first, *(folder.resolve() for folder in recipe_folders())]:
            search_path.append(provider="recipes", path=f"recipes://{folder}")
        search_path.append(provider="entry points", path="entrypoints://")


def user_folders() -> tuple[str, ...]:
    """The folders of options and recipes that Hydra searches besides those of llmft."""
    own = [*_first, *user_configs(), *(folder.resolve() for folder in recipe_folders())]
    return tuple(str(folder) for folder in own if folder != shipped("recipes").resolve())


def register(first: Path | None = None) -> None:
    """Register these sources with Hydra. `first` is a folder of recipes that is searched before the others."""
    _first[:] = [first] if first else []
    for plugin in (RecipeSource, OptionSource, EntryPointSource, SearchPath):
        Plugins.instance().register(plugin)
