"""A trained translator beside the simplest one there is: the translation of the most similar training sentence.

    python benchmarks/translation.py RUN

RUN is a run of task=translation. Its rows are read again as its configuration says, with the same splits; the
baseline answers each row with the target of the training row whose source shares most runs of 1 to 4 characters with
it, weighed by TF-IDF. Both are scored by the same sacreBLEU. Prints a line each for validation and test.
"""

import argparse
import json
from pathlib import Path

import yaml
from sklearn.feature_extraction.text import TfidfVectorizer

from llmft import tasks
from llmft.data.pipeline import load
from llmft.metrics.text_metrics import TranslationScores
from llmft.schema.config import Config

BATCH = 500  # rows that are compared with all training rows at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    config = Config.model_validate(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    data = load(config.dataset, tasks.build(config.task))
    scored = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    state = json.loads((run / "model/task.json").read_text(encoding="utf-8"))
    for split in ("validation", "test"):
        if split not in scored:
            continue
        rows = data[split]
        answers = nearest(data["train"]["source"][:], data["train"]["target"][:], rows["source"][:])
        found = TranslationScores(state["bleu_tokenize"]).compute(predictions=answers, references=rows["target"][:])
        for name, numbers in (("nearest neighbor", found), ("the run", scored[split])):
            print(f"{split}, {len(rows):,} rows, {name}: BLEU {numbers['bleu']:.2f}, chrF {numbers['chrf']:.2f}")
        print(f"  {found['bleu_signature']}")


def nearest(sources: list[str], targets: list[list[str]], asked: list[str]) -> list[str]:
    """The target of the most similar source, for each text that is asked."""
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    known = vectors.fit_transform(sources).T.tocsr()
    found: list[str] = []
    for start in range(0, len(asked), BATCH):
        alike = vectors.transform(asked[start : start + BATCH]) @ known
        found += [targets[place][0] for place in alike.toarray().argmax(axis=1)]
    return found


if __name__ == "__main__":
    main()
