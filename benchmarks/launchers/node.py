"""Contestants on Node.js."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import Terms
from benchmarks.launchers.lines import speaking
from benchmarks.launchers.programs import find, version_of
from benchmarks.servers import MissingPartError, Server, ServerOptions

__all__ = ["Node"]

CONTESTANTS = Path(__file__).parent.parent / "contestants"


@dataclass(frozen=True)
class Node:
    """Runs ``server.js`` of a directory whose packages npm installs there, as its lock file says."""

    directory: str
    """Below :mod:`benchmarks.contestants`."""
    package: str
    """What it is about."""
    batch: bool = False
    """Whether events that are published at once are written at once."""

    def prepare(self) -> None:
        find("node", "nodejs")
        if self._installed() != self._locked():
            npm = find("npm", "npm")
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund"], cwd=self._path, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise MissingPartError(f"npm could not install {self.package}: {done.stderr.strip()}")

    def versions(self) -> dict[str, str]:
        return {"node": version_of(find("node", "nodejs"), "--version"), self.package: self._installed() or "unknown"}

    @asynccontextmanager
    async def launch(self, name: str, options: ServerOptions, terms: Terms) -> AsyncIterator[Server]:
        settings = json.dumps({"ping": terms.ping, "batch": self.batch})
        async with speaking(name, find("node", "nodejs"), str(self._path / "server.js"), settings) as child:
            yield Server(name, await child.port(), child)

    @property
    def _path(self) -> Path:
        return CONTESTANTS / self.directory

    def _locked(self) -> str:
        lock: dict[str, Any] = json.loads((self._path / "package-lock.json").read_text())
        version: str = lock["packages"][f"node_modules/{self.package}"]["version"]
        return version

    def _installed(self) -> str | None:
        manifest = self._path / "node_modules" / self.package / "package.json"
        if not manifest.exists():
            return None
        version: str = json.loads(manifest.read_text())["version"]
        return version
