"""From words and YAML to one plain tree, with the origin of every key. Hydra composes, and nothing more."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import sources, words
from llmft.config.folders import shipped
from llmft.config.secrets import HINT, secrets_in
from llmft.schema.problem import Problem, UserError

# Parts of Hydra's own node that could act, empty unless somebody filled them: a second lock behind the one on files.
ACTIVE = ("callbacks", "job.env_set", "job.env_copy", "searchpath")

# What Hydra would load for its own logging, launching and help. llmft has its own.
UNUSED = [
    f"~hydra/{part}" for part in ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging")
]


@dataclass(frozen=True)
class Composed:
    """What the words and the files say together, not yet checked."""

    tree: dict[str, Any]
    origins: Callable[[], dict[str, str]]
    """Dotted key -> `command line` or `FILE:LINE`. Worked out when asked for: only messages need the 0.1 s."""
    given: frozenset[str]
    """The value keys of the command line."""
    chosen: frozenset[str]
    """The groups chosen on the command line."""
    problems: list[Problem]
    """What is wrong already; the check adds its own, so that all are said at once."""


def compose(command: str, arguments: list[str]) -> Composed:
    """Compose `configs/COMMAND.yaml`, the chosen options and recipe, and the values of the command line.

    Raises:
        UserError: where a word, a file or a choice is so wrong that no tree comes of it.
    """
    arguments, folder = _recipe_files(arguments)
    sources.register(first=folder)
    overrides = words.parse(arguments)
    with initialize_config_dir(str(shipped("configs")), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        return _compose(loader, command, overrides)


def _recipe_files(arguments: list[str]) -> tuple[list[str], Path | None]:
    """A bare path that ends in .yaml is a recipe: its folder is searched first."""
    folder = None
    for index, word in enumerate(arguments):
        if word.endswith((".yaml", ".yml")) and "=" not in word:
            file = Path(word)
            if not file.is_file():
                raise UserError(Problem(word, "no such file", "command line"))
            if file.suffix == ".yml":
                raise UserError(
                    Problem(word, "recipes end in .yaml", "command line", f"Rename it to {file.stem}.yaml.")
                )
            folder = file.resolve().parent
            arguments = [*arguments[:index], f"+recipe={file.stem}", *arguments[index + 1 :]]
    return arguments, folder


def _compose(loader: ConfigLoaderImpl, command: str, overrides: list[Override]) -> Composed:
    groups = set(loader.list_groups("")) - {"hydra"}
    problems: list[Problem] = []
    choices: list[str] = []
    values: list[Override] = []
    for override in overrides:
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] == "hydra":
            problems.append(Problem(key, "is Hydra's own; llmft does not use it", "command line"))
        elif key in groups:
            if problem := _wrong_choice(loader, override):
                problems.append(problem)
            else:
                choices.append(str(override.input_line))
        else:
            values.append(override)
    if path := next((v.value() for v in values if v.key_or_group == "model.path" and not v.is_delete()), None):
        forgotten = sources.of_the_path({"path": path}).items()
        choices += [
            f"++model.{key}={words.quoted(value) if value else 'null'}" for key, value in forgotten if key != "path"
        ]
    # `++` sets a key whether it exists or not: unknown ones are found by the check, all at once.
    forced = [f"++{v.input_line.lstrip('+')}" if not v.is_delete() else str(v.input_line) for v in values]
    origins = cache(partial(_origins, loader, command, choices, values))
    try:
        composed = loader.load_configuration(command, UNUSED + choices + forced, RunMode.RUN)
        for part in ACTIVE:
            if OmegaConf.select(composed.hydra, part):
                problems.append(Problem(f"hydra.{part}", "is changed by a recipe; a recipe is data"))
        raw = OmegaConf.to_container(composed)
        assert isinstance(raw, dict)
        raw.pop("hydra")
        if found := sources.code_in(raw):
            raise UserError([*problems, *(Problem(key, what, origins().get(key, "")) for key, what in found)])
        OmegaConf.set_struct(composed, False)
        composed.pop("hydra")
        tree = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(tree, dict)
        for key in secrets_in(tree):
            problems.append(
                Problem(key, "looks like a secret, and configurations are saved", origins().get(key, ""), HINT)
            )
    except RecursionError as error:
        raise UserError(
            [*problems, Problem("defaults", "a recipe names itself, by way of others or at once")]
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError([*problems, Problem(command, _first_line(error))]) from error
    return Composed(
        tree={str(key): value for key, value in tree.items()},
        origins=origins,
        given=frozenset(str(value.key_or_group) for value in values),
        chosen=frozenset(str(override.key_or_group) for override in overrides if override.key_or_group in groups),
        problems=problems,
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _wrong_choice(loader: ConfigLoaderImpl, override: Override) -> Problem | None:
    """The problem with `group=option`, if any."""
    group, option = override.key_or_group, override.value()
    known = loader.get_group_options(group)
    if override.is_delete() or not isinstance(option, str):
        return Problem(group, "takes the name of one option", "command line", f"They are {', '.join(known)}.")
    if group == "recipe" and not str(override.input_line).startswith("+"):
        return Problem(f"recipe={option}", "wants a plus sign", "command line", f"Write +recipe={option}.")
    if option in known:
        return None
    if "," in option:
        return Problem(f"{group}={option}", "names several options; a run takes one", "command line")
    nearest = get_close_matches(option, known, 1)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"They are {', '.join(known)}."
    return Problem(f"{group}={option}", f"no such {group}", "command line", hint)


def _origins(loader: ConfigLoaderImpl, command: str, choices: list[str], values: list[Override]) -> dict[str, str]:
    """Where each key was set last: later files of the defaults list win, and the command line wins over all."""
    origins: dict[str, str] = {}
    for default in loader.compute_defaults_list(command, choices, RunMode.RUN).defaults:
        if default.config_path is None or default.config_path.startswith("hydra"):
            continue
        result = loader.repository.load_config(default.config_path)
        if result is None or "://" not in result.path:
            continue
        scheme, _, folder = result.path.partition("://")
        if scheme == "entrypoints":
            continue
        name = default.config_path.removeprefix("recipe/") if scheme == "recipes" else default.config_path
        file = Path(folder) / f"{name}.yaml"
        package = default.package or ""
        prefix = "" if package in ("", "_global_") else f"{package}."
        node = yaml.compose(file.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
        origins |= {key: f"{sources.near(file)}:{line}" for key, line in sources.lines(node, prefix).items()}
    return origins | {str(value.key_or_group): "command line" for value in values}
