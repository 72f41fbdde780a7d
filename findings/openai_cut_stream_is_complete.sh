#!/usr/bin/env bash
# One would guess: OpenAI's client raises if a stream of server-sent events ends in the middle, or tells of an error.
# What happens: a stream that ends anywhere, even inside the JSON of an event, is a complete answer. An error that comes as
# `event: error` with a body of one's own is swallowed too. Only `data: {"error": ...}` raises, and only a chunk with
# `finish_reason` shows that an answer is whole.
# Source: openai/_streaming.py, which iterates until the connection ends and looks for the key "error" in the data.
# Way out: serving/openai.py sends errors as data, and `finish_reason` last; commands/remote.py takes a stream without it
# for one that broke off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openai==3.57.0
"$folder/venv/bin/python" - <<'P'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

part = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
part["choices"] = [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]
first = f"data: {json.dumps(part)}\n\n"
STREAMS = {
    "ends without a word": first,
    "ends inside an event": first + 'data: {"id": "1", "obj',
    "event: error": first + 'event: error\ndata: {"detail": "out of memory"}\n\n',
    "data with error": first + 'data: {"error": {"message": "out of memory"}}\n\n',
}


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(STREAMS[asked["messages"][0]["content"]].encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
print("openai", openai.__version__)
found = {}
for name in STREAMS:
    text, error = "", "no error"
    try:
        for chunk in client.chat.completions.create(model="m", messages=[{"role": "user", "content": name}], stream=True):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    except Exception as problem:
        error = type(problem).__name__
    found[name] = error
    print(f"{name:22} {text!r} {error}")
assert found["data with error"] == "APIError"
assert all(found[name] == "no error" for name in STREAMS if name != "data with error"), "a cut stream raises now"
P
