"""The documents keep their word: they render without a warning, and the code in them runs.

The Python blocks of a document run from its top to its end in one namespace, as a reader would try them. A block with
``:class: fragment`` is only part of something; it is compiled. Commands in ``console`` blocks name scripts that exist.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docutils.core
import pytest
from docutils import nodes

from tests.servers.client import EventStream
from tests.servers.processes import ROOT, running

DOCUMENTS = [ROOT / "README.rst", ROOT / "CHANGELOG.rst", *sorted((ROOT / "docs").rglob("*.rst"))]


def rendered(document: Path) -> nodes.document:
    """Parse a document; whatever the parser has to say against it is an error."""
    settings = {"report_level": 1, "halt_level": 2, "file_insertion_enabled": False}
    return docutils.core.publish_doctree(document.read_text(), source_path=str(document), settings_overrides=settings)


def blocks(document: Path, language: str) -> Iterator[nodes.literal_block]:
    for block in rendered(document).findall(nodes.literal_block):
        if language in block["classes"]:
            yield block


def compiled(document: Path, block: nodes.literal_block) -> Any:
    """Compile a block so that a traceback shows its place in the document."""
    text = block.astext()
    source = document.read_text()
    indented = re.compile("\n".join(rf"[ ]*{re.escape(line)}" if line else r"[ ]*" for line in text.split("\n")))
    found = indented.search(source)
    line = source[: found.start()].count("\n") if found else 0
    tree = ast.increment_lineno(ast.parse(textwrap.dedent(text)), line)
    return compile(tree, str(document), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_document_renders_without_warnings(document: Path) -> None:
    """Every link target, heading and table is well-formed, as a package index demands."""
    assert rendered(document).children


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_code_of_a_document_runs(document: Path) -> None:
    """What a reader copies works."""
    namespace: dict[str, Any] = {"__name__": document.stem}
    for block in blocks(document, "python"):
        code = compiled(document, block)
        if "fragment" not in block["classes"]:
            exec(code, namespace)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_commands_of_a_document_exist(document: Path) -> None:
    """A script that a document tells to run is there."""
    for block in blocks(document, "console"):
        for script in re.findall(r"\bscripts/[\w-]+", block.astext()):
            assert (ROOT / script).is_file(), script


def test_the_first_example_of_the_readme_streams(tmp_path: Path) -> None:
    """Pasted into a file and served, it sends its first event."""
    first = next(blocks(ROOT / "README.rst", "python")).astext()
    (tmp_path / "example.py").write_text(first)
    (path,) = re.findall(r'Route\("([^"]+)"', first)

    def uvicorn(port: int) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "example:app", "--port", str(port)]

    with running(uvicorn, tmp_path, environ={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as server:
        with EventStream(server.port, path) as stream:
            assert stream.next().data
