"""A virtual environment for installing packages, which can also import everything installed here."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment on top of the one that the tests run in."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        environment = cls(folder)
        parents = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        site = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        lines = [f"import site; site.addsitedir({path!r})\n" for path in parents]  # reads the .pth files there, too
        Path(site, "beside.pth").write_text("".join(lines))
        return environment

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run its Python and capture the output."""
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", "COLUMNS": "120"}
        return subprocess.run(
            [self.python, *arguments], cwd=cwd, capture_output=True, text=True, env=environment, timeout=300
        )

    def install(self, package: Path) -> None:
        """Install a folder in editable mode."""
        done = self.run("-m", "pip", "install", "--quiet", "--no-build-isolation", "-e", package)
        assert done.returncode == 0, done.stderr
