"""What ``pip install`` gives, from the wheel and from the source distribution."""

from __future__ import annotations

import ast
import email
import email.message
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

import starlette_sse

ROOT = Path(__file__).parents[2]
DESCRIPTION = ("setup.py", "setup.cfg", "MANIFEST.in", "README.rst", "CHANGELOG.rst", "LICENSE", ".ruff.toml")
FOLDERS = ("starlette_sse", "tests", "example_app", "docs", "benchmarks", "scripts")
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "starlette_sse").rglob("*.py"))
VERSION = starlette_sse.__version__

# A dependency that cannot even be imported: building must not need it, whatever else is installed.
BROKEN = "raise RuntimeError('the build imported a dependency')"


def run(command: Sequence[str], directory: Path, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=directory, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, by way of the source distribution, from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name)
    for name in DESCRIPTION:
        shutil.copy(ROOT / name, source / name)
    poison = tmp_path_factory.mktemp("poison")
    for dependency in ("starlette", "anyio", "structlog"):
        (poison / f"{dependency}.py").write_text(BROKEN)
    built = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)]
    run(command, source, PYTHONPATH=str(poison))
    return built


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"starlette_sse-{VERSION}.dist-info/METADATA"))


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module, the marker that it is typed, and the licence; no tests, no example."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = [name for name in names if ".dist-info/" not in name]
    assert sorted(package) == sorted([*MODULES, "starlette_sse/py.typed"])
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_source_distribution_has_what_the_repository_has(sdist: Path) -> None:
    """It has what its own set-up reads, the documents and the tests; nothing that was made of them."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    made = re.compile(r"\.pyc$|/node_modules/")
    names_of_files = {path.relative_to(ROOT).as_posix() for path in files}
    assert {name for name in names_of_files if not made.search(name)} | set(DESCRIPTION) <= names
    assert not [name for name in names if made.search(name)]


def test_the_version_has_one_source(metadata: email.message.Message) -> None:
    """The package's ``__version__``, a plain text that is read without importing anything."""
    tree = ast.parse((ROOT / "starlette_sse" / "__init__.py").read_text())
    (assigned,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert isinstance(assigned, ast.Constant)
    assert metadata["Version"] == assigned.value == VERSION


def test_the_metadata_says_what_is_needed(metadata: email.message.Message) -> None:
    """Three dependencies at run time; all else only on request."""
    required = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert sorted(re.split(r"\W", each)[0] for each in required) == ["anyio", "starlette", "structlog"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"redis", "prometheus", "opentelemetry", "testing"} <= set(metadata.get_all("Provides-Extra", []))
    assert "starlette_sse" in str(metadata.get_payload())


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Installed from either, the package imports from where it was installed, and its typing marker is there."""
    distribution: Path = request.getfixturevalue(kind)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(tmp_path / "there")]
    run([*pip, *offline, str(distribution)], tmp_path)
    code = "import starlette_sse; print(starlette_sse.__file__, starlette_sse.__version__)"
    printed = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(tmp_path / "there"))
    assert printed.split() == [str(tmp_path / "there" / "starlette_sse" / "__init__.py"), VERSION]
    assert (tmp_path / "there" / "starlette_sse" / "py.typed").exists()


def test_the_top_of_the_repository_stays_small() -> None:
    """Only names that people expect to find stand at the top."""
    asked = {"setup.cfg", "setup.py", "README.rst", "CHANGELOG.rst", "starlette_sse", "tests", "example_app"}
    expected = {"LICENSE", "MANIFEST.in", "scripts", "benchmarks", "docs", ".ci", ".gitignore", ".ruff.toml", ".git"}
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    names = {path.name for path in ROOT.iterdir() if not any(fnmatch(path.name, pattern) for pattern in ignored)}
    assert asked <= names
    assert names - asked <= expected
