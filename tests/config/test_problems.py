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
        "  trainer.epochs  'many' is not a number (recipes/mine.yaml:7)\n"
    )


CASES = [
    ("model=minilmm", "model=minilmm  no such model (command line). Did you mean minilm?"),
    ("+recipe=bert_textcl", "no such recipe (command line). Did you mean bert_textcls?"),
    ("recipe=bert_textcls", "needs a plus sign (command line). Write +recipe=bert_textcls."),
    ("trainer.lr=1", "trainer.lr  no such key (command line). Did you mean optimizer.lr?"),
    ("optimizer.learning_rate=1", "optimizer.learning_rate  no such key (command line). Did you mean optimizer.lr?"),
    ("++max_seq_length=64", "Did you mean task.max_length?"),
    ("optimizer.lr=-1", "optimizer.lr  -1 is not above 0 (command line)"),
    ("trainer.batch_size=2.5", "trainer.batch_size  2.5 is not a whole number or 'all' (command line)"),
    ("hardware.device=tpu", "'tpu' is not one of 'auto', 'cuda', 'mps' or 'cpu' (command line)"),
    ("trainer.eval_every=often", "'often' is not 'epoch' or a whole number (command line)"),
    (
        "trainer.packing=true",
        "trainer.packing  the loss of text_classification is not one of single tokens (command line). Leave it out",
    ),
    ("trainer.eval_every=0", "trainer.eval_every  0 is not at least 1 (command line)"),
    (
        "model=bert-base-uncased",
        "no such model (command line). Write `model=bert_base`, or for an id of the hub or a folder `model.path=bert-base-uncased`.",
    ),
    (
        "model=google/my-bert",
        "no such model (command line). Write for an id of the hub or a folder `model.path=google/my-bert`.",
    ),
    ("seed=-1", "seed  -1 is not at least 0 (command line)"),
    ("name=../out", "'../out' is not a name"),
    ("name=.hidden", "'.hidden' is not a name"),
    ("name=a/b", "'a/b' is not a name"),
    ("dataset=csv", "dataset.train  must be given"),
    ("dataset=hub", "dataset.path  must be given"),
    ("model.vocab_size=9", "model.vocab_size  no such key (command line). Did you mean model.tokenizer.size?"),
    ("model.tokenizer.kind=words", "'words' is not one of 'wordpiece', 'bpe', 'unigram' or 'characters'"),
    (
        "model.path=m model.tokenizer.size=1234",
        "model.tokenizer.size  is for a tokenizer trained here, and model.path has one (command line)",
    ),
    ("model.path=m model.tokenizer.lowercase=false", "model.tokenizer.lowercase  is for a tokenizer trained here"),
    ("model.tokenizer.size=3", "model.tokenizer.size  3 is not at least 16 (command line)"),
    ("dataset.unit=line", "dataset.unit  is for dataset=text; a row of dataset=csv is a document (command line)"),
    ("dataset=text dataset.train=a.txt dataset.streaming=true", "raw text is never held in memory as it is"),
    ("dataset=pydocs dataset.folds=3", "dataset.folds  folds are taken from rows in memory (command line)"),
    (
        "dataset=csv dataset.train=a.csv dataset.validation=b.csv dataset.streaming=true",
        "dataset.test  must be given: no share can be taken of rows that are streamed (default). "
        "Name a file, or write dataset.split.test=0 to do without.",
    ),
    (
        "dataset=hub dataset.path=a/b dataset.streaming=true",
        "dataset.streaming  dataset=hub is read as a whole (command line). "
        "Streamed are csv, jsonl and parquet files: `hf download --repo-type dataset`, then dataset=parquet.",
    ),
    ("dataset.split={validation:0.5,test:0.5}", "dataset.split  leaves no rows for training"),
    (
        "model=random model.init=pretrained",
        "model.init  weights of an architecture alone are random (command line)",
    ),
    (
        "trainer.save_every=5",
        "trainer.save_every  5 is not a multiple of trainer.eval_every=epoch (command line). The best checkpoint is picked among those that were scored: write trainer.eval_every=5, too.",
    ),
    ("trainer.eval_every=4 trainer.save_every=6", "6 is not a multiple of trainer.eval_every=4"),
    ("trainer.metric_for_best=accuracyy", "no metric called accuracyy"),
    (
        "dataset=reviews dataset.train=mine.csv",
        "dataset.train  is not part of dataset=reviews (command line). Leave out the choice of dataset.",
    ),
    ("optimizer.betas=[2,3]", "optimizer.betas.0  2 is not below 1"),
    (
        "optimizer.momentum=0.5",
        "optimizer.momentum  adamw does not read it (command line). sgd, rmsprop and muon do.",
    ),
    (
        "optimizer=sgd optimizer.betas=[0.9,0.99]",
        "optimizer.betas  sgd does not read it (command line). adam, adamw, lion and muon do.",
    ),
    ("scheduler=plateau scheduler.warmup_steps=5", "scheduler.warmup_steps  plateau does not read it (command line)"),
    ("scheduler.gamma=0.5", "scheduler.gamma  linear does not read it (command line). step and exponential do."),
    ("scheduler=step scheduler.every=0", "scheduler.every  0 is not at least 1 (command line)"),
    (
        "scheduler=plateau dataset.split.validation=0 dataset=csv dataset.train=a.csv",
        "plateau follows the scores of the validation split, and there is none",
    ),
    ("trainer.batch_size=all trainer.accumulation=2", "trainer.batch_size=all is every row in one step already"),
    ("trainer.batch_size=every", "'every' is not a whole number or 'all' (command line)"),
    ("trainer.batch_size=0", "0 is not at least 1 or 'all' (command line)"),
    ("model.freeze=encoder model.unfreeze=1", "model.unfreeze  model.freeze=encoder keeps all layers frozen"),
    (
        "trainer.batch_size=all dataset=csv dataset.train=a.csv dataset.validation=b.csv dataset.streaming=true",
        "trainer.batch_size  the rows of a step are shuffled together in memory",
    ),
    ("model.init=glorot", "'glorot' is not one of 'pretrained', 'random', 'xavier_uniform'"),
    ("model.dropout=1", "model.dropout  1 is not below 1 (command line)"),
    ("optimizer.lr_scheduler_type=cosine", "Did you mean scheduler.name?"),
    ("optimizer.nesterov=true optimizer.momentum=0", "optimizer.nesterov  looks along a momentum, and there is none"),
    ("dataset.encoding=base64", "no encoding called base64"),
    ("task.labels=[a,b,a]", "needs two labels or more, each once"),
    ("task.separator=;", "task.separator  is read with task.problem=multi_label alone (command line). Leave it out."),
    ("task.focal_gamma=3", "task.focal_gamma  is read with task.loss=focal alone (command line). Leave it out."),
    ("task.labels=[a]", "needs two labels or more, each once"),
    ("dataset.encoding=utf-9", "dataset.encoding  no encoding called utf-9 (command line)"),
    ("hydra.run.dir=x", "hydra.run.dir  is Hydra's own"),
    ("task.name=nonsense", "no task called nonsense"),
    ("model=minilm,random", "model=minilm,random  names several options; a run takes one (command line)"),
    ("trainer=3", "trainer  takes the name of one option"),
    ("--verbose", "--verbose  no such flag (command line)"),
    ("--cfg all", "--cfg all  shows no such part"),
    ("missing.yaml", "missing.yaml  no such file (command line)"),
    (
        "sweep.gpus=[0,1] sweep.jobs=1",
        "sweep.jobs  sweep.gpus means 2 at a time, one on each (command line). Leave out one of the two.",
    ),
    ("adapter=lorra", "adapter=lorra  no such adapter (command line). Did you mean lora?"),
    (
        "adapter=lora adapter.prefix_length=3",
        "adapter.prefix_length  is not read by adapter=lora (command line). It reads target_modules, r, alpha, dropout.",
    ),
    ("adapter.r=4", "adapter.r  is not read by adapter=none (command line). Write adapter=lora or another before it."),
    (
        "adapter=ia3 model.freeze=encoder",
        "model.freeze  adapter=ia3 leaves all weights as they are but its own and those of the head (command line)",
    ),
    ("adapter=lora model.unfreeze=1", "model.unfreeze  adapter=lora leaves all weights as they are but its own and"),
    ("adapter=lora model=random", "model.init  adapter=lora would leave the random weights random"),
    ("adapter=lora adapter.target_modules=query", "'query' is not a list or 'all-linear' (command line)"),
    (
        "hardware.strategy=fsdp",
        "hardware.strategy  fsdp spreads over processes, and there is one (command line). Write hardware.processes=2",
    ),
    (
        "hardware.strategy=fsdp hardware.processes=2 adapter=lora",
        "hardware.strategy  fsdp spreads what trains, and with an adapter that is little (command line). Leave it out.",
    ),
    (
        "hardware.strategy=fsdp hardware.processes=2 optimizer.name=muon",
        "optimizer.name  muon turns whole matrices, and fsdp keeps parts of them (command line). Write optimizer=adamw.",
    ),
    ("hardware.strategy=fsdp hardware.processes=2 model.freeze=encoder", "with model.freeze that is little"),
    (
        "hardware.strategy=fsdp hardware.processes=2 model.unfreeze=1",
        "hardware.strategy  fsdp shares out what trains before training, and with model.unfreeze that changes",
    ),
    ("hardware.strategy=deepspeed hardware.processes=2 resume=true", "the checkpoints of deepspeed hold code"),
    ("hardware.zero_stage=1", "hardware.zero_stage  is not read by hardware.strategy=ddp (command line)"),
    ("hardware.nodes=2 hardware.processes=3", "hardware.processes  3 cannot be spread over 2 nodes evenly"),
    (
        "trainer.gradient_checkpointing=true model.freeze=encoder",
        "trainer.gradient_checkpointing  no gradient goes through a frozen encoder (command line)",
    ),
    ("trainer.gradient_checkpointing=true adapter=prefix", "adapter=prefix needs what the layers keep (command line)"),
    ("model.config=3", "model.config  3 is not a table (command line)"),
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
    ("# @package _global_\n- a\n", "holds no `key: value` lines"),
    (b"# @package _global_\nname: \xff\xfe\n", "is not UTF-8 text"),
    ("# @package _global_\nname: " + "x" * 300_000, "is larger than 256 kB"),
    ("# @package _global_\nname: a\nname: b\n", "is not YAML"),
    ("# @package _global_\nname: a\n---\nname: b\n", "is not YAML"),
    ("# @package _global_\nname: !!python/name:os.system\n", "is not YAML"),
    ("# @package _global_\nname: *nobody\n", "is not YAML"),
    ("# @package _global_\nname: a\0b\n", "is not YAML"),
    ("# @package _global_\ndefaults: x\n", "'x' names no option"),
    ("# @package _global_\ndefaults: [3]\n", "'3' names no option"),
    ("# @package _global_\ndefaults: [{a: b, c: d}]\n", "names no option"),
    ("# @package _global_\ncommand: eval\n", "this recipe is for `llmft eval`"),
    (
        "# @package _global_\na: &a [1,1]\nb: &b [" + ",".join(["*a"] * 9) + "]\nc: [" + ",".join(["*b"] * 60) + "]\n",
        "repeats itself by 69 aliases",
    ),
]


def test_a_recipe_that_names_itself_is_refused(llmft: Run, write: Callable[[str, str], Path]) -> None:
    write("recipes/bert_textcls.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\n")
    code, _, err = llmft("finetune", "+recipe=bert_textcls")
    assert code == 2
    assert "names itself" in err


@pytest.mark.parametrize(("text", "what"), BROKEN)
def test_a_broken_recipe_is_named(llmft: Run, write: Callable[[str, str], Path], text: str, what: str) -> None:
    write("recipes/broken.yaml", text)
    code, _, err = llmft("finetune", "+recipe=broken")
    assert code == 2
    assert "recipes/broken.yaml" in err
    assert what in err
