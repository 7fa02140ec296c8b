"""The example plugin: installed as a stranger's package would be, and found by its entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "custom_verifier"

PROGRAM = """
import sys
from pathlib import Path
from morl.rewards import REWARDS
from morl.rewards.checks import check_examples
from morl.cli.reward_docs import describe_rewards
from morl.evaluation.score_files import score_file

assert REWARDS.entry("palindrome").origin == "morl-palindrome 0.1.0 (morl_palindrome:palindrome)"
assert "morl_palindrome" not in sys.modules, "discovery must import nothing"
assert check_examples("palindrome") == []
assert "morl-palindrome 0.1.0" in describe_rewards("palindrome")
score_file("palindrome", ["at_least=4"], Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--quiet", "--target", folder / "site", folder / "source"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "site"


def test_an_installed_plugin_is_found_and_scores(installed: Path, tmp_path: Path) -> None:
    rows = [{"response": "Anna"}, {"response": "Bob"}, {"response": "Anne"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-c", PROGRAM, tmp_path / "in.jsonl", tmp_path / "out.jsonl"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["value"] for row in scored] == [1.0, 0.0, 0.0]
