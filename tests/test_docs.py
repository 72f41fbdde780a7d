"""What the documents say is what happens: every command of the README is run, on a tiny model and small files."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture
def files(write: Write) -> None:
    """The files that the README's user has."""
    classes = ("bug", "wish")
    rows = [(f"ticket {i} {classes[i % 2]}", classes[i % 2]) for i in range(60)]
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
    write("recipes/mine.yaml", blocks("yaml")[0])


def test_every_command_of_the_readme_works(files: None, llmft: Run, here: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = 0
    for words in [*commands(), ["llmft", "finetune", "+recipe=mine"]]:
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "llmft":
            words = [
                str(next((here / "outputs/tickets").iterdir())) if w == "outputs/tickets/RUN" else w for w in words
            ]
            tiny = (
                ["smoke=true", "trainer.max_steps=1"]
                if words[1] == "finetune" and not {"--cfg", "--help"} & {*words}
                else []
            )
            code, out, err = llmft(*words[1:], *tiny)
            assert code == 0, f"{shlex.join(words)}\n{err}"
            assert out
            ran += 1
        else:
            assert words == ["pip", "install", ".[demo]"]
    assert ran >= 10


def test_the_mistakes_of_the_readme_are_answered_as_it_says(llmft: Run) -> None:
    (text,) = [block for block in blocks("text") if block.startswith("$ llmft")]
    command, answer = text.split("\n", 1)
    code, _, err = llmft(*shlex.split(command)[2:])
    assert (code, err) == (2, answer)


def test_no_number_was_forgotten() -> None:
    assert not re.search(r"\b(MINUTES|RESULT|MISTAKES|TODO|TABLE)\b", README)


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/performance.md", "docs/tables.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"


def test_the_benchmarks_of_the_documents_are_there() -> None:
    """They take minutes to run; that they start is seen by their help."""
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    scripts = set(re.findall(r"python (benchmarks/\w+\.py)", text))
    assert len(scripts) == 5
    for script in scripts:
        compile((ROOT / script).read_text(encoding="utf-8"), script, "exec")
        assert f"python {script}" in (ROOT / script).read_text(encoding="utf-8")
