"""llmft beside RecBole 1.2.1: processor seconds of an epoch of BPR and SASRec, on MovieLens 100K, by turns.

    make bench-recbole
    python benchmarks/recbole.py --epochs 2

RecBole runs in an environment of its own, .venv/recbole, with the last numpy, pandas, and scipy that it works with; its
wheel has the data (research use, not to be passed on). Both sides have one thread, 64 factors, batches of 2,048 pairs,
and for SASRec 50 positions. RecBole trains SASRec on a row for each prefix of a history, llmft on a window for each
user with the loss at every place: each target once in both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv/recbole/bin/python"
MODELS = {"bpr": "BPR", "sasrec": "SASRec"}
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

THEIRS = """
import json, logging, sys, time
import torch
torch.set_num_threads(1)
load = torch.load
torch.load = lambda *args, **kwargs: load(*args, **{**kwargs, "weights_only": False})
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
logging.disable(logging.CRITICAL)
name, epochs = sys.argv[1], int(sys.argv[2])
options = {"data_path": sys.argv[3], "use_gpu": False, "train_batch_size": 2048, "show_progress": False, "seed": 2020}
options |= {"eval_args": {"order": "TO" if name == "SASRec" else "RO", "split": {"LS": "valid_and_test"}
            if name == "SASRec" else {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "mode": "full"}}
options |= {"train_neg_sample_args": None, "loss_type": "CE"} if name == "SASRec" else {}
config = Config(model=name, dataset="ml-100k", config_dict=options)
init_seed(config["seed"], True)
dataset = create_dataset(config)
train, *_ = data_preparation(config, dataset)
model = get_model(name)(config, train.dataset)
trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
seconds = []
for epoch in range(epochs):
    start = time.process_time()
    trainer._train_epoch(train, epoch)
    seconds.append(time.process_time() - start)
print("SECONDS", json.dumps(seconds))
"""

OURS = """
import json, sys, time
import llmft
from llmft.training import epochs as own
from llmft.training.loop import Trainer
recipe, epochs, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
seconds = []
def timed(call):
    def run(*args, **kwargs):
        start = time.process_time()
        found = call(*args, **kwargs)
        seconds.append(time.process_time() - start)
        return found
    return run
own._epoch = timed(own._epoch)
Trainer.training_step = timed(Trainer.training_step)
words = ["dataset.split.by=ratio"] if recipe == "recsys_bpr" else []
llmft.finetune(f"+recipe={recipe}", "dataset=atomic", f"dataset.train={folder}/ml-100k/ml-100k.inter", *words,
               f"trainer.epochs={epochs}", "hardware.precision=fp32", f"run.dir={sys.argv[4]}")
each = len(seconds) // epochs
print("SECONDS", json.dumps([sum(seconds[n * each : (n + 1) * each]) for n in range(epochs)]))
"""


def seconds(python: Path | str, code: str, *words: str) -> list[float]:
    """The processor seconds of each epoch that a program prints."""
    done = subprocess.run(
        [str(python), "-c", code, *words], capture_output=True, text=True, env={**os.environ, **THREADS}, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("SECONDS ")]
    if not found:
        raise SystemExit(done.stderr[-3000:])
    return list(map(float, json.loads(found[-1].removeprefix("SECONDS "))))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    if not PEER.exists():
        raise SystemExit(f"there is no {PEER}: make bench-recbole installs it")
    data = next((PEER.parents[1] / "lib").glob("python*/site-packages/recbole/dataset_example"))
    print("| epoch of | RecBole 1.2.1 | llmft | ratio |\n|---|---|---|---|")
    for name in options.models:
        theirs, ours = [], []
        for _ in range(2):  # by turns, so that other load on the machine meets both
            theirs += seconds(PEER, THEIRS, MODELS[name], str(options.epochs), str(data))
            with tempfile.TemporaryDirectory() as folder:
                run = str(Path(folder) / "run")
                ours += seconds(sys.executable, OURS, f"recsys_{name}", str(options.epochs), str(data), run)
        one, other = median(theirs), median(ours)
        print(f"| {MODELS[name]} | {one:.3f} s | {other:.3f} s | {one / other:.1f} |", flush=True)


if __name__ == "__main__":
    main()
