"""What people who know Hydra type is answered, or refused with the words to write instead."""

from collections.abc import Callable

import pytest
import yaml

from llmft.config.load import load

Run = Callable[..., tuple[int, str, str]]

REFUSED = {
    "--cfg hydra": "--cfg hydra  must be job or diff (command line). --cfg job prints everything",
    "--cfg all": "--cfg all  must be job or diff (command line). --cfg job prints everything",
    "--info defaults": "--info  no such flag (command line). Write --cfg diff",
    "-i": "-i  no such flag (command line). Write --cfg diff",
    "--config-name=mine": "--config-name  no such flag (command line). Write +recipe=NAME",
    "--config-path conf": "--config-path  no such flag (command line). Write --config-dir DIR",
    "--hydra-help": "Write --help.",
    "--experimental-rerun x": "Write llmft runs reproduce RUN.",
    "--verbose": "They are -m, --cfg job, --cfg diff, --config-dir DIR, --json and --help.",
    "hydra.run.dir=out/x": "hydra.run.dir  is a key of Hydra itself, which llmft does not use (command line). Write run.dir=out/x.",
    "hydra.sweep.dir=out": "Write run.dir=out; the jobs of a sweep lie in it.",
    "hydra.sweep.subdir=x": "the folder of a job is named by its values.",
    "hydra/launcher=joblib": "Write sweep.jobs=2 for two jobs at a time",
    "hydra.launcher.n_jobs=4": "Write sweep.jobs=4.",
    "hydra/sweeper=optuna": "Write -m for every combination of values, or search=tpe",
    "hydra.sweeper.n_trials=9": "Write search=tpe search.trials=9.",
    "hydra.sweeper.params.seed=3": "Write -m seed=3.",
    "hydra.mode=MULTIRUN": "Write -m for many runs",
    "hydra.job.name=tickets": "Write name=tickets.",
    "hydra.job.chdir=true": "a run stays in the working directory",
    "hydra.searchpath=[x]": "Write --config-dir DIR.",
    "hydra.verbose=true": "RUN/events.jsonl",
    "hydra.help.header=x": "hydra.help.header  is a key of Hydra itself, which llmft does not use (command line)\n",
    "+hydra.callbacks.x=1": "hydra.callbacks.x  is a key of Hydra itself",
    "experiment=exp1": "experiment=exp1  an experiment is a recipe (command line). Write +recipe=exp1.",
    "+experiment=exp1": "+experiment=exp1  an experiment is a recipe (command line). Write +recipe=exp1.",
    "recipe=bert_ner": "recipe=bert_ner  needs a plus sign (command line). Write +recipe=bert_ner.",
    "++recipe=bert_ner": "Write +recipe=bert_ner.",
    "optimizer@x=adamw": "optimizer@x  must be a group without @; llmft does not move groups (command line). Write optimizer=adamw.",
    "+optimizer@x.y=adamw": "Write optimizer=adamw.",
    "+optimizer=sgd": "+optimizer=sgd  takes no plus sign (command line). Write optimizer=sgd.",
    "++search=tpe": "Write search=tpe.",
    "~optimizer": "optimizer  must be the name of one option (command line).",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_a_habit_is_refused_with_the_words_to_write_instead(words: str, llmft: Run) -> None:
    code, out, err = llmft("finetune", *words.split(" "))
    assert (code, out) == (2, "")
    assert REFUSED[words] in err
    assert "Traceback" not in err


def test_what_hydra_shows_is_shown(llmft: Run) -> None:
    asked = ("finetune", "optimizer=sgd")
    assert yaml.safe_load(llmft(*asked, "--cfg", "job")[1])["optimizer"]["lr"] == 0.01
    part = llmft(*asked, "--cfg", "job=optimizer")
    for flags in ("--cfg job --package optimizer", "-c job -p optimizer", "--cfg=job --package=optimizer --resolve"):
        assert llmft(*asked, *flags.split(" ")) == part
    assert llmft(*asked, "--cfg", "job=optimizer.lr") == (0, "optimizer.lr: 0.01\n", "")


def test_a_flag_that_is_none_does_not_repeat_its_value(llmft: Run) -> None:
    assert "abcdef" not in "".join(llmft("finetune", "--config-name=abcdef")[1:])


def test_the_words_to_write_instead_are_right() -> None:
    words = ["run.dir=x", "sweep.jobs=4", "name=tickets", "optimizer=adamw", "search=tpe", "search.trials=9"]
    config = load("finetune", [*words, "+recipe=bert_ner"])
    assert (config.run.dir, config.sweep.jobs, config.name, config.search.trials) == ("x", 4, "tickets", 9)
