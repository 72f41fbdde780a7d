"""What llmft/training/loop.py needs of transformers' Trainer and of accelerate, most of it private, name by name.

Runs against the pinned and against the oldest supported transformers (`.ci/run`). The tables say what is needed; the last
tests say that they are complete, by the syntax tree of our file.
"""

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import accelerate
import pytest
import transformers
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from llmft.training import callbacks, loop

# Overridden methods of transformers.Trainer, each with the parameters that we take or pass on by name or place.
OVERRIDDEN = {
    "_get_train_sampler": ["train_dataset"],
    "create_optimizer": ["model"],  # after the model was sharded, the one to look for weights in
    "create_scheduler": ["num_training_steps", "optimizer"],
    "floating_point_ops": ["inputs"],
    "get_batch_samples": [],  # whatever it gets is passed on
    "compute_loss": ["model", "inputs"],
    "training_step": [],
    "_maybe_log_save_evaluate": [],
    "evaluate": [],
    "_determine_best_metric": ["metrics", "trial"],
    "autocast_smart_context_manager": ["cache_enabled"],
    "_save_optimizer_and_scheduler": ["output_dir"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "save_model": ["output_dir", "_internal_call"],
    "_save_checkpoint": ["model", "trial"],
}
CALLED = {"add_callback": ["callback"], "log": ["logs"]}
# Attributes of an instance that we read or set.
ATTRIBUTES = {
    *("accelerator", "args", "callback_handler", "control", "lr_scheduler", "model", "optimizer", "state"),
    *("_created_lr_scheduler", "is_deepspeed_enabled", "is_fsdp_enabled", "model_accepts_loss_kwargs", "train_dataset"),
}
OF_ARGUMENTS = {"_n_gpu", "device", "fsdp_plugin_args", "n_gpu", "should_save"}
OF_STATE = {"best_global_step", "global_step", "log_history", "max_steps"}
OF_CONTROL = {"should_save", "should_training_stop"}
OF_PLUGIN = {"mixed_precision_policy", "transformer_cls_names_to_wrap"}


@cache
def tree_of(cls: type) -> ast.Module:
    return ast.parse(inspect.getsource(cls))


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def attributes(tree: ast.AST, store: bool = False) -> set[str]:
    """Names X of `self.X`; `store`: of those that are assigned."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and own(node.value) and (not store or isinstance(node.ctx, ast.Store))
    }


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_is_there_and_takes_what_we_pass(name: str) -> None:
    method = getattr(transformers.Trainer, name, None)
    assert method, f"transformers.Trainer has no {name}"
    assert set(OVERRIDDEN[name]) <= parameters(method), f"{name}{inspect.signature(method)}"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_transformers_still_calls_it_and_ours_takes_its_arguments(name: str) -> None:
    """An override that nobody calls any more would be left out in silence."""
    tree, ours = tree_of(transformers.Trainer), inspect.signature(getattr(loop.Trainer, name))
    assert name in attributes(tree), f"transformers.Trainer calls {name} no more"
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and own(call.func.value):
            starred = any(isinstance(value, ast.Starred) for value in call.args)
            if call.func.attr == name and not starred:
                ours.bind(None, *call.args, **{key.arg: key.value for key in call.keywords if key.arg})


@pytest.mark.parametrize("name", CALLED)
def test_a_called_method_is_there(name: str) -> None:
    assert set(CALLED[name]) <= parameters(getattr(transformers.Trainer, name, lambda: None)), name


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_an_attribute_is_there(name: str) -> None:
    found = attributes(tree_of(transformers.Trainer), store=True)
    assert name in found or hasattr(transformers.Trainer, name), f"transformers.Trainer has no {name}"


def test_arguments_state_and_control_are_there() -> None:
    arguments = transformers.TrainingArguments
    assert {n for n in OF_ARGUMENTS if not hasattr(arguments, n)} <= attributes(tree_of(arguments), store=True)
    assert parameters(transformers.TrainerState) >= OF_STATE
    assert parameters(transformers.TrainerControl) >= OF_CONTROL


def test_the_keys_of_the_arguments_are_there() -> None:
    tree = ast.parse(inspect.getsource(loop.training_arguments))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (made,) = (call for call in calls if getattr(call.func, "id", "") == "TrainingArguments")
    given = {key.arg for key in made.keywords if key.arg}
    given |= {
        "deepspeed",
        "fsdp",
        "fsdp_config",
        *(f"{a}_{b}" for a in ("eval", "save") for b in ("steps", "strategy")),
    }
    assert given - parameters(transformers.TrainingArguments) == set()


def test_callbacks_answer_events_that_there_are() -> None:
    ours = [cls for cls in vars(callbacks).values() if isinstance(cls, type) and cls.__module__ == callbacks.__name__]
    answered = {name for cls in ours for name in vars(cls) if name.startswith("on_")}
    assert answered - set(dir(transformers.TrainerCallback)) == set()
    assert "on_step_end" in answered


def test_what_is_changed_inside_of_accelerate_is_there() -> None:
    """See `use_fsdp`: on processors alone accelerate would drop the plugin."""
    assert {"MULTI_CPU", "FSDP"} <= set(DistributedType.__members__)
    assert parameters(FullyShardedDataParallelPlugin) >= OF_PLUGIN
    assert {"num_processes", "mixed_precision"} <= set(dir(accelerate.Accelerator))
    state = accelerate.state.AcceleratorState
    assert {"fsdp_plugin", "distributed_type"} <= attributes(tree_of(state), store=True) | set(dir(state))


def test_the_tables_are_complete() -> None:
    """Each method, attribute and call of our Trainer is its own, or stands in a table."""
    tree, base = tree_of(loop.Trainer), set(dir(transformers.Trainer))
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert (methods & base) - {"__init__"} == set(OVERRIDDEN)
    ours = {"config", "task", "splits", "folder", "clock", "signals", "watchdog", "mean_loss_weight", "last", "best"}
    assert attributes(tree) - ours - (methods - base) == ATTRIBUTES | CALLED.keys()


@pytest.mark.parametrize(
    ("owner", "names"), [("args", OF_ARGUMENTS - {"_n_gpu", "n_gpu"}), ("state", OF_STATE), ("control", OF_CONTROL)]
)
def test_the_tables_of_parts_are_complete(owner: str, names: set[str]) -> None:
    found = {
        node.attr
        for node in ast.walk(tree_of(loop.Trainer))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and own(node.value.value)
        and node.value.attr == owner
    }
    assert found == names


def test_the_oldest_transformers_that_is_allowed_is_the_one_that_is_tried() -> None:
    root = Path(__file__).parents[2]
    floor = re.search(r'"transformers>=([\d.]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"))
    tried = re.search(r"transformers==([\d.]+)", (root / ".ci/oldest.txt").read_text(encoding="utf-8"))
    assert floor and tried
    assert tried[1].removesuffix(".0") == floor[1].removesuffix(".0")


def test_only_one_file_overrides_the_trainer() -> None:
    files = Path(loop.__file__).parents[1].rglob("*.py")
    assert [file.name for file in files if "(transformers.Trainer)" in file.read_text(encoding="utf-8")] == ["loop.py"]
