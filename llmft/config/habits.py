"""Flags and overrides that people know from Hydra, and what to write instead. One table, so that each is answered.

These work as in Hydra: `-m`, `--cfg job`, `--config-dir`, `--package` (the part that `--cfg job` shows), and
`--resolve` (values are always resolved).
"""

import re
from collections.abc import Collection

from hydra.core.override_parser.types import Override

from llmft.config import overrides
from llmft.schema.problem import Problem

OWN = "is a key of Hydra itself, which llmft does not use"

FLAGS = {
    "--info": "Write --cfg diff for what is set where, or llmft explain KEY for one key.",
    "-i": "Write --cfg diff for what is set where, or llmft explain KEY for one key.",
    "--config-name": "Write +recipe=NAME, or the path of a recipe.",
    "-cn": "Write +recipe=NAME, or the path of a recipe.",
    "--config-path": "Write --config-dir DIR for your own options and recipes.",
    "-cp": "Write --config-dir DIR for your own options and recipes.",
    "--run": "Leave it out: without -m, a command runs once.",
    "-r": "Leave it out: without -m, a command runs once.",
    "--hydra-help": "Write --help.",
    "--shell-completion": "Write llmft completion bash.",
    "-sc": "Write llmft completion bash.",
    "--experimental-rerun": "Write llmft runs reproduce RUN.",
}
"""Flags that llmft does not have -> what to write instead."""

WORDS = (
    (r"hydra\.run\.dir=(.*)", r"Write run.dir=\1."),
    (r"hydra\.sweep\.dir=(.*)", r"Write run.dir=\1; the jobs of a sweep lie in it."),
    (r"hydra\.sweep\.subdir=.*", "Leave it out: the folder of a job is named by its values."),
    (r"hydra/sweeper=.*", "Write -m for every combination of values, or search=tpe for a search by Optuna."),
    (r"hydra\.sweeper\.n_trials=(.*)", r"Write search=tpe search.trials=\1."),
    (r"hydra\.sweeper\.n_jobs=(.*)", r"Write sweep.jobs=\1."),
    (r"hydra\.sweeper\.params\.(.*)", r"Write -m \1."),
    (r"hydra\.launcher\.n_jobs=(.*)", r"Write sweep.jobs=\1."),
    (r"hydra[/.]launcher\b.*", "Write sweep.jobs=2 for two jobs at a time, or sweep.gpus=[0,1] for one on each GPU."),
    (r"hydra\.mode=.*RUN", "Write -m for many runs, and leave it out for one."),
    (r"hydra\.job\.name=(.*)", r"Write name=\1."),
    (r"hydra\.job\.chdir=.*", "Leave it out: a run stays in the working directory, and run.dir=DIR is its folder."),
    (r"hydra\.searchpath=.*", "Write --config-dir DIR."),
    (r"hydra\.output_subdir=.*", "Leave it out: RUN/config.yaml holds the configuration."),
    (r"hydra\.verbose=.*", "Leave it out: RUN/events.jsonl holds every logged step."),
)  # fmt: skip
"""Patterns of overrides for Hydra itself -> what to write instead."""


def wrong_flag(word: str) -> Problem:
    """The problem with an unknown flag. Its value may be a secret and is not repeated."""
    flag = word.partition("=")[0]
    hint = FLAGS.get(flag, "They are -m, --cfg job, --cfg diff, --config-dir DIR, --json and --help.")
    return Problem(flag, "no such flag", "command line", hint)


def wrong_override(override: Override, groups: Collection[str], where: str) -> Problem | None:
    """The problem with an override that Hydra understands and llmft does not; None for any other override."""
    key, word, value = str(override.key_or_group), str(override.input_line), override.value()
    sign = word[: len(word) - len(word.lstrip("+~"))]
    if re.match(r"hydra\b", key):
        text = f"{key}={overrides.restore(word.partition('=')[2])}"
        found = next((found.expand(hint) for pattern, hint in WORDS if (found := re.fullmatch(pattern, text))), "")
        return Problem(key, OWN, where, found)
    if override.package is not None:
        what = "must be a group without @; llmft does not move groups"
        return Problem(f"{key}@{override.package}", what, where, f"Write {key}={value}.")
    if key == "experiment" and key not in groups:
        return Problem(f"{sign}experiment={value}", "an experiment is a recipe", where, f"Write +recipe={value}.")
    if key == "recipe" and sign != "+":
        return Problem(f"{sign}recipe={value}", "needs a plus sign", where, f"Write +recipe={value}.")
    if key in groups and key != "recipe" and sign in ("+", "++"):
        return Problem(f"{sign}{key}={value}", "takes no plus sign", where, f"Write {key}={value}.")
    return None
