"""Images and videos that rows name by URL, from a real server."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from morl.data.prompt_set import PromptSet
from morl.errors import BadMediaError
from morl.media import downloads
from morl.recipe.schema.objective_section import ObjectiveSpec


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (31, 17), "teal").save(file, "PNG")
    return file.getvalue()


class Server:
    """What answers, and how often each path was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                outer.answer(self, self.path, outer.asked[self.path])

            def log_message(self, *told: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def answer(handler: BaseHTTPRequestHandler, path: str, time: int) -> None:
        if path == "/gone.png":
            handler.send_error(404)
            return
        if path == "/busy.png" and time < 3:
            handler.send_error(503)
            return
        if path == "/moved.png":
            handler.send_response(302)
            handler.send_header("Location", "/a.png")
            handler.end_headers()
            return
        body = png() if path.endswith(".png") else b"<html>a page</html>"
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) + (9 if path == "/torn.png" else 0)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def prompts(tmp_path: Path, url: str, **media: Any) -> PromptSet:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": url}) + "\n")
    data = {"source": "jsonl", "path": str(tmp_path / "rows.jsonl"), "media": media}
    prompt = [{"image": "{{ image }}"}, "What is it?"]
    spec = {"share": 1, "data": data, "prompt": prompt, "gold": "a square", "rewards": [{"use": "exact"}]}
    return PromptSet(ObjectiveSpec.model_validate(spec), "seen")


@pytest.mark.parametrize("path", ["/a.png", "/busy.png", "/moved.png"])
def test_a_url_is_fetched_once_and_kept(server: Server, tmp_path: Path, path: str) -> None:
    for _ in range(2):
        (image,) = prompts(tmp_path, server.url + path, downloads=str(tmp_path / "kept"))[0].media
        assert (image.width, image.height) == (31, 17)
        assert image.load().getpixel((0, 0)) == (0, 128, 128)
    assert server.asked[path] == (3 if path == "/busy.png" else 1)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.read_bytes() == png()
    assert kept.suffix == ".png"


def test_urls_are_refused_unless_a_folder_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadMediaError, match=r"rows.jsonl:1: .*'http:' is not read: set data.media.downloads"):
        prompts(tmp_path, f"{server.url}/a.png")[0]
    assert not server.asked


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone.png", r"http://127.0.0.1:\d+/gone.png: HTTP 404 Not Found"),
        ("/torn.png", r"/torn.png cannot be downloaded: peer closed connection"),
        ("/page", r"cannot be read"),
    ],
)
def test_what_cannot_be_had_names_row_and_reason(server: Server, tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(BadMediaError, match=rf"rows.jsonl:1: .*{reason}"):
        prompts(tmp_path, server.url + path, downloads=str(tmp_path / "kept"))[0]
    if path != "/page":
        assert list((tmp_path / "kept").glob("*")) == []


def test_no_server_is_an_error_of_the_row(tmp_path: Path) -> None:
    with pytest.raises(BadMediaError, match=r"rows.jsonl:1: http://127.0.0.1:9/a.png cannot be downloaded: "):
        prompts(tmp_path, "http://127.0.0.1:9/a.png", downloads=str(tmp_path / "kept"))[0]


def test_a_file_without_end_is_not_kept(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_BYTES", 50)
    with pytest.raises(BadMediaError, match="is larger than 50 bytes, the limit for one file"):
        prompts(tmp_path, f"{server.url}/a.png", downloads=str(tmp_path / "kept"))[0]
    assert list((tmp_path / "kept").glob("*")) == []
