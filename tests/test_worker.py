"""One of several processes, in this one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft import worker
from llmft.config.load import load
from llmft.data.pipeline import source_digests
from llmft.runs.folder import Run
from llmft.schema.problem import UserError


def test_data_that_changed_since_the_run_began_are_refused(here: Path, write: Callable[[str, str], Path]) -> None:
    rows = "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40))
    write("a.csv", rows)
    words = ["+recipe=bert_textcls", "smoke=true", "dataset=csv", "dataset.train=a.csv", "run.dir=run"]
    run = Run.create(load("finetune", words))
    run.write_json("manifest.json", {"data": source_digests(run.config().dataset)})
    write("a.csv", rows + "one more,1\n")
    with pytest.raises(UserError, match="is not what the run was started with"):
        worker.work(Run.open(here / "run"))
