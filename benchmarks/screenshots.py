"""Pictures of the page of `llmft serve` for the docs: `python benchmarks/screenshots.py FOLDER texts=RUN talk=RUN`.

Needs the extra `dev`, and a Chromium in PATH. The model named talk is chatted with; another gets a text or its example.
"""

import io
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from llmft.serving.app import create

TEXT = "Sound went off for the last reel and they offered us popcorn. Not our money, popcorn."
COLORS = 96  # a palette makes a PNG of a page three times as small


def main() -> None:
    """Serve the runs, and write a picture of each."""
    folder, models = Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])
    app = create(next(iter(models.values())), models=models)
    app.state.models.load_all()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in models:
            page = browser.new_page(viewport={"width": 720, "height": 780}, locale="en-US")
            page.goto(address)
            page.locator("#try form").wait_for()
            if len(models) > 1:
                page.select_option("#model", name)
            ask(page, name)
            save(page, folder / f"serve-{name}.png")
        page = browser.new_page(viewport={"width": 375, "height": 780}, locale="zh-CN", color_scheme="dark")
        page.goto(address)
        page.locator("#try form").wait_for()
        ask(page, next(iter(models)))
        save(page, folder / "serve-phone.png")
        browser.close()
    server.should_exit = True


def ask(page: Any, name: str) -> None:
    """Ask the model that is chosen."""
    if name == "talk":
        for message in ("What is the sun in Chinese?", "And the moon?"):
            page.fill("#message", message)
            page.keyboard.press("Enter")
            page.locator("#send:enabled").wait_for()
        return
    if page.locator("#field-text").count():
        page.fill("#field-text", TEXT)
    elif page.get_by_text("Example", exact=True).count():
        page.get_by_text("Example", exact=True).click()
    if page.locator("#explain").count():
        page.check("#explain")
    page.click("#send")
    page.locator("#result section").first.wait_for()


def save(page: Any, file: Path) -> None:
    """Write what the browser shows."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(COLORS).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
