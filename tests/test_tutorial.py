"""The tutorial: every block of code in it runs, and says what is shown."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from beside import Environment

TUTORIAL = Path(__file__).parents[1] / "docs" / "write_a_verifier.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The commands of a user whose environment is this one.
PREAMBLE = """
set -o pipefail
python() {{ {python} "$@"; }}
morl() {{ {python} -m morl "$@"; }}
pip() {{ {python} -m pip "$@"; }}
pytest() {{ {python} -m pytest -p no:cacheprovider "$@"; }}
"""


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))


def commands(block: str) -> list[tuple[str, str]]:
    """Each command of a console block, and the output that is shown after it."""
    found = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert found[0] == "", "a console block begins with a command"
    return [(one.partition("\n")[0], one.partition("\n")[2]) for one in found[1:]]


def matches(shown: str, said: str) -> bool:
    """Whether the output is the one shown, in which … stands for any text, on a line of its own for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…\n" else re.escape(line).replace("…", ".*")
        for line in shown.splitlines(keepends=True)
    )
    return re.fullmatch(pattern, said) is not None


def bash(command: str, environment: Environment, folder: Path) -> subprocess.CompletedProcess[str]:
    script = PREAMBLE.format(python=shlex.quote(str(environment.python))) + command
    settings = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, env=settings, timeout=300)


@pytest.mark.parametrize(
    ("shown", "said", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nc\n", "a\nb\n", False),
        ("1 passed in …\n", "1 passed in 0.1s\n", True),
        ("1 passed in …\n", "1 failed\n", False),
        ("", "a\n", False),
    ],
)
def test_what_is_shown_is_compared(shown: str, said: str, same: bool) -> None:
    assert matches(shown, said) == same


def test_there_is_code_of_every_kind() -> None:
    kinds = [kind for kind, _ in blocks()]
    assert set(kinds) == {"python", "yaml", "console"}
    assert len(kinds) == TUTORIAL.read_text(encoding="utf-8").count("```") / 2
    assert kinds.count("python") >= 5
    assert kinds.count("console") >= 4


def test_every_block_runs_and_says_what_is_shown(tmp_path: Path) -> None:
    environment = Environment.make(tmp_path / "venv")
    folder = tmp_path / "work"
    folder.mkdir()
    for kind, text in blocks():
        named = re.match(r"# (\w+\.\w+)\n", text)
        if kind == "console":
            for command, shown in commands(text):
                done = bash(command, environment, folder)
                assert matches(shown, done.stdout), f"$ {command}\n{done.stdout}{done.stderr}"
        else:
            assert named is not None or kind == "python", f"a block that nothing reads:\n{text}"
            if named is not None:
                (folder / named[1]).write_text(text, encoding="utf-8")
            if kind == "python":
                code = [named[1]] if named is not None else ["-c", text]
                done = environment.run(*code, cwd=folder)
                assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_the_plugins_of_the_docs_pass_a_check(tmp_path: Path) -> None:
    found = BLOCK.findall(TUTORIAL.with_name("plugins.md").read_text(encoding="utf-8"))
    for _, text in found:
        (tmp_path / text.split()[1]).write_text(text, encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.py", "lines.yaml", "update.py"]
    (tmp_path / "notes.txt").write_text("one\none two three\n", encoding="utf-8")
    check = [sys.executable, "-m", "morl", "check", "lines.yaml"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("all is well: 1 row of 1 set read"), done.stdout + done.stderr
    update = (
        "import torch, update; print(update.best_of_group(torch.tensor([[0.0, 1, float('nan')]]), worth=2.0).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", update], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[[0.0, 2.0, 0.0]]\n", done.stderr


def test_the_first_verifier_has_ten_lines() -> None:
    _, text = blocks()[0]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10
