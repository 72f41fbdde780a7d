"""Words that mean many jobs: what is swept, in which order, and what is wrong with any of them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.config import sources
from llmft.config.grid import jobs, plan
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
CSV = ["dataset=csv", "dataset.train=a.csv"]
SHIPPED = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(file.stem for file in SHIPPED.glob("*.yaml") if "\ncommand: finetune\n" in file.read_text())


def values(*words: str) -> list[dict[str, Any]]:
    return [job.values for job in jobs("finetune", list(words), multirun=True)]


SWEEPS = {
    "seed=0,1": ["seed", [0, 1]],
    "seed=range(3)": ["seed", [0, 1, 2]],
    "seed=range(1,6,2)": ["seed", [1, 3, 5]],
    "seed=choice(4,5)": ["seed", [4, 5]],
    "seed=7,range(2)": ["seed", [7, 0, 1]],
    "seed=sort(3,1,2)": ["seed", [1, 2, 3]],
    "seed=range(1)": ["seed", [0]],
    "seed=tag(mine,choice(1,2))": ["seed", [1, 2]],
    "optimizer.lr=1e-5,3e-5": ["optimizer.lr", [1e-5, 3e-5]],
    "dataset.max_overlap=range(0.1,0.5,0.1)": ["dataset.max_overlap", [0.1, 0.2, 0.3, 0.4]],
    "+seed=0,1": ["seed", [0, 1]],
    "model=minilm,distilbert": ["model", ["minilm", "distilbert"]],
    "model=glob([minil*,distil*])": ["model", ["distilbert", "minilm"]],
    "model=glob(bert*,exclude=*chinese)": ["model", ["bert_base"]],
    "+recipe=bert_textcls,tabular_mlp": ["recipe", ["bert_textcls", "tabular_mlp"]],
    "+recipe=glob(*)": ["recipe", RECIPES],
    "dataset.train=a.csv,评论.csv": ["dataset.train", ["a.csv", "评论.csv"]],
    "dataset.train=it's.csv,train(1).csv,a b.csv,x=y.csv": ["dataset.train", ["it's.csv", "train(1).csv", "a b.csv", "x=y.csv"]],
    "dataset.train=choice(评论.csv,it's.csv)": ["dataset.train", ["评论.csv", "it's.csv"]],
    "dataset.train=001,002": ["dataset.train", ["001", "002"]],
    "dataset.train='a,b.csv',c.csv": ["dataset.train", ["a,b.csv", "c.csv"]],
    "dataset.train=[a.csv,评论.csv],c.csv": ["dataset.train", [["a.csv", "评论.csv"], "c.csv"]],
    "dataset.columns={text: 内容},{text: b}": ["dataset.columns", [{"text": "内容"}, {"text": "b"}]],
    "trainer.patience=null,3": ["trainer.patience", [None, 3]],
    "trainer.group_by_length=true,false": ["trainer.group_by_length", [True, False]],
}  # fmt: skip


@pytest.mark.parametrize("word", SWEEPS)
def test_a_word_may_mean_many_values(word: str) -> None:
    key, expected = SWEEPS[word]
    data = CSV if key.startswith("dataset.") else []
    assert values(*data, word) == [{key: value} for value in expected]


def test_a_pattern_of_recipes_means_those_of_the_command_mine_included(write: Write) -> None:
    write("recipes/mine.yaml", "# @package _global_\ndefaults: [tabular_mlp, _self_]\nname: mine\n")
    write("recipes/later.yaml", "# @package _global_\ncommand: eval\n")
    found = ["mine", *(name for name in RECIPES if name.startswith("tabular_"))]
    assert values("+recipe=glob([tabular_*,mine,later])") == [{"recipe": name} for name in found]


PLAIN = ["dataset.train=[a.csv,b.csv]", "dataset.train='a,b.csv'", "dataset.columns={text: a, label: b}", "dataset.train=train(1,2).csv"]  # fmt: skip


@pytest.mark.parametrize("word", PLAIN)
def test_a_list_in_brackets_or_quotes_is_one_value(word: str) -> None:
    assert values(*CSV, word, "seed=0,1") == [{"seed": 0}, {"seed": 1}]


def test_all_combinations_in_the_order_of_the_words_and_the_values_arrive() -> None:
    found = jobs("finetune", ["+recipe=bert_textcls", "optimizer.lr=1e-5,3e-5", "name=x", "seed=0,1"], multirun=True)
    assert [tuple(job.values.values()) for job in found] == [(1e-5, 0), (1e-5, 1), (3e-5, 0), (3e-5, 1)]
    assert [(job.config.optimizer.lr, job.config.seed) for job in found] == [(1e-5, 0), (1e-5, 1), (3e-5, 0), (3e-5, 1)]
    assert {job.config.name for job in found} == {"x"}


def test_the_same_configuration_is_one_job() -> None:
    found = jobs("finetune", ["optimizer.lr=1e-5,0.00001,2e-5"], multirun=True)
    assert [(job.values["optimizer.lr"], job.duplicates) for job in found] == [(1e-5, 1), (2e-5, 0)]


WRONG = {
    "seed=interval(0,1)": r"seed=interval\(0,1\) +is a range, which only a search can draw from \(command line\)\. Write search=tpe, or list values",
    "seed=range(0,3,0)": r"is not a valid sweep: range\(\) arg 3 must not be zero",
    "seed=range(0)": "matches no value",
    "model=glob(nosuch*)": "matches no value",
    "seed=range(": r"must be a whole number, got 'range\('",
    "seed=range(1001)": "must give at most 1,000 jobs, got 1,001",
    "seed=range(99999999999)": "must give at most 1,000 jobs",
    "run.dir=a,b": "run.dir +applies to the whole sweep",
    "sweep.jobs=1,2": "sweep.jobs +applies to the whole sweep",
    "seed=3": "needs a key with several values .* for example seed=0,1,2",
    "model=minilm,minil": r"model=minil +no such model \(command line, in model=minil\)\. Did you mean minilm\?",
    "optimizer.lr=1e-5,": "must be a number, got ''",
    "recipe=bert_textcls,tabular_mlp": r"Write \+recipe=bert_textcls",
    "dataset.name=hf_aaaaaaaaaaaaaaaaaaaaaaaa,x": "looks like a secret",
}


@pytest.mark.parametrize("word", WRONG)
def test_what_is_no_sweep_is_refused(word: str) -> None:
    with pytest.raises(UserError) as error:
        jobs("finetune", [word], multirun=True)
    assert re.search(WRONG[word], str(error.value)), error.value


def test_all_problems_of_all_jobs_come_at_once_each_with_its_jobs(llmft: Run, here: Path) -> None:
    words = ("optimizer.lr=1e-5,-3,-4", "seed=0,1", "trainer.epochs=0", "trainer.epoch=3")
    code, _, err = llmft("finetune", "-m", *words)
    assert code == 2
    assert err.splitlines() == [
        "error: 4 problems in this configuration",
        "  trainer.epochs  must be above 0, got 0 (command line)",
        "  trainer.epoch   no such key (command line). Did you mean trainer.epochs?",
        "  optimizer.lr    must be above 0, got -3 (command line, in optimizer.lr=-3 seed=0 and 1 more)",
        "  optimizer.lr    must be above 0, got -4 (command line, in optimizer.lr=-4 seed=0 and 1 more)",
    ]
    assert list(here.iterdir()) == []


OWN = """# @package _global_
defaults: [bert_textcls, _self_]
name: own
hydra:
  {mode}sweeper:
    params:
      optimizer.lr: 1e-5,3e-5
      seed: [0, 1]
