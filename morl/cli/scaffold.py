"""`morl rewards new NAME`: writes a package with one reward, ready to install, test and change."""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from morl.errors import UsageError
from morl.registry import REWARDS

FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$package"
version = "0.1.0"
description = "The reward '$name' for morl"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["morl-rl"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points."morl.rewards"]
$name = "$module:$name"

[tool.setuptools]
py-modules = ["$module"]
""",
    "$module.py": '''\
"""The reward `$name`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from morl.rewards import Example, Verdict, final_text, reward


@reward(
    "$name",
    examples=[
        Example("Paris", "paris", 1.0),
        Example("Rome", "paris", 0.0),
        Example("Paris", "paris", 0.0, {"ignore_case": False}),
        Example("<think>Rome?</think>Paris", "paris", 1.0),
        Example("<think>It may be Paris", "paris", 0.0),
        Example("Paris", "", None),
    ],
    answer=str,
)
def $name(
    response: str,
    gold: Any,
    *,
    ignore_case: Annotated[bool, Field(description="Whether case does not matter.")] = True,
) -> Verdict:
    """1 when the text after the thinking equals the gold, else 0."""
    if not isinstance(gold, str) or not gold.strip():
        return Verdict(None, "bad_gold", "the gold must be non-empty text")
    text = final_text(response)
    if not text:
        return Verdict(0.0, "no_answer", "nothing follows the thinking")
    expected, answer = gold.strip(), text
    if ignore_case:
        expected, answer = expected.casefold(), answer.casefold()
    return Verdict(float(answer == expected), "ok", text[:100])
''',
    "tests/test_$name.py": """\
from morl.testing import check_reward


def test_$name():
    check_reward("$name")
""",
    "README.md": """\
# $package

The reward `$name` for morl. In an environment with morl:

```console
pip install --no-build-isolation -e .
morl rewards $name
pytest
```

The second command shows the documentation, options and examples of the reward; the third runs the conformance kit on
it. In a recipe:

```yaml
gold: "{{ answer }}"
rewards: [{use: $name, ignore_case: true}]
```
""",
}
"""The files of a package, by path; paths and texts are templates."""

_TAKEN = frozenset(
    {"new", "reward", "final_text", "annotations", *vars(builtins), *keyword.kwlist, *keyword.softkwlist}
)


def new_reward(name: str, out: Path | None = None) -> Path:
    """Write a package with the reward `name` to the new folder `out`, by default `morl-<name>`.

    Returns: the folder.
    Raises: UsageError when the name is invalid or taken, or the folder is not empty or cannot be written.
    """
    _check_name(name)
    names = {"name": name, "module": f"morl_{name}", "package": f"morl-{name.replace('_', '-')}"}
    folder = out if out is not None else Path(names["package"])
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists, and nothing is overwritten: choose a new folder with --out")
        for path, text in FILES.items():
            file = folder / Template(path).substitute(names)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as handle:
                handle.write(Template(text).substitute(names))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*", name) or len(name) > 50:
        valid = "_".join(re.findall("[a-z0-9]+", name.lower())).lstrip("0123456789_")
        near = f"; did you mean '{valid}'?" if 2 < len(valid) <= 50 else ""
        raise UsageError(f"'{name}' is no valid module name: use lower-case letters, digits and '_'{near}")
    if name in _TAKEN:
        raise UsageError(f"'{name}' is reserved in Python or in morl: choose another name")
    if name in REWARDS.entries():
        raise UsageError(f"there is a reward '{name}' already, from {REWARDS.entry(name).origin}: choose another name")
    if importlib.util.find_spec(f"morl_{name}") is not None:
        raise UsageError(f"there is a module 'morl_{name}' already: choose another name")
