"""`llmft push`: what is uploaded, and that nothing is where something is missing. No hub is asked here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


class Hub:
    """Stands in for `huggingface_hub.HfApi`."""

    said: list[tuple[str, dict[str, Any]]]
    error: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*words: Any, **how: Any) -> None:
            if self.error:
                raise self.error
            self.said.append((name, how | ({"repo_id": words[0]} if words else {})))

        return note


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    Hub.said, Hub.error = [], None
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    return Hub


@pytest.fixture
def run(here: Path) -> Path:
    folder = here / "outputs/tickets/20260101-000000-0000"
    (folder / "model").mkdir(parents=True)
    (folder / "model/config.json").write_text("{}")
    (folder / "model/model.safetensors").write_bytes(b"w")
    (folder / "README.md").write_text("# tickets")
    (folder / "config.yaml").write_text("command: finetune\n")
    (folder / "manifest.json").write_text(json.dumps({"status": "done", "command": "finetune"}))
    return folder


@pytest.mark.parametrize(("words", "private"), [((), True), (("private=false",), False)])
def test_the_model_and_its_card_go(
    words: tuple[str, ...], private: bool, hub: type[Hub], run: Path, llmft: Run
) -> None:
    code, out, err = llmft("push", str(run), "to=me/tickets", *words)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "uploaded; use it with model.path=me/tickets"
    names = [name for name, _ in hub.said]
    assert names == ["create_repo", "upload_folder", "upload_file"]
    made, folder, card = (how for _, how in hub.said)
    assert made == {"repo_id": "me/tickets", "private": private, "exist_ok": True}
    assert (folder["repo_id"], folder["folder_path"]) == ("me/tickets", run / "model")
    assert (card["path_or_fileobj"], card["path_in_repo"]) == (run / "README.md", "README.md")
    assert "token" not in json.dumps(hub.said, default=str)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "push  must be a run and to=OWNER/NAME"),
        (("RUN",), "to  must be given as OWNER/NAME"),
        (("RUN", "to=name"), "to  must be given as OWNER/NAME"),
        (("RUN", "to=a/b/c"), "to  must be given as OWNER/NAME"),
        (("RUN", "to=a/b", "public=true"), "Write llmft push RUN to=OWNER/NAME"),
        (("RUN", "to=a/b", "private=no"), "Write llmft push RUN to=OWNER/NAME"),
        (("nowhere", "to=a/b"), "nowhere  no such folder"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], text: str, hub: type[Hub], run: Path, llmft: Run) -> None:
    code, _, err = llmft("push", *(str(run) if word == "RUN" else word for word in words))
    assert code == 2
    assert text in err
    assert hub.said == []


def test_a_run_without_a_model_is_not_pushed(hub: type[Hub], run: Path, llmft: Run) -> None:
    (run / "model/config.json").unlink()
    code, _, err = llmft("push", str(run), "to=me/tickets")
    assert (code, hub.said) == (2, [])
    assert "has no model that transformers can load" in err


def test_what_the_hub_says_is_said_in_a_line(hub: type[Hub], run: Path, llmft: Run) -> None:
    hub.error = OSError("401 Client Error.\nInvalid user token")
    code, _, err = llmft("push", str(run), "to=me/tickets")
    assert code == 1
    assert "the hub refused the upload: 401 Client Error. Log in with hf auth login" in err
    assert "Invalid" not in err
