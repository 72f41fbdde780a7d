"""What a mistake looks like: every problem at once, with its place and the nearest right name."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

MINE = """# @package _global_
defaults:
  - bert_textcls

trainer:
  batch_size: 8
  epochs: many
"""


def test_the_example_of_the_readme(llmft: Run, write: Callable[[str, str], Path]) -> None:
    write("recipes/mine.yaml", MINE)
    code, out, err = llmft("finetune", "+recipe=mine", "optimizer.lrr=1")
    assert code == 2
    assert out == ""
    assert err == (
        "error: 2 problems in this configuration\n"
        "  optimizer.lrr   no such key (command line). Did you mean optimizer.lr?\n"
        "  trainer.epochs  must be a number, got 'many' (recipes/mine.yaml:7)\n"
    )


CASES = [
    ("model=minilmm", "model=minilmm  no such model (command line). Did you mean minilm?"),
    ("+recipe=bert_textcl", "no such recipe (command line). Did you mean bert_textcls?"),
    ("recipe=bert_textcls", "needs a plus sign (command line). Write +recipe=bert_textcls."),
    ("dataset.val=x.csv", "dataset.val  no such key (command line). Did you mean dataset.validation?"),
    ("optimzer.lr=1", "optimzer.lr  no such key (command line). Did you mean optimizer.lr?"),
    ("++extra={a:1}", "extra  no such key (command line)"),
    ("task.beta=1", "task.beta  no such key (command line). It is a key of task=preference."),
    ("model=bert", "model=bert  no such model (command line). Did you mean bert_base or bert_base_chinese?"),
    ("trainer.lr=1", "trainer.lr  no such key (command line). Did you mean optimizer.lr?"),
    ("optimizer.learning_rate=1", "optimizer.learning_rate  no such key (command line). Did you mean optimizer.lr?"),
    ("++max_seq_length=64", "Did you mean task.max_length?"),
    ("task.label_separator=;", "Did you mean task.separator?"),
    (
        "resume=outputs/a",
        "must be true or false, got 'outputs/a' (command line). To go on with a run: run.dir=outputs/a resume=true.",
    ),
    ("task=semantic_segmentation task.labels=[a]", "task.labels  must be a list of at least 2 values, got ['a']"),
    (
        "task=semantic_segmentation task.colors=[red,blue]",
        "task.colors.0  must be a color such as '#804080', got 'red'",
    ),
    (
        "task=image_classification task.size=[32,32,3]",
        "task.size  must be a whole number or a list of at most 2 values, got [32, 32, 3]",
    ),
    ("task=image_classification task.mean=[]", "task.mean  must be a list of at least 1 value, got []"),
    ("model.sha256=1", "model.sha256  must be"),
    ("optimizer.lr=-1", "optimizer.lr  must be above 0, got -1 (command line)"),
    ("trainer.batch_size=2.5", "trainer.batch_size  must be a whole number or 'all', got 2.5 (command line)"),
    ("hardware.device=tpu", "must be one of 'auto', 'cuda', 'mps' or 'cpu', got 'tpu' (command line)"),
    ("trainer.eval_every=often", "must be 'epoch' or a whole number, got 'often' (command line)"),
    (
        "trainer.packing=true",
        "trainer.packing  needs a loss that is a mean over tokens, which text_classification does not have (command line). Leave it out",
    ),
    ("trainer.eval_every=0", "trainer.eval_every  must be at least 1, got 0 (command line)"),
    (
        "model=bert-base-uncased",
        "no such model (command line). Write model=bert_base. For a hub id or a folder, write model.path=bert-base-uncased.",
    ),
    (
        "model=google/my-bert",
        "no such model (command line). For a hub id or a folder, write model.path=google/my-bert.",
    ),
    ("seed=-1", "seed  must be at least 0, got -1 (command line)"),
    ("name=../out", "must be a name: letters, digits"),
    ("name=.hidden", "must be a name: letters, digits"),
    ("name=a/b", "must be a name: letters, digits"),
    ("dataset=csv", "dataset.train  must be given"),
    ("dataset=hub", "dataset.path  must be given"),
    ("model.vocab_size=9", "model.vocab_size  no such key (command line). Did you mean model.tokenizer.size?"),
    ("model.tokenizer.kind=words", "must be one of 'wordpiece', 'bpe', 'unigram' or 'characters', got 'words'"),
    (
        "model.path=m model.tokenizer.size=1234",
        "model.tokenizer.size  is for training a tokenizer, and model.path already has one (command line)",
    ),
    ("model.path=m model.tokenizer.lowercase=false", "model.tokenizer.lowercase  is for training a tokenizer"),
    ("model.tokenizer.size=3", "model.tokenizer.size  must be at least 16, got 3 (command line)"),
    (
        "dataset.unit=line",
        "dataset.unit  is only for dataset=text; with dataset=csv each row is a document (command line)",
    ),
    ("dataset=text dataset.train=a.txt dataset.streaming=true", "raw text is never held in memory anyway"),
    ("dataset=pydocs dataset.folds=3", "dataset.folds  needs all rows in memory, and raw text is not (command line)"),
    (
        "dataset=csv dataset.train=a.csv dataset.validation=b.csv dataset.streaming=true",
        "dataset.test  must be given: streamed rows cannot be split into shares (default). "
        "Name a file, or write dataset.split.test=0 for no such split.",
    ),
    (
        "dataset=hub dataset.path=a/b dataset.streaming=true",
        "dataset.streaming  dataset=hub can only be read as a whole (command line). "
        "csv, jsonl, and parquet files can be streamed: run hf download --repo-type dataset, then dataset=parquet.",
    ),
    ("dataset.split={validation:0.5,test:0.5}", "dataset.split  must leave rows for training"),
    (
        "model=random model.init=pretrained",
        "model.init  must be random for an architecture without a path (command line)",
    ),
    (
        "trainer.save_every=5",
        "trainer.save_every  must be a multiple of trainer.eval_every=epoch, got 5 (command line). The best checkpoint is selected from evaluated ones: write trainer.eval_every=5 too.",
    ),
    ("trainer.eval_every=4 trainer.save_every=6", "must be a multiple of trainer.eval_every=4, got 6"),
    ("trainer.metric_for_best=accuracyy", "must be a metric, got accuracyy"),
    (
        "dataset=reviews dataset.train=mine.csv",
        "dataset.train  is not part of dataset=reviews (command line). Leave out dataset=.",
    ),
    (
        "dataset.format=csv dataset.train=mine.csv",
        "dataset.train  is not part of dataset=reviews (command line). Leave out dataset.format, or write dataset= too.",
    ),
    ("optimizer.betas=[2,3]", "optimizer.betas.0  must be below 1, got 2"),
    (
        "optimizer.momentum=0.5",
        "optimizer.momentum  is not used by adamw (command line). It is used by sgd, rmsprop and muon.",
    ),
    (
        "optimizer=sgd optimizer.betas=[0.9,0.99]",
        "optimizer.betas  is not used by sgd (command line). It is used by adam, adamw, lion and muon.",
    ),
    ("scheduler=plateau scheduler.warmup_steps=5", "scheduler.warmup_steps  is not used by plateau (command line)"),
    (
        "scheduler.gamma=0.5",
        "scheduler.gamma  is not used by linear (command line). It is used by step and exponential.",
    ),
    ("scheduler=step scheduler.every=0", "scheduler.every  must be at least 1, got 0 (command line)"),
    (
        "scheduler=plateau dataset.split.validation=0 dataset=csv dataset.train=a.csv",
        "plateau needs a validation split, and there is none",
    ),
    (
        "trainer.batch_size=all trainer.accumulation=2",
        "must be 1 with trainer.batch_size=all, which puts every row in one step",
    ),
    ("trainer.batch_size=every", "must be a whole number or 'all', got 'every' (command line)"),
    ("trainer.batch_size=0", "must be at least 1 or 'all', got 0 (command line)"),
    (
        "model.freeze=encoder model.unfreeze=1",
        "model.unfreeze  has no effect: model.freeze=encoder keeps all layers frozen",
    ),
    (
        "trainer.batch_size=all dataset=csv dataset.train=a.csv dataset.validation=b.csv dataset.streaming=true",
        "trainer.batch_size  must be a number with dataset.streaming=true",
    ),
    ("model.init=glorot", "must be one of 'pretrained', 'random', 'xavier_uniform'"),
    ("model.dropout=1", "model.dropout  must be below 1, got 1 (command line)"),
    ("optimizer.lr_scheduler_type=cosine", "Did you mean scheduler.name?"),
    ("optimizer.nesterov=true optimizer.momentum=0", "optimizer.nesterov  needs a momentum above 0"),
    ("dataset.encoding=base64", "must be an encoding, got base64"),
    ("task.labels=[a,b,a]", "must list two labels or more, each once"),
    ("task.separator=;", "task.separator  is only used with task.problem=multi_label (command line). Leave it out."),
    ("task.focal_gamma=3", "task.focal_gamma  is only used with task.loss=focal (command line). Leave it out."),
    ("task.labels=[a]", "must list two labels or more, each once"),
    ("dataset.encoding=utf-9", "dataset.encoding  must be an encoding, got utf-9 (command line)"),
    ("hydra.run.dir=x", "hydra.run.dir  is a key of Hydra itself"),
    ("task.name=nonsense", "no task called nonsense"),
    ("model=minilm,random", "model=minilm,random  names several options; a run takes one (command line)"),
    ("trainer=3", "trainer  must be the name of one option"),
    ("--verbose", "--verbose  no such flag (command line)"),
    ("--cfg all", "--cfg all  must be job or diff"),
    ("missing.yaml", "missing.yaml  must be a recipe, got a file that does not exist (command line)"),
    (
        "sweep.gpus=[0,1] sweep.jobs=1",
        "sweep.jobs  does not work with sweep.gpus, which runs 2 jobs at a time, one on each GPU (command line). Leave out one of the two.",
    ),
    ("adapter=lorra", "adapter=lorra  no such adapter (command line). Did you mean lora?"),
    (
        "adapter=lora adapter.prefix_length=3",
        "adapter.prefix_length  is not used by adapter=lora (command line). It uses target_modules, r, alpha, dropout.",
    ),
    (
        "adapter.r=4",
        "adapter.r  is not used by adapter=none (command line). Write adapter=lora, or another adapter, before it.",
    ),
    (
        "adapter=ia3 model.freeze=encoder",
        "model.freeze  adapter=ia3 already freezes all weights except for its own and the head's (command line)",
    ),
    (
        "adapter=lora model.unfreeze=1",
        "model.unfreeze  adapter=lora already freezes all weights except for its own and",
    ),
    (
        "adapter=lora model=random",
        "model.init  must be pretrained with adapter=lora, which would leave random weights untrained",
    ),
    ("adapter=lora adapter.target_modules=query", "must be a list or 'all-linear', got 'query' (command line)"),
    (
        "hardware.strategy=fsdp",
        "hardware.strategy  fsdp needs several processes, got one (command line). Write hardware.processes=2",
    ),
    (
        "hardware.strategy=fsdp hardware.processes=2 adapter=lora",
        "hardware.strategy  fsdp divides the trained weights among processes, and with an adapter there are few (command line). Leave it out.",
    ),
    (
        "hardware.strategy=fsdp hardware.processes=2 optimizer.name=muon",
        "optimizer.name  muon needs whole matrices, and fsdp divides them among processes (command line). Write optimizer=adamw.",
    ),
    ("hardware.strategy=fsdp hardware.processes=2 model.freeze=encoder", "with model.freeze there are few"),
    (
        "hardware.strategy=fsdp hardware.processes=2 model.unfreeze=1",
        "hardware.strategy  fsdp divides the trained weights once, and model.unfreeze changes them during training",
    ),
    ("hardware.strategy=deepspeed hardware.processes=2 resume=true", "checkpoints of deepspeed contain pickled code"),
    ("hardware.zero_stage=1", "hardware.zero_stage  is not used by hardware.strategy=ddp (command line)"),
    ("hardware.nodes=2 hardware.processes=3", "hardware.processes  must be a multiple of hardware.nodes=2, got 3"),
    (
        "trainer.gradient_checkpointing=true model.freeze=encoder",
        "trainer.gradient_checkpointing  has no effect: no gradient passes through a frozen encoder (command line)",
    ),
    (
        "trainer.gradient_checkpointing=true adapter=prefix",
        "does not work with adapter=prefix, which needs the stored activations (command line)",
    ),
    ("model.config=3", "model.config  must be {KEY: VALUE, ...}, got 3 (command line)"),
    (
        "dataset.header=text,label",
        "dataset.header  must be a list, got 'text,label' (command line). Write dataset.header=[text,label].",
    ),
    (
        "adapter=lora adapter.target_modules=q",
        "a list or 'all-linear', got 'q' (command line). Write adapter.target_modules=[q].",
    ),
]


@pytest.mark.parametrize(("words", "text"), CASES)
def test_a_mistake_is_explained(llmft: Run, words: str, text: str) -> None:
    code, out, err = llmft("finetune", *words.split(" "))
    assert (code, out) == (2, "")
    assert text in err
    assert "Traceback" not in err


def test_all_problems_come_at_once(llmft: Run) -> None:
    code, _, err = llmft(
        "finetune", "model=nope", "trainer.epochs=x", "optimizer.lrr=3", "name=a/b", "task.max_lenght=4"
    )
    assert code == 2
    assert "5 problems" in err


def test_nothing_is_written_for_a_mistake(llmft: Run, here: Path) -> None:
    llmft("finetune", "+recipe=bert_textcls", "optimizer.lrr=3")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", [["finetun"], ["fine-tune"]])
def test_an_unknown_command_names_the_nearest(llmft: Run, words: list[str]) -> None:
    code, _, err = llmft(*words)
    assert code == 2
    assert "finetune" in err


BROKEN = [
    ("a: [1", "is not YAML"),
    ("# @package _global_\n- a\n", "must contain lines of key: value"),
    (b"# @package _global_\nname: \xff\xfe\n", "is not UTF-8 text"),
    ("# @package _global_\nname: " + "x" * 300_000, "must be at most 256 kB"),
    ("# @package _global_\nname: a\nname: b\n", "is not YAML"),
    ("# @package _global_\nname: a\n---\nname: b\n", "is not YAML"),
    ("# @package _global_\nname: !!python/name:os.system\n", "is not YAML"),
    ("# @package _global_\nname: *nobody\n", "is not YAML"),
    ("# @package _global_\nname: a\0b\n", "is not YAML"),
    ("# @package _global_\ndefaults: x\n", "'x' names no option"),
    ("# @package _global_\ndefaults: [3]\n", "'3' names no option"),
    ("# @package _global_\ndefaults: [{a: b, c: d}]\n", "names no option"),
    ("# @package _global_\ncommand: eval\n", "this recipe is for llmft eval"),
    (
        "# @package _global_\na: &a [1,1]\nb: &b [" + ",".join(["*a"] * 9) + "]\nc: [" + ",".join(["*b"] * 60) + "]\n",
        "must have at most 50 YAML aliases, got 69",
    ),
]


def test_a_recipe_that_names_itself_is_refused(llmft: Run, write: Callable[[str, str], Path]) -> None:
    write("recipes/bert_textcls.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\n")
    code, _, err = llmft("finetune", "+recipe=bert_textcls")
    assert code == 2
    assert "includes itself" in err


@pytest.mark.parametrize(("text", "what"), BROKEN)
def test_a_broken_recipe_is_named(llmft: Run, write: Callable[[str, str], Path], text: str, what: str) -> None:
    write("recipes/broken.yaml", text)
    code, _, err = llmft("finetune", "+recipe=broken")
    assert code == 2
    assert "recipes/broken.yaml" in err
    assert what in err
