"""How much of a house a reader must walk through, beside what it was at another commit.

    python benchmarks/house.py [COMMIT]      67c4691, where the second drawing begins, unless said otherwise

Counted by the syntax tree and, for the files that a run enters, by the interpreter: a file is entered when a function
of its own is called, not when it is imported. The densest files are those with most nodes of the tree a line of code.
"""

import ast
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START = "67c4691"
GOALS = {
    "files of llmft/": "0.67 of the start",
    "files under 40 lines": "15",
    "names of files that occur twice": "0",
    "files that a smoke run enters": "105",
    "functions with a parameter `state`": "40",
    "methods of a task": "14",
    "of which a new task must write": "9",
    "methods of its state and of optional parts": "-",
    "comments in 100 lines of the 20 densest files": "5",
    "files above 500 lines": "0",
}
ENTERED = """
import inspect, json, sys, threading
from pathlib import Path

entered = set()

def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_flags & inspect.CO_NEWLOCALS and "/llmft/" in code.co_filename:
        entered.add(code.co_filename)

import llmft.cli
package = str(Path(llmft.__file__).parent)
threading.setprofile(note)
sys.setprofile(note)
try:
    llmft.cli.main(["finetune", "+recipe=bert_textcls", "smoke=true", "run.dir=run"])
except SystemExit:
    pass
sys.setprofile(None)
Path("entered.json").write_text(json.dumps(sorted(file for file in entered if file.startswith(package))))
"""


def count(root: Path) -> dict[str, float]:
    """The counts of a checkout, by the names of `GOALS`."""
    files = {path: path.read_text(encoding="utf-8") for path in sorted((root / "llmft").rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in files.items()}
    lines = {path: len(text.splitlines()) for path, text in files.items()}
    names = Counter(path.name for path in files if path.name not in ("__init__.py", "config.py"))
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    own = overridable([each for each in contract(root) if each.name not in ("RowScore", "State")])
    others = [each for each in contract(root) if each.name == "State"] + classes(root, "optional")
    dense = sorted(files, key=lambda path: density(trees[path], files[path]), reverse=True)[:20]
    return {
        "files of llmft/": len(files),
        "files under 40 lines": sum(n < 40 and path.name != "__init__.py" for path, n in lines.items()),
        "names of files that occur twice": sum(n > 1 for n in names.values()),
        "files that a smoke run enters": entered(root),
        "functions with a parameter `state`": sum(takes(function, "state") for function in functions),
        "methods of a task": len(own),
        "of which a new task must write": sum(decorated(method, "abstractmethod") for method in own),
        "methods of its state and of optional parts": len(overridable(others)),
        "comments in 100 lines of the 20 densest files": (
            100 * sum(comments(files[path]) for path in dense) / sum(lines[path] for path in dense)
        ),
        "files above 500 lines": sum(n > 500 for n in lines.values()),
    }


def contract(root: Path) -> list[ast.ClassDef]:
    """The classes that say what a task is, and what is minimized."""
    return classes(root, "task") + classes(root, "objective")


def classes(root: Path, name: str) -> list[ast.ClassDef]:
    """The classes of a file of tasks/; none where there is no such file."""
    file = root / f"llmft/tasks/{name}.py"
    tree = ast.parse(file.read_text(encoding="utf-8") if file.is_file() else "")
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def overridable(found: list[ast.ClassDef]) -> list[ast.FunctionDef]:
    """The methods that a task can write."""
    methods = [method for tree in found for method in tree.body if isinstance(method, ast.FunctionDef)]
    return [method for method in methods if not method.name.startswith("_") and not is_final(method)]


def is_final(method: ast.FunctionDef) -> bool:
    """Whether no task writes it anew."""
    return decorated(method, "final")


def decorated(method: ast.FunctionDef, name: str) -> bool:
    """Whether a method has this decorator."""
    return any(isinstance(node, ast.Name) and node.id == name for node in method.decorator_list)


def takes(function: ast.FunctionDef, name: str) -> bool:
    """Whether a function has this parameter."""
    arguments = function.args
    return any(one.arg == name for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def density(tree: ast.Module, text: str) -> float:
    """Nodes of the syntax tree a line of code; 0 for files too short to be dense."""
    code = [line for line in text.splitlines() if line.strip()]
    return 0.0 if len(code) < 40 else sum(1 for _ in ast.walk(tree)) / len(code)


def comments(text: str) -> int:
    """Comments, on lines of their own and behind code, except for words to a tool."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    idle = ("# type:", "# noqa", "# fmt:")
    return sum(token.type == tokenize.COMMENT and not token.string.startswith(idle) for token in tokens)


def entered(root: Path) -> int:
    """The files of llmft in which a smoke run calls a function."""
    with tempfile.TemporaryDirectory() as folder:
        more = {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "LLMFT_CACHE": folder}
        command = [sys.executable, "-c", ENTERED]
        subprocess.run(command, cwd=folder, env=os.environ | more, check=True, stdout=subprocess.DEVNULL)
        return len(json.loads((Path(folder) / "entered.json").read_text()))


def main(commit: str = START) -> None:
    """Print the counts of a commit and of the working tree, and what they are to be."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        before, now = count(Path(folder)), count(ROOT)
    print(f"{'':<48} {commit:>10} {'now':>8}   goal")
    for name, goal in GOALS.items():
        print(f"{name:<48} {before[name]:10.4g} {now[name]:8.4g}   {goal}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
