"""Dockerfile and compose.yml: what they name is there, and the lines of the image give a service that answers.

No image is built: the lines run in a folder, and environment, of their own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from llmft.cli import main
from llmft.front.vocabulary import vocabulary
from llmft.schema.serving import ServeConfig
from llmft.serving.http import PUBLIC
from llmft.serving.models import cores
from tests.serving.conftest import Client

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NOBODY = 65534


class Line(NamedTuple):
    """An instruction of a Dockerfile."""

    word: str
    rest: str


def instructions(text: str) -> list[Line]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [Line(*line.split(None, 1)) for line in joined]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def last(word: str) -> str:
    return next(line.rest for line in reversed(DOCKERFILE) if line.word == word)


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file go to the builder: its last pattern that fits a path or a folder of it decides."""
    parents = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 2)]
    kept = True
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        bare = pattern.removeprefix("!").removeprefix("**/")
        names = [each.rsplit("/", 1)[-1] if "**/" in pattern else each for each in parents]
        if pattern and not pattern.startswith("#") and any(fnmatchcase(name, bare) for name in names):
            kept = pattern.startswith("!")
    return kept


def test_the_builder_gets_what_the_image_copies() -> None:
    default = {line.rest.partition("=")[0]: line.rest.partition("=")[2] for line in DOCKERFILE if line.word == "ARG"}
    copied = set()
    for line in DOCKERFILE:
        if line.word == "COPY" and not line.rest.startswith("--from"):
            copied |= {re.sub(r"\$\{(\w+)\}", lambda name: default[name[1]], each) for each in line.rest.split()[:-1]}
    assert {path for path in copied if not (ROOT / path).exists()} == set()
    assert {path for path in copied if not sent(path)} == set()
    # A wheel is built of them: see pyproject.toml.
    assert {"llmft", "configs", "recipes", "docs", "pyproject.toml", "README.md", "LICENSE"} <= copied
    for private in (".git/config", ".venv/bin/python", "tests/conftest.py", "key.txt", "llmft/__pycache__/cli.pyc"):
        assert not sent(private), private
    assert sent("outputs/texts/RUN/model/model.onnx")


def test_the_image_has_no_root_and_says_whether_it_is_ready() -> None:
    assert int(last("USER").split(":")[0]) > 0
    check = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", last("HEALTHCHECK"))
    assert check and check[2] in PUBLIC, "it must need no key"
    assert check[1] == last("EXPOSE") == str(ServeConfig().port)
    command, stage, folder, *words = json.loads(last("CMD"))
    assert (command, stage) == ("llmft", "serve")
    assert f"COPY ${{MODEL}} {folder}" in (ROOT / "Dockerfile").read_text()
    assert {word.split("=")[0] for word in words} <= vocabulary().keys()


def mounts(service: str) -> dict[str, str]:
    """The folder or file of this machine behind each path of a container."""
    found = [re.sub(r"\$\{[^}]*\}", "MODEL", volume).split(":") for volume in SERVICES[service].get("volumes", [])]
    return {inside: outside for outside, inside, *_ in found}


def test_compose_names_what_is_there() -> None:
    for name, service in SERVICES.items():
        for outside in mounts(name).values():
            assert outside == "MODEL" or outside in COMPOSE["volumes"] or (ROOT / outside).is_file(), outside
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        assert set(service.get("depends_on", [])) <= SERVICES.keys()
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "beyond this machine, TLS comes first"
        assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), "a version, not latest"
    service = SERVICES["llmft"]
    folder = service["command"][2]
    assert service["command"][:3] == json.loads(last("CMD"))[:3]
    assert mounts("llmft")[folder] == "MODEL"
    words = dict(word.split("=", 1) for word in service["command"][3:])
    assert words.keys() <= vocabulary().keys()
    assert words["serve.key_file"] in [f"/run/secrets/{secret}" for secret in service["secrets"]]
    assert float(service["stop_grace_period"].removesuffix("s")) > ServeConfig().timeout_s


