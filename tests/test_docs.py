"""What the documents say is what happens: every command of the README is run, on a tiny model and small files."""

import io
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from llmft import __version__
from llmft.front.vocabulary import vocabulary

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]


def blocks(kind: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str = README) -> list[list[str]]:
    lines = [line for block in blocks("sh", page) for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def files(write: Write) -> None:
    """The files that the README's user has."""
    classes = ("bug", "wish")
    rows = [(f"ticket {i} {classes[i % 2]}", classes[i % 2]) for i in range(540)]  # monitor needs 50 of validation
    write("tickets.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    write("new.csv", "text,label\nanother one,bug\nand a last one,wish\n")
    chinese = "内容,类别\n" + "".join(f"第{i}条,{'好' if i % 2 else '坏'}\n" for i in range(60))
    write("data/a.csv", chinese.encode("gb18030"))
    pairs = (f'{{"text": "premise {i}", "hypothesis": "it follows {i % 2}", "label": {i % 2}}}\n' for i in range(60))
    write("pairs.jsonl", "".join(pairs))
    write("shards/a.jsonl", "".join(f'{{"text": "row {i}", "label": {i % 2}}}\n' for i in range(60)))
    write("held_out.jsonl", '{"text": "this", "label": 0}\n{"text": "that", "label": 1}\n')
    customers = "".join(f"{i % 9},{10115 + i % 3},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    write("customers.csv", "years,postal_code,left\n" + customers)
    topics = ("sport", "money", "sport,money", "")
    write("topics.csv", "text,label\n" + "".join(f'text {i},"{topics[i % 4]}"\n' for i in range(60)))
    write("houses.csv", "rooms,street,price\n" + "".join(f"{i % 7},{'ab'[i % 2]},{90.5 * i}\n" for i in range(60)))
    for book in range(40):
        write(f"books/{book}.txt", "\n\n".join(f"Paragraph {i} of book {book}, which is short." for i in range(20)))
    write("recipes/mine.yaml", blocks("yaml")[0])


def run_of(here: Path, name: str) -> str:
    """A run that has left a model, for `outputs/NAME/RUN`."""
    return str(next(folder for folder in (here / "outputs" / name).iterdir() if (folder / "model").is_dir()))


def test_every_command_of_the_readme_works(
    files: None, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = 0
    for words in [*commands(), ["llmft", "finetune", "+recipe=mine"]]:
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "llmft":
            words = [re.sub(r"outputs/(tickets|mine)/RUN", lambda name: run_of(here, name[1]), word) for word in words]
            # A sweep over recipes, with two of them: each of the others is trained by a test of its own.
            words = [word.replace("glob(*)", "glob(tabular_*l*)").replace("range(3)", "range(1)") for word in words]
            # Two processes import torch for 14 s; tests/faults/test_processes.py trains in them.
            # A service does not end by itself; tests/serving starts it.
            words += ["--cfg", "job"] if "hardware.processes=2" in words or words[1] == "serve" else []
            looks = {"--cfg", "--help", "show=3"} & {*words}
            trains = words[1] in ("finetune", "pretrain") and not looks
            tiny = ["smoke=true", "trainer.max_steps=1"] if trains else []
            if {"+recipe=tabular_boosting", "+recipe=recsys_bpr", "+recipe=recsys_svdpp"} & {*words}:  # no steps
                tiny.remove("trainer.max_steps=1")
            if words[1] == "chat":
                monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Hello! 你好\n".encode())))
            code, out, err = llmft(*words[1:], *tiny)
            assert code == 0, f"{shlex.join(words)}\n{err}"
            assert out or words[1] == "predict"  # whose answers may go to a file
            ran += 1
        else:
            assert words[:2] == ["pip", "install"]
            extras = re.findall(r"[\w-]+", words[2].partition("[")[2]) if words[2].startswith((".[", "llmft[")) else []
            assert {*extras} <= {
                *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            }
    assert ran >= 10


def test_the_mistakes_of_the_readme_are_answered_as_it_says(llmft: Run) -> None:
    (text,) = [block for block in blocks("text") if block.startswith("$ llmft")]
    command, answer = text.split("\n", 1)
    code, _, err = llmft(*shlex.split(command)[2:])
    assert (code, err) == (2, answer)


def test_the_chinese_readme_says_the_same() -> None:
    """Its commands, and what they print, are those of the other, which are run."""
    assert commands(CHINESE) == commands()
    assert blocks("yaml", CHINESE) == blocks("yaml")
    assert blocks("text", CHINESE)[:-1] == blocks("text")[:-1], "the last one is the picture of the house"
    assert [len(title) for title in re.findall("^#+", CHINESE, re.MULTILINE)] == [
        len(title) for title in re.findall("^#+", README, re.MULTILINE)
    ]
    # Either may lead to the page in its language.
    pages = [page.replace(".zh-CN.md", ".md") for page in (README, CHINESE)]
    links = [set(re.findall(r"\]\(([^)]+)\)", page)) - {"README.md"} for page in pages]
    assert links[0] == links[1]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_no_number_was_forgotten() -> None:
    assert not re.search(r"\b(MINUTES|RESULT|MISTAKES|TODO|TABLE)\b", README)


def test_links_lead_somewhere() -> None:
    for page in (
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        *(f"docs/{f.name}" for f in (ROOT / "docs").glob("*.md")),
    ):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"


def test_the_benchmarks_of_the_documents_are_there() -> None:
    """They take minutes to run; that they start is seen by their help."""
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    scripts = set(re.findall(r"python (benchmarks/\w+\.py)", text))
    assert len(scripts) == 8
    for script in scripts:
        compile((ROOT / script).read_text(encoding="utf-8"), script, "exec")
        assert f"python {script}" in (ROOT / script).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the titles of a page: lower case, spaces as dashes, without other signs."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_to_titles() -> None:
    pages = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for file, anchor in re.findall(r"\]\((?!https:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            target = page.parent / file if file else page
            assert anchor in anchors(target), f"{page.name}: {file}#{anchor}"


QUESTIONS = {
    # A new user's question -> the page that answers it, and what the command in the row or the page must say.
    "Where does the learning rate come from": (
        "commands.md",
        ("Peak learning rate", "default", "recipes/bert_textcls.yaml:"),
    ),
    "What does `task.beta` do": ("config.md", ("task: preference", "[0.1]")),
    "How do I add a metric": ("extending.md", ("def score(",)),
}


def test_the_index_answers_a_new_user_in_one_step(llmft: Run) -> None:
    """Each question has a row with a short answer, mostly a command, and a link to the page that says more."""
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8").partition("## Questions")[2].partition("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in index.splitlines() if "? |" in line]
    said = {}
    for question, answer, _ in rows:
        for command in re.findall(r"`llmft ((?:help|explain|finetune) [^`]+)`", answer):
            code, said[question], err = llmft(*shlex.split(command))
            assert code == 0, f"{command}\n{err}"
    for start, (page, texts) in QUESTIONS.items():
        ((question, _, more),) = [row for row in rows if row[0].startswith(start)]
        assert f"]({page}" in more
        answer = said.get(question) or (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert [text for text in texts if text not in answer] == []


WORDS = re.compile(
    r"\b(simply|easily|please|obviously|robust|can't|don't|doesn't|isn't|won't|learnt|misspelt|behaviour|colour|neighbours?"
    r"|licence|centre|(optimis|tokenis|normalis|initialis|standardis|quantis|recognis|minimis|summaris)\w*)\b",
    re.IGNORECASE,
)
"""What STYLE.md rules out, as far as a word shows it."""


def test_the_words_are_those_of_the_style() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ("README.md", "AGENTS.md", "CHANGELOG.md"))]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    texts |= {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "configs").rglob("*.yaml")}
    texts |= {key: found.text for key, found in vocabulary().items()}
    assert {name: found[0] for name, text in texts.items() if (found := WORDS.search(text))} == {}


def test_the_index_names_every_page_and_every_recipe_family() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert {f.name for f in (ROOT / "docs").glob("*.md")} - set(re.findall(r"\]\(([\w.-]+\.md)\)", index)) == {
        "README.md"
    }
    named = set(re.findall(r"`((?:bert|tabular|t5|llm|gpt)_\w+)`", index))
    assert named <= {f.stem for f in (ROOT / "recipes").glob("*.yaml")}
    for key in re.findall(r"`((?:dataset|task|trainer|model)\.[\w.]+)=", index):
        assert key in vocabulary() or key.startswith("dataset.columns."), key
