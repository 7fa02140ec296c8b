"""The shape of the house: who may import whom, where a file stands, and what stays out of a quick start."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("morl", "rewards", "rollout")


def test_imports_keep_the_contracts(tmp_path: Path) -> None:
    """Of the whole graph, lazy imports included: layers, no cycles, rooms entered by their doors."""
    (tmp_path / "morl").mkdir()
    for entry in [*(ROOT / "morl").iterdir(), ROOT / "rewards", ROOT / "rollout", ROOT / "recipes"]:
        (tmp_path / "morl" / entry.name).symlink_to(entry)
    linter = Path(sys.executable).parent / "lint-imports"
    ran = subprocess.run(
        [linter, "--no-cache", ROOT / "pyproject.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout


def test_no_file_name_stands_twice_in_the_product() -> None:
    files = [file for package in (*PACKAGES, "examples") for file in (ROOT / package).rglob("*.py")]
    names = Counter(file.name for file in files if "tests" not in file.parts)
    assert {name for name, count in names.items() if count > 1} == {"__init__.py"}


def test_every_room_has_a_purpose_and_is_installed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in PACKAGES:
        for folder in {file.parent for file in (ROOT / package).rglob("*.py")}:
            source = (folder / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(source)), folder
            name = ".".join(folder.relative_to(ROOT).parts)
            assert name.removeprefix("morl.") in {
                installed.removeprefix("morl.") for installed in config["tool"]["setuptools"]["packages"]
            }, f"{name} is missing from tool.setuptools.packages"


def test_no_code_imports_a_bare_rewards_or_rollout() -> None:
    """A user's own `rewards.py` beside a script must not be taken for ours."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {module.split(".")[0] for module in modules} & {"rewards", "rollout", "recipes"}, file


@pytest.mark.parametrize(
    "statement",
    [
        "import morl, morl.rewards",
        "import morl.recipe, morl.cli.main, morl.rollout",
        "import morl.preflight, morl.evaluation, morl.api, morl.run, morl.report",
    ],
)
def test_light_imports_stay_light(statement: str) -> None:
    heavy = ("torch", "ray", "vllm", "transformers", "deepspeed", "sympy", "datasets", "wandb")
    code = f"{statement}; import sys; print([m for m in {heavy!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_loop_fits_a_screen() -> None:
    assert len((ROOT / "morl" / "train.py").read_text(encoding="utf-8").splitlines()) <= 100


def test_a_rewards_module_beside_a_script_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("raise RuntimeError('the wrong one')")
    (tmp_path / "script.py").write_text("import morl.rewards, morl.rollout; print(morl.rewards.reward.__name__)")
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "reward"
