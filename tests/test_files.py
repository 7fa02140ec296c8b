"""Files that are whole or not there; and what `--out` may name."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from morl.cli.main import main
from morl.errors import UsageError
from morl.files import replacing, require_writable


def test_a_pipe_or_a_device_stays_what_it_is(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    require_writable(pipe)
    with replacing(pipe) as file:
        file.write(b"told")
    reader.join(10)
    assert heard == [b"told"]
    assert pipe.is_fifo()


def test_a_link_still_leads_to_the_file(tmp_path: Path) -> None:
    link = tmp_path / "link"
    (tmp_path / "folder").mkdir()
    link.symlink_to(tmp_path / "folder" / "file")
    for text in (b"old", b"new"):
        with replacing(link) as file:
            file.write(text)
        assert link.is_symlink()
        assert (tmp_path / "folder" / "file").read_bytes() == text


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "file") as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "new" / "folder" / "file")
    require_writable(tmp_path / "file")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "below", "file' is not a folder")):
        with pytest.raises(UsageError, match=f"^--out: .*{message}"):
            require_writable(path)


@pytest.mark.parametrize(
    "command",
    [
        "score math --in FOLDER/in.jsonl --out FOLDER",
        "score --recipe quickstart --samples FOLDER --out FOLDER",
        "report FOLDER --out FOLDER",
        "eval quickstart --model none --out FOLDER",
        "eval evals/gsm8k data.path=FOLDER/in.jsonl --responses FOLDER/in.jsonl --out FOLDER",
        "export FOLDER --out FOLDER/in.jsonl",
        "export FOLDER --out FOLDER/in.jsonl/below",
    ],
)
def test_every_command_says_that_it_cannot_write(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"response": "4", "gold": "4", "question": "2+2?", "answer": "#### 4"}\n')
    assert main(command.replace("FOLDER", str(tmp_path)).split()) == 2
    assert capsys.readouterr().err.startswith("--out: ")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
