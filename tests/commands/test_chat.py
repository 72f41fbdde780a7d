"""`llmft chat`: turns by a model that says what a test needs, and a run that is asked over a pipe."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset

from llmft import tasks
from llmft.commands import terminal
from llmft.commands.chat import Chat
from llmft.commands.terminal import talk
from llmft.config.load import load as compose
from llmft.predictions.continuation import Writer
from llmft.schema.inference import GenerationConfig

Run = Callable[..., tuple[int, str, str]]


class Scripted:
    """A language model that says one text after another, whatever it is asked."""

    def __init__(self, *texts: str, system: str = "") -> None:
        config = compose("finetune", ["+recipe=llm_chat", "smoke=true"])
        rows = {
            "id": ["1"],
            "messages": ['[{"role": "user", "content": "你好 😀"}, {"role": "assistant", "content": "é"}]'],
        }
        self.state: Any = tasks.build(config.task).fit(Dataset.from_dict(rows), config.model).state
        size = len(self.state.tokenizer)
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 512}
        gpt = transformers.GPT2Config(vocab_size=size, eos_token_id=self.state.template.end, bos_token_id=None, **sizes)
        self.model: Any = transformers.AutoModelForCausalLM.from_config(gpt)
        said = self.forward  # not on the instance, where accelerate's would be, which is set aside
        methods = {"forward": lambda _, **inputs: said(**inputs), "generate": self.generate(type(self.model).generate)}
        self.model.__class__ = type("Said", (type(self.model),), methods)
        self.texts, self.asked = list(texts), list[str]()
        self.chat = Chat(Writer(self.model, self.state.tokenizer, self.state, 400), system=system)

    def generate(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def generate(model: Any, **inputs: Any) -> Any:
            self.asked.append(self.state.tokenizer.decode(inputs["input_ids"][0]))
            self.left = self.state.tokenizer(self.texts.pop(0), add_special_tokens=False)["input_ids"]
            return plain(model, **inputs)

        return generate

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        if not self.left:
            raise KeyboardInterrupt
        logits = torch.zeros(*input_ids.shape, len(self.state.tokenizer))
        logits[..., self.left.pop(0)] = 1
        return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits)


END = "<|im_end|>"


def turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}{END}\n"


def test_turns_follow_each_other_and_commands_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    model = Scripted(f"Hi 😀!{END}", f"再见{END}", f"x{END}", f"y{END}", system="Be kind.")
    lines = [
        "你好",
        "",
        "and?",
        "/history",
        "/reset",
        "/system Be brief.",
        "/system",
        "//system",
        "/sytem a",
        "/help",
        "z",
        "/exit",
        "never",
    ]
    talk(model.chat, iter(lines))
    out, err = capsys.readouterr()
    assert out == "Hi 😀!\n再见\nx\ny\n"
    ask = "<|im_start|>assistant\n"
    kind, brief = turn("system", "Be kind."), turn("system", "Be brief.")
    first = kind + turn("user", "你好")
    assert model.asked == [
        first + ask,
        first + turn("assistant", "Hi 😀!") + turn("user", "and?") + ask,
        brief + turn("user", "/system") + ask,
        brief + turn("user", "/system") + turn("assistant", "x") + turn("user", "z") + ask,
    ]
    assert "system: Be kind.\nuser: 你好\nassistant: Hi 😀!\nuser: and?\nassistant: 再见\n" in err
    assert "\nBe brief.\n" in err
    assert "error: no command /sytem" in err
    assert "/reset         forget" in err


def test_an_answer_appears_as_it_is_written() -> None:
    pieces: list[str] = []
    model = Scripted(f"\n😀 one two{END}")
    model.chat.ask("a", pieces.append)
    assert "".join(pieces) == "😀 one two\n"
    assert next(filter(None, pieces)) == "😀", "a letter of four bytes comes as a whole"
    assert len(list(filter(None, pieces))) > 4


def test_a_stopped_answer_stays_and_the_chat_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    model = Scripted("half an ans", f"whole{END}")
    talk(model.chat, iter(["a", "b"]))
    out, err = capsys.readouterr()
    assert out == "half an ans\nwhole\n"
    assert "(stopped)" in err
    assert turn("assistant", "half an ans") in model.asked[1]


def test_an_answer_that_is_too_long_is_said_to_be_cut(capsys: pytest.CaptureFixture[str]) -> None:
    model = Scripted("x" * 100)
    model.chat.options = GenerationConfig(max_new_tokens=5)
    talk(model.chat, iter(["a"]))
    out, err = capsys.readouterr()
    assert len(out) == 6
    assert "(cut after 5 tokens; generation.max_new_tokens says" in err


def test_the_oldest_turns_make_room(capsys: pytest.CaptureFixture[str]) -> None:
    model = Scripted(*[f"a{n}{END}" for n in range(6)], system="Be kind.")
    model.chat.writer = replace(model.chat.writer, room=120)
    model.chat.options = GenerationConfig(max_new_tokens=20)
    talk(model.chat, iter([f"question {n}" for n in range(4)]))
    out, err = capsys.readouterr()
    assert out == "a0\na1\na2\na3\n"
    assert "left out: the model reads 120 tokens" in err
    assert "question 0" not in model.asked[-1]
    assert model.asked[-1].startswith(turn("system", "Be kind."))
    assert turn("user", "question 3") in model.asked[-1]
    talk(model.chat, iter(["long " * 100, f"a {END}", "short"]))
    out, err = capsys.readouterr()
    assert out == "a4\n"
    assert "tokens with what stands around it, and the model reads 120" in err
    assert "error: the message holds <|im_end|>, a control token of the model" in err
    assert "long" not in model.asked[-1]


def test_ctrl_c_while_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    class Lines:
        def __init__(self, *left: Any) -> None:
            self.left = list(left)

        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            if not self.left:
                raise StopIteration
            if (line := self.left.pop(0)) is KeyboardInterrupt:
                raise KeyboardInterrupt
            return str(line)

    talk(Scripted(f"b{END}").chat, Lines(KeyboardInterrupt, "a"))
    out, err = capsys.readouterr()
    assert (out, "(/exit or Ctrl-D ends the chat)" in err) == ("b\n", True)
    with pytest.raises(KeyboardInterrupt):
        talk(Scripted().chat, Lines(KeyboardInterrupt), quits=True)


def test_a_run_is_talked_with_over_a_pipe(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f'{{"prompt": "say {n}", "response": "b", "system": "Be kind."}}\n' for n in range(40))
    (here / "rows.jsonl").write_text(rows)
    words = ("smoke=true", "trainer.max_steps=2", "task.generate=false", "dataset=json", "dataset.train=rows.jsonl")
    code, out, err = llmft("finetune", "+recipe=llm_instruct", *words, "run.dir=run")
    assert code == 0, err
    heads = []
    monkeypatch.setattr(
        terminal, "talk", lambda chat, lines, quits=False: (heads.append(chat.system), talk(chat, lines, quits))
    )
    for word in (), ("chat.system=",), ("chat.system=你好",):
        piped = io.TextIOWrapper(io.BytesIO("say 1\r\n\xff\n".encode("latin-1") + b"/history\n"))
        monkeypatch.setattr("sys.stdin", piped)
        code, out, err = llmft("chat", "run", *word, "generation.max_new_tokens=3")
        assert code == 0, err
        assert out.endswith("\n")
        assert "error: a line is not utf-8" in err
        assert "user: say 1\n" in err
    assert heads == ["Be kind.", "", "你好"]
    assert "chat.system  is only for llmft chat" in llmft("finetune", "+recipe=llm_chat", "chat.system=a")[2]


def test_a_model_that_does_not_talk_is_refused(llmft: Run, here: Path) -> None:
    assert llmft("pretrain", "+recipe=gpt_clm", "smoke=true", "trainer.max_steps=1", "run.dir=run")[0] == 0
    code, _, err = llmft("chat", "run")
    assert code == 2
    assert "has no chat template, by which turns are written" in err
    assert "llmft predict run" in err
