"""The page of `llmft serve`, driven in a browser: what is typed, dropped, and filled in is answered, and errors are said."""

import base64
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.test_same_answers import run_of

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
uvicorn = pytest.importorskip("uvicorn")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

KINDS = {"texts": "text_classification", "table": "tabular", "images": "image_classification", "talk": "instruction"}
PHONE = {"width": 375, "height": 800}


class Site:
    """A server with a model of each kind. `stop` ends it before the test does."""

    def __init__(self, folder: Path) -> None:
        from llmft.serving.app import create

        models = {name: str(run_of(task, folder / name)) for name, task in KINDS.items()}
        self.app = create(models["texts"], models=models)
        self.app.state.models.load_all()
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.address = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/"
        rows = (folder / "images/rows.json").read_text()
        self.image = base64.b64decode(re.findall(r'"([A-Za-z0-9+/=]{40,})"', rows)[0])

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("page"))
    yield found
    found.stop()
    for name in KINDS:
        found.app.state.models.get(name).batcher.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Open the page. Errors of its code, and what its policy forbids, fail the test."""
    pages: list[Any] = []
    wrong: list[str] = []

    def visited(model: str = "texts", locale: str = "en-US", **options: Any) -> Any:
        page = browser.new_page(locale=locale, **options)
        pages.append(page)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith((site.address, "data:")) else wrong.append(request.url),
        )
        page.goto(site.address)
        page.locator("#try form").wait_for()
        if model != "texts":
            page.select_option("#model", model)
        return page

    yield visited
    for page in pages:
        page.close()
    assert wrong == []


def test_a_text_is_answered_with_what_spoke_for_it(visit: Callable[..., Any]) -> None:
    page = visit()
    page.fill("#field-text", "good <b>and</b> 很好")
    explains = page.locator("#explain")
    if explains.count():
        explains.check()
    page.click("#send")
    page.locator("#result .bars").first.wait_for()
    shares = [float(text.rstrip("%")) for text in page.locator("#result .bars").first.locator("span").all_inner_texts() if text.endswith("%")]  # fmt: skip
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert re.search(r"\d+ ms, [\d.]+ ms of them in the server; model texts, version \w+", page.inner_text("#result"))
    page.get_by_role("button", name="Yes").click()
    page.get_by_text(re.compile(r"Thank you\. Accuracy of the last 1 with feedback: 100\.0%")).wait_for()
    if explains.count():
        assert page.locator("#result h2").inner_text().startswith("What speaks for ")
        assert page.locator("#result .text mark").all_inner_texts()[:1] == ["good"]
        assert page.locator("#result .text b").count() == 0, "what is typed is text, not HTML"


def test_attention_is_shown_as_what_it_is(visit: Callable[..., Any]) -> None:
    page = visit()
    page.fill("#field-text", "good 很好")
    page.check("#explain")
    page.click("#send")
    page.locator("#result .attention summary").click()
    assert page.locator("#result .attention table tr").count() >= 2, "a row for each layer, below the tokens"
    page.get_by_text("Attention is not an explanation").wait_for()


def test_a_number_has_feedback(visit: Callable[..., Any]) -> None:
    page = visit()
    sent: list[Any] = []

    def take(route: Any) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json={"metric": "mae", "value": 0.25, "of": 3})

    answer = {"answers": [{"answer": 2.5}], "ids": ["a-0"], "model": "texts", "version": "v", "truncated": []}
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    page.route("**/feedback", take)
    page.fill("#field-text", "x")
    page.click("#send")
    page.get_by_role("button", name="No", exact=True).click()
    page.fill("#truth", "2.75")
    page.locator("#result").get_by_role("button", name="Send").click()
    page.get_by_text("Thank you. Mean absolute error of the last 3 with feedback: 0.25.").wait_for()
    assert sent == [{"model": "texts", "id": "a-0", "label": 2.75}]


def test_a_dropped_image_is_answered(visit: Callable[..., Any], site: Site) -> None:
    page = visit("images")
    made = """bytes => { const all = new DataTransfer();
        all.items.add(new File([Uint8Array.from(atob(bytes), one => one.charCodeAt(0))], "x.png", {type: "image/png"}));
        return all; }"""
    dropped = page.evaluate_handle(made, base64.b64encode(site.image).decode())
    page.dispatch_event(".drop", "drop", {"dataTransfer": dropped})
    page.locator(".drop img:visible").wait_for()
    page.click("#send")
    page.locator("#result .bars").first.wait_for()
    text = page.evaluate_handle('() => { const all = new DataTransfer(); all.items.add(new File(["a"], "x.txt", {type: "text/plain"})); return all; }')  # fmt: skip
    page.dispatch_event(".drop", "drop", {"dataTransfer": text})
    page.get_by_text("x.txt is not an image.").wait_for()


def test_a_row_of_a_table_is_answered(visit: Callable[..., Any], site: Site) -> None:
    page = visit("table")
    fields = page.locator("#try .fields input")
    assert fields.count() >= 2
    for number in range(fields.count()):
        known = fields.nth(number).get_attribute("list")
        value = page.locator(f"[id='{known}'] option").first.get_attribute("value") if known else "1"
        fields.nth(number).fill(value or "1")
    page.click("#send")
    page.locator("#result .said").wait_for()


def test_a_chat_is_answered_part_by_part(visit: Callable[..., Any], site: Site) -> None:
    page = visit("talk")
    page.fill("#message", "say lumo")
    page.keyboard.press("Enter")
    page.locator("#send:enabled").wait_for()
    assert page.locator("#talk .turn.user").all_inner_texts() == ["say lumo"]
    first = page.locator("#talk .turn").nth(1).inner_text()
    assert first
    assert "broke off" not in first
    page.fill("#message", "and?")
    page.keyboard.press("Enter")
    page.locator("#talk .turn").nth(3).wait_for()
    page.locator("#send:enabled").wait_for()
    assert page.locator("#status").inner_text() == ""


def test_an_empty_text_is_said(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("#send")
    page.get_by_text("text: is missing", exact=True).wait_for()


def test_a_full_queue_is_said(visit: Callable[..., Any], site: Site) -> None:
    page = visit()
    page.fill("#field-text", "good")
    admission = site.app.state.models.admission
    admission.rows += 10**6
    try:
        page.click("#send")
        page.get_by_text(re.compile(r"The server is busy: its queue is full\. Try again in \d+ s\.")).wait_for()
        page.select_option("#model", "talk")
        page.fill("#message", "say lumo")
        page.keyboard.press("Enter")
        page.get_by_text("its queue is full").wait_for()
    finally:
        admission.rows -= 10**6
    page.fill("#message", "say lumo")
    page.keyboard.press("Enter")
    page.locator("#talk .turn").nth(1).wait_for()
    page.locator("#send:enabled").wait_for()
    assert not page.locator("#status").is_visible()


@pytest.mark.parametrize(("locale", "words"), [("en-US", ("Answer it", "Traffic")), ("zh-CN", ("预测", "流量"))])
def test_a_phone_and_both_languages(visit: Callable[..., Any], locale: str, words: tuple[str, str]) -> None:
    page = visit(locale=locale, viewport=PHONE)
    assert (page.inner_text("#send"), page.inner_text("#show-traffic")) == words
    assert page.locator("html").get_attribute("lang") == ("zh-CN" if locale == "zh-CN" else "en")
    page.fill("#field-text", "good " * 60 + "x" * 300)
    page.click("#send")
    page.locator("#result .bars").first.wait_for()
    width = "() => document.documentElement.scrollWidth"
    assert page.evaluate(width) <= PHONE["width"]
    for model in ("table", "images", "talk"):
        page.select_option("#model", model)
        assert page.evaluate(width) <= PHONE["width"], model
    page.click("#show-traffic")
    page.locator("#traffic svg").first.wait_for()
    assert page.evaluate(width) <= PHONE["width"]
    page.click("#language")
    other = "Traffic" if locale == "zh-CN" else "流量"
    assert page.inner_text("#show-traffic") == other
    page.reload()
    page.locator("#try form").wait_for(state="attached")
    assert page.inner_text("#show-traffic") == other, "the choice is kept"


def test_the_keyboard_alone_is_enough(visit: Callable[..., Any]) -> None:
    page = visit()

    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("() => document.activeElement.id") == name:
                outline = page.evaluate("() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.boxShadow; }")  # fmt: skip
                assert outline != "nonenone", f"{name} shows that it has the focus"
                return
        raise AssertionError(f"Tab does not reach {name}")

    tab_to("field-text")
    page.keyboard.type("good")
    page.keyboard.press("Control+Enter")
    page.locator("#result .bars").first.wait_for()
    tab_to("show-traffic")
    page.keyboard.press("Enter")
    page.locator("#traffic svg").first.wait_for()
    tab_to("language")
    page.keyboard.press("Space")
    assert page.inner_text("#show-try") == "试用"


def test_a_server_that_cannot_be_reached_is_said(visit: Callable[..., Any], site: Site) -> None:
    """The last test of the file: it ends the server."""
    page, chat = visit(), visit("talk")
    site.stop()
    page.fill("#field-text", "good")
    page.click("#send")
    page.get_by_text("The server cannot be reached. Is it still running?").wait_for()
    assert page.locator("#send").is_enabled()
    chat.fill("#message", "say lumo")
    chat.keyboard.press("Enter")
    chat.get_by_text("The server cannot be reached. Is it still running?").wait_for()
