"""The shape of the house: who may import whom, and what stays out of a quick start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"morl": ROOT / "morl", "morl.rewards": ROOT / "rewards", "morl.rollout": ROOT / "rollout"}


def imports_of(file: Path, *, lazy: bool) -> set[str]:
    """Modules that a file imports: at import only, or anywhere."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else _at_import(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _at_import(body: list[ast.stmt]):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _at_import(node.body)
        else:
            yield node


def files(package: str) -> list[Path]:
    return sorted(FOLDERS[package].rglob("*.py"))


def offenders(package: str, forbidden: tuple[str, ...], *, lazy: bool) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files(package)
        for module in imports_of(file, lazy=lazy)
        if any(module == name or module.startswith(f"{name}.") for name in forbidden)
    ]


def test_no_code_imports_a_bare_rewards_or_rollout() -> None:
    for package in FOLDERS:
        assert offenders(package, ("rewards", "rollout", "recipes"), lazy=True) == []


def test_rewards_never_import_rollout_nor_anything_heavy() -> None:
    heavy = ("morl.rollout", "morl.learner", "morl.train", "torch", "ray", "vllm", "transformers", "deepspeed")
    assert offenders("morl.rewards", heavy, lazy=True) == []


def test_rollout_never_imports_rewards_and_imports_heavy_packages_lazily() -> None:
    assert offenders("morl.rollout", ("morl.rewards", "morl.learner", "morl.train"), lazy=True) == []


def test_algorithms_know_tensors_alone() -> None:
    wrong = [
        f"{file.name} imports {module}"
        for file in sorted((ROOT / "morl" / "algorithms").glob("*.py"))
        for module in imports_of(file, lazy=True)
        if module.startswith(("morl.", "ray", "deepspeed", "transformers"))
        and not module.startswith(("morl.algorithms", "morl.registry"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "statement",
    [
        "import morl, morl.rewards",
        "import morl.recipe.load, morl.cli.main, morl.rollout",
        "import morl.preflight.recipe_check, morl.evaluation.score_files",
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
