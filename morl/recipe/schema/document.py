"""A whole recipe file: imports its plugins first, and can be written back to YAML."""

from __future__ import annotations

import importlib
import io
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from morl.errors import UsageError
from morl.recipe.rules import Rule, refuse
from morl.recipe.schema.section import Spec


class _Representer(SafeRepresenter):
    """Writes text that contains line breaks in double quotes, the only style that keeps every kind of them."""

    def represent_str(self, data: str) -> ScalarNode:
        """Text as a YAML scalar."""
        style = '"' if set(data) & set("\n\r\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


class Document(Spec):
    """A whole recipe file."""

    @model_validator(mode="before")
    @classmethod
    def _import_plugins(cls, value: Any) -> Any:
        plugins = value.get("plugins") if isinstance(value, Mapping) else None
        if isinstance(plugins, list):
            rules = []
            for index, plugin in enumerate(plugins):
                try:
                    if isinstance(plugin, str):
                        import_plugin(plugin)
                except UsageError as error:
                    rules.append(Rule(("plugins", index), str(error)))
            refuse(cls.__name__, rules)
        return value

    def to_yaml(self) -> str:
        """The recipe with all defaults written out; loading the text gives an equal recipe."""
        yaml = YAML(typ="safe", pure=True)
        yaml.Representer = _Representer
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keeps the order of the schema
        yaml.allow_unicode = True
        yaml.width = 1000
        text = io.StringIO()
        yaml.dump(self.model_dump(mode="json"), text)
        return text.getvalue()


def import_plugin(plugin: str) -> None:
    """Import a module, or a .py file, so that its decorators register.

    Afterwards the file can be imported by its name, in worker processes too.
    Raises: UsageError when it is missing, fails, or has the name of another module.
    """
    try:
        if not plugin.endswith(".py"):
            importlib.import_module(plugin)
            return
        path = Path(plugin).resolve()
        if not path.is_file():
            raise UsageError(f"no such file: {plugin}")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        importlib.invalidate_caches()
        imported = Path(importlib.import_module(path.stem).__file__ or "").resolve()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a script may call sys.exit
        raise UsageError(f"cannot be imported: {_line_of(error)}{type(error).__name__}: {error}") from error
    if imported != path:
        raise UsageError(f"another module is called '{path.stem}' ({imported}): rename the file")


def _line_of(error: BaseException) -> str:
    """`file:line: ` where the plugin raised during import; empty when there was nothing to import."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[1].filename}:{frames[1].lineno}: " if len(frames) > 1 else ""
