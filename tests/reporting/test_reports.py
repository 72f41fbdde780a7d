"""The report and the card, as they are read."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from llmft.reporting.charts import Line, chart, ticks
from llmft.reporting.data_facts import interval
from llmft.reporting.reports import write_reports
from llmft.runs.folder import Run as Folder
from llmft.schema.config import Config
from llmft.tasks import build

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
EVIL = "<script>alert('x')</script> & \"quoted\" tavo"


class Page(HTMLParser):
    """Tags with their attributes, and that every one that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "circle", "line", "polyline", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "line", "polyline", "rect", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def run(llmft: Run, write: Write, here: Path) -> Path:
    """A run on texts and labels that would break a careless page; it gets about half of them wrong."""
    rows = "".join(
        f'"{EVIL.replace(chr(34), chr(34) * 2)} {i}",<b>{"ja" if i % 3 else "né|in"}</b>\n' for i in range(80)
    )
    write("a.csv", "text,label\n" + rows)
    words = ("+recipe=bert_textcls", "smoke=true", "dataset=csv", "dataset.train=a.csv", "run.dir=run", "name=Bericht")
    code, _, err = llmft("finetune", *words)
    assert code == 0, err
    return here / "run"


def test_the_report_is_one_safe_page(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert EVIL in page.words
    reached = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert reached == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_the_report_shows_what_the_run_found(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    for heading in (
        "Learning curve",
        "Confusion on test",
        "Per label on test",
        "Worst mistakes on test",
        "Run details",
    ):
        assert heading in page.words
    assert f"{metrics['test']['accuracy']:.4f}" in page.words
    answers = [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    wrong = sorted((a for a in answers if a["answer"] != a["label"]), key=lambda a: -a["scores"][a["answer"]])
    assert wrong
    places = [page.words.index(f"{answer['id']}") for answer in wrong[:20]]
    assert len(places) == len(wrong[:20])
    assert sum(tag == "polyline" for tag, _ in page.tags) >= 2
    low, high = interval(answers, "accuracy", metrics["test"]["accuracy"]) or (0.0, 0.0)
    assert f"{len(answers)} rows; 95% interval {low:.4f} to {high:.4f}" in page.words
    for heading in ("Data", "Labels of train", "a.csv"):
        assert heading in page.words
    balance = json.loads((run / "manifest.json").read_text())["dataset"]["splits"]["train"]["balance"]
    assert balance == {"<b>ja</b>": 43, "<b>né|in</b>": 21}


def test_a_wide_table_scrolls_in_a_box_that_the_keyboard_reaches(run: Path) -> None:
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    boxes = [attrs for _, attrs in page.tags if attrs.get("class", "") and "scroll" in str(attrs["class"])]
    assert boxes
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_the_card_is_markdown_that_says_how_to_use_the_model(run: Path) -> None:
    card = (run / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert 'AutoModelForSequenceClassification.from_pretrained("run/model")`.' in card
    assert "llmft eval run dataset=csv dataset.test=YOUR.csv" in card
    assert "llmft predict run predict.input=YOUR.csv predict.output=answers.jsonl" in card
    assert "trained on a.csv by llmft" in card
    assert f"| {metrics['test']['accuracy']:.4f} |" in card
    tables = [line for line in card.splitlines() if line.startswith("|")]
    widths = {
        line.count("|") - line.count("\\|") for line in tables if line.startswith(("| split", "| test", "| validation"))
    }
    assert len(widths) == 1
    labels = [line for line in tables if "né" in line]
    assert labels
    assert all(line.count("|") - line.count("\\|") == 6 for line in labels), "a | in a label would break the table"


def test_the_card_describes_the_rows_as_they_were_read_and_warns_of_another_tokenizer(run: Path) -> None:
    tree = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    tree["dataset"] |= {"name": "json", "format": "json", "train": "mine.jsonl"}
    again = Folder.open(Path("run"))
    note = "AutoTokenizer of transformers makes another tokenizer of this run's, a Qwen2Tokenizer"
    again.note(dataset=again.manifest["dataset"] | {"notes": ["train: rows by label: a 1", note]})
    config = Config.model_validate(tree)
    write_reports(config, build(config.task).load(run / "model"), again)
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "trained on mine.jsonl by" in card
    assert "llmft eval run dataset=json dataset.test=YOUR.jsonl" in card
    assert "predict.input=YOUR.jsonl predict.output" in card
    assert f"\n{note}.\n" in card
    assert "rows by label" not in card


def test_texts_without_a_right_answer_are_the_hardest(llmft: Run, here: Path) -> None:
    assert llmft("pretrain", "+recipe=gpt_clm", "smoke=true", "run.dir=run")[0] == 0
    words = Page((here / "run/report.html").read_text(encoding="utf-8")).words
    assert "Hardest on test" in words
    assert "Worst mistakes" not in words
    answers = [json.loads(line) for line in (here / "run/predictions/test.jsonl").read_text().splitlines()]
    assert f"loss {max(answer['answer'] for answer in answers):.4f}" in words


def test_the_card_of_our_own_model_names_what_to_import(llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "run.dir=run")[0] == 0
    assert "after `import llmft.models.table_models`" in (here / "run/README.md").read_text()


@pytest.mark.parametrize(
    "values", [(1.0, 1.0), (1.0, 1.0 + 2e-16), (0.0, 1e-25), (-1e9, 1e9), (0.3, 0.7), (5.0, 5.2), (0.0, 0.0)]
)
def test_ticks_cover_any_range(values: tuple[float, float]) -> None:
    found = ticks(*values)
    assert 2 <= len(found) <= 12
    assert found[0] <= min(values)
    assert found[-1] >= max(values) or found[-1] == pytest.approx(max(values))
    assert found == sorted(set(found))


def test_a_chart_leaves_out_what_is_no_number() -> None:
    text = chart([Line("loss", [(1, float("nan")), (2, 3.0), (3, float("inf"))], "a")], "step", "t")
    assert text.count("<circle") == 1
    assert "nan" not in text
    assert "<svg" in chart([Line("loss", [(1, float("nan"))], "a")], "step", "t")


def test_a_chart_fits_its_points_into_its_box() -> None:
    text = chart(
        [Line("loss", [(1, 0.5), (2, 1e9), (3, -4.0)], "a"), Line("one point", [(2, 2.0)], "b")], "step", "t <&>"
    )
    assert "t &lt;&amp;&gt;" in text
    width, height = (float(v) for v in re.search(r'viewBox="0 0 (\d+) (\d+)"', text).groups())  # type: ignore[union-attr]
    for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', text))):
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height