"""


def test_a_recipe_may_bring_its_sweep_and_the_command_line_wins(write: Write) -> None:
    write("recipes/own.yaml", OWN.replace("{mode}", "mode: MULTIRUN\n  "))
    write("recipes/asked.yaml", OWN.replace("{mode}", ""))
    four = [{"optimizer.lr": lr, "seed": seed} for lr in (1e-5, 3e-5) for seed in (0, 1)]
    assert [job.values for job in jobs("finetune", ["+recipe=own"], multirun=False)] == four
    assert values("+recipe=asked") == four
    assert [job.values for job in jobs("finetune", ["+recipe=asked"], multirun=False)] == [{}]
    (one, two) = jobs("finetune", ["+recipe=own", "optimizer.lr=1"], multirun=False)
    assert (one.values, two.values, two.config.optimizer.lr) == ({"seed": 0}, {"seed": 1}, 1)
    both = values("+recipe=own,bert_textcls", "seed=5,6")
    assert [tuple(each.values()) for each in both] == [("own", 5, 1e-5), ("own", 5, 3e-5), ("own", 6, 1e-5), ("own", 6, 3e-5), ("bert_textcls", 5), ("bert_textcls", 6)]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ("model.trust_remote_code: true,false", "must be set on the command line"),
        ("run.dir: /tmp/x", "must be inside the working directory"),
        ("recipe: a,b", "is not a key that can be swept"),
        ("+recipe: a,b", "is not a key that can be swept"),
        ("hydra.callbacks: 1,2", "is a key of Hydra itself"),
        ("model: nosuch,minilm", r"model=nosuch +no such model \(hydra.sweeper.params, in model=nosuch\)"),
        ("name: '${oc.env:HOME},x'", "calls a resolver"),
    ],
)
def test_a_sweep_in_a_recipe_is_data_and_nobody_typed_it(params: str, what: str, write: Write) -> None:
    text = f"# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      {params}\n"
    write("recipes/r.yaml", text)
    with pytest.raises(UserError) as error:
        jobs("finetune", ["+recipe=r"], multirun=False)
    assert re.search(what, str(error.value)), error.value


@pytest.mark.parametrize("word", ["optimizer.lr=1e-5,3e-5", "seed=range(3)", "model=minilm,distilbert"])
def test_several_values_without_m_are_answered_with_a_hint(word: str, llmft: Run) -> None:
    code, _, err = llmft("finetune", word)
    assert code == 2
    assert "-m" in err


def test_eval_takes_no_sweep(llmft: Run) -> None:
    code, _, err = llmft("eval", "-m", "run", "dataset=csv")
    assert code == 2
    assert "eval works from one run" in err


def test_cfg_job_shows_every_job(llmft: Run) -> None:
    code, out, _ = llmft("finetune", "--multirun", "seed=4,5", "--cfg", "job")
    assert code == 0
    assert re.findall(r"^(?:--- # )?seed.*", out, re.MULTILINE) == [
        "--- # seed=4",
        "seed: 4",
        "--- # seed=5",
        "seed: 5",
    ]


def test_the_jobs_of_a_sweep_read_the_files_once(write: Callable[[str, str], Path], monkeypatch: Any) -> None:
    """And the next command reads them again."""
    reads: list[str] = []
    plain = sources.read_yaml
    monkeypatch.setattr(sources, "read_yaml", lambda file: reads.append(file.name) or plain(file))

    def planned(lrs: str) -> tuple[list[tuple[str, float]], int]:
        reads.clear()
        found = plan("finetune", ["+recipe=mine", f"optimizer.lr={lrs}"], multirun=True)
        assert isinstance(found, list)
        return [(job.config.name, job.config.optimizer.lr) for job in found], len(reads)

    write("recipes/mine.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nname: first\n")
    few, many = planned("1e-5,1e-4"), planned("1e-5,1e-4,1e-3,1e-2,1e-1")
    assert few[0] == [("first", 1e-5), ("first", 1e-4)]
    assert few[1] == many[1] < 10
    write("recipes/mine.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nname: other\n")
    assert planned("1e-5,1e-4")[0] == [("other", 1e-5), ("other", 1e-4)]