def test_prometheus_and_grafana_find_what_they_show() -> None:
    def read(service: str, path: str) -> Any:
        return yaml.safe_load((ROOT / mounts(service)[path]).read_text(encoding="utf-8"))

    config = read("prometheus", "/etc/prometheus/prometheus.yml")
    for rules in config["rule_files"]:
        assert f"/etc/prometheus/{rules}" in mounts("prometheus")
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"llmft:{last('EXPOSE')}"]}]
    secret = job["authorization"]["credentials_file"]
    assert secret in [f"/run/secrets/{name}" for name in SERVICES["prometheus"]["secrets"]]
    if promtool := shutil.which("promtool"):
        file = ROOT / mounts("prometheus")["/etc/prometheus/prometheus.yml"]
        subprocess.run([promtool, "check", "config", "--syntax-only", file], check=True, capture_output=True)
    (source,) = read("grafana", "/etc/grafana/provisioning/datasources/llmft.yml")["datasources"]
    port = SERVICES["prometheus"]["ports"][0].rsplit(":", 1)[1]
    assert source["url"] == f"http://prometheus:{port}"
    (provider,) = read("grafana", "/etc/grafana/provisioning/dashboards/llmft.yml")["providers"]
    shown = [path for path in mounts("grafana") if path.startswith(provider["options"]["path"] + "/")]
    assert len(shown) == 1


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_says_what_is_there() -> None:
    """No image is built, so its commands are compared with the files that they use."""
    arguments = {line.rest.partition("=")[0] for line in DOCKERFILE if line.word == "ARG"}
    named = re.findall(r"^\| `(\w+)=\S+` \|", PAGE, re.MULTILINE)
    assert set(named) == arguments
    variables = set(re.findall(r"\$\{(\w+):", (ROOT / "compose.yml").read_text()))
    variables |= {secret["environment"] for secret in COMPOSE["secrets"].values()}
    (exported,) = [line for block in blocks("console") for line in block.splitlines() if line.startswith("export ")]
    assert set(re.findall(r"(\w+)=", exported)) == variables
    # Keys of llmft, wherever they stand.
    for key in re.findall(r"\b(serve\.\w+|export\.\w+|run\.dir)\b", PAGE):
        assert key in vocabulary() or key in ("export.json", "serve.run", "serve.deployment", "serve.ingress"), key
    (resource,) = map(yaml.safe_load, blocks("yaml"))
    (container,) = resource["spec"]["predictor"]["containers"]
    words = dict(word.split("=", 1) for word in container["command"][2:])
    assert container["command"][:2] == ["llmft", "serve"]
    assert words["serve.port"] == str(container["ports"][0]["containerPort"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in PUBLIC
        assert str(container[probe]["httpGet"]["port"]) == words["serve.port"]
    (unit,) = blocks("ini")
    assert "LoadCredential=key:" in unit and "serve.key_file=%d/key" in unit
    for program in blocks("python"):
        compile(program, "docs/deploy.md", "exec")


def test_a_link_that_has_changed_is_another_version(text_run: Path, serving: Callable[..., Client], here: Path) -> None:
    for version in ("1", "2"):
        shutil.copytree(text_run, here / f"texts-{version}")
        (here / f"texts-{version}/model/note.txt").write_text(version)
    (here / "current").symlink_to("texts-1")
    client = serving(here / "current")
    first = client.predict(text="Good.")
    (here / "next").symlink_to("texts-2")
    (here / "next").replace(here / "current")
    shutil.rmtree(here / "texts-1")
    client.app.state.models.reload()
    second = client.predict(text="Good.")
    assert first["answers"] == second["answers"]
    assert first["version"] != second["version"]


@pytest.mark.parametrize(
    "limit, wanted",
    [
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("6400000 100000", 4),
        ("max 100000", 4),
        (None, 4),
    ],
)
def test_a_container_has_the_cores_of_its_limit(
    limit: str | None, wanted: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    if limit:
        (here / "cpu.max").write_text(f"{limit}\n")
    assert cores(here / "cpu.max") == wanted


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a user without rights, who cannot enter those of pytest."""
    made = Path(tempfile.mkdtemp(prefix="image-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Image:
    """Runs the lines of a Dockerfile below a folder, as a user without rights if this one is root."""

    def __init__(self, folder: Path, **arguments: str) -> None:
        self.root, self.arguments = folder, arguments
        self.work, self.environment = folder, dict[str, str]()
        self.who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        (folder / "usr/bin").mkdir(parents=True)
        (folder / "usr/bin/python").symlink_to(self.python())
        (folder / "tmp").mkdir()
        self.hand_over()

    def python(self) -> str:
        """A Python that the user can run, as that of the base image."""
        own = getattr(sys, "_base_executable", sys.executable)
        for found in (own, "/usr/bin/python3"):
            try:
                subprocess.run([found, "-c", "import venv, ensurepip"], check=True, capture_output=True, **self.who)
            except (OSError, subprocess.CalledProcessError):
                continue
            return str(found)
        pytest.skip("no Python with venv that a user without rights can run")

    def hand_over(self) -> None:
        if self.who:
            for path in [self.root, *self.root.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def here(self, text: str) -> str:
        """A text with the image's own paths below the folder."""
        return re.sub(r"(?<![\w./])/(src|opt|model|tmp)\b", rf"{self.root}/\1", text)

    def build(self, context: Path) -> None:
        for line in DOCKERFILE:
            words = shlex.split(re.sub(r"\$\{(\w+)\}", lambda name: self.arguments.get(name[1], ""), line.rest))
            if line.word == "FROM":
                self.work = self.root
                self.environment = {
                    name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))
                }
                self.environment |= {"PATH": f"{self.root}/usr/bin:/usr/bin:/bin", "HOME": f"{self.root}/tmp"}
            elif line.word == "ARG":
                name, _, default = line.rest.partition("=")
                self.arguments.setdefault(name, default)
            elif line.word == "WORKDIR":
                self.work = Path(self.here(line.rest))
                self.work.mkdir()
                self.hand_over()
            elif line.word == "ENV":
                for word in words:
                    name, _, value = word.partition("=")
                    self.environment[name] = self.here(value).replace("$PATH", self.environment["PATH"])
            elif line.word == "COPY" and not words[0].startswith("--from"):
                *sources, target = words
                for source in sources:
                    place = self.work / self.here(target)
                    if (context / source).is_dir():
                        shutil.copytree(context / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                    else:
                        shutil.copy(context / source, place)
                self.hand_over()
            elif line.word == "COPY":  # both stages are one folder
                assert Path(self.here(words[1])).is_dir() and words[1] == words[2]
            elif line.word == "RUN":
                self.run(["bash", "-c", self.here(line.rest)], check=True, env=self.arguments | self.environment)

    def start(self, command: list[str], **more: Any) -> "subprocess.Popen[str]":
        given: dict[str, Any] = {"cwd": self.work, "env": self.environment, "text": True} | self.who | more
        return subprocess.Popen([self.here(word) for word in command], **given)

    def run(self, command: list[str], check: bool = False, **more: Any) -> "subprocess.CompletedProcess[str]":
        given: dict[str, Any] = {"cwd": self.work, "env": self.environment, "text": True} | self.who | more
        done = subprocess.run([self.here(word) for word in command], capture_output=True, check=False, **given)
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done


@pytest.mark.slow
def test_the_lines_of_the_image_give_a_service(text_run: Path, folder: Path, here: Path) -> None:
    """It installs packages, so it needs their index."""
    ((_, *command),) = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert main([word.replace("outputs/texts/RUN", str(text_run)) for word in command]) == 0
    export = here / command[-1].partition("=")[2]
    facts = json.loads((export / "export.json").read_text())
    (triton,) = blocks("protobuf")
    read, written = triton.split("output [")
    assert set(re.findall(r'name: "(\w+)" data_type: TYPE_INT64', read)) == facts["inputs"].keys()
    assert set(re.findall(r'name: "(\w+)" data_type: TYPE_FP32', written)) == facts["outputs"].keys()
    shutil.copytree(export, folder / "context/model")
    for name in ("constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "context")
    for name in ("deploy", "llmft", "configs", "recipes", "docs"):
        (folder / "context" / name).symlink_to(ROOT / name)
    image = Image(folder / "image", MODEL="model")
    image.build(folder / "context")
    assert image.run(["python", "-c", "import torch"]).returncode == 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    check = json.loads(last("HEALTHCHECK").partition("CMD ")[2].replace(f":{last('EXPOSE')}/", f":{port}/"))
    image.work = image.root
    image.environment["LLMFT_API_KEY"] = "of the test"
    before = time.monotonic()
    command = [*json.loads(last("CMD")), f"serve.port={port}"]
    with image.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as service:
        try:
            while image.run(check).returncode:
                assert service.poll() is None, service.stdout and service.stdout.read()
                assert time.monotonic() - before < 60
                time.sleep(0.2)
            body = {"rows": [{"text": "Good value for the money."}, {"text": "It broke after a week."}]}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", json.dumps(body).encode())
            request.add_header("Content-Type", "application/json")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request)
            request.add_header("Authorization", "Bearer of the test")
            answers = json.load(urllib.request.urlopen(request))["answers"]
        finally:
            service.send_signal(signal.SIGTERM)
            said = service.communicate(timeout=60)[0]
    assert service.returncode == 0, said
    assert {answer["answer"] for answer in answers} <= {"good", "bad"} and len(answers) == 2
    assert all(abs(sum(answer["scores"].values()) - 1) < 1e-6 for answer in answers)
