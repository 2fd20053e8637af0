"""How the modules depend on each other and on the outside."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import starlette_sse

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "starlette_sse"

# From the top down; a module imports only from the rows below its own. A package is one thing here.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"prometheus", "opentelemetry"}),
    frozenset({"presence"}),
    frozenset({"endpoints", "closing"}),
    frozenset({"responses", "registry", "following"}),
    frozenset({"streams"}),
    frozenset({"broker", "sockets", "metrics"}),
    frozenset({"limits", "draining", "observers", "error_events", "iterators", "bodies"}),
    frozenset({"refusals", "attributes"}),
    frozenset({"events", "decoding", "headers"}),
    frozenset({"exceptions", "eventloop"}),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(PACKAGE)], "starlette_sse.") if "testing" not in module.name
)


def imports(path: Path) -> Iterator[str]:
    """Yield the part of the package that each import statement of a file names, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "starlette_sse":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("starlette_sse."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("starlette_sse"))


def parts() -> list[str]:
    names = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return sorted(names - {"__init__", "testing"})


@pytest.mark.parametrize("part", parts())
def test_modules_import_only_downwards(part: str) -> None:
    """Each part of the package has a layer, and knows nothing of what stands beside or above it."""
    assert part in LAYER, f"give {part} its place in LAYERS"
    folder = PACKAGE / part
    for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        for imported in set(imports(path)) - {part}:
            assert imported in LAYER, f"{path.name} imports {imported!r}, which has no layer"
            assert LAYER[part] < LAYER[imported], f"{path.name} imports {imported}, which is not below {part}"


def test_the_layers_name_no_part_that_is_gone() -> None:
    """The table is the package's map, so it shows what is there."""
    assert sorted(LAYER) == parts()


PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_package_says_what_its_modules_are_for(folder: Path) -> None:
    """Its first words are a map: nothing that is there is left out."""
    words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    missing = sorted(name for name in modules - {"__init__"} if not re.search(rf"\b{name}\b", words))
    assert not missing, f"{folder.name}/__init__.py does not tell of {', '.join(missing)}"


def test_apps_are_told_to_import_only_from_what_is_theirs() -> None:
    """The package's first words name those modules, and no document goes beyond them."""
    words = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())) or ""
    public = set(re.findall(r"``(\w+)``", words[words.index("Apps import from here") :]))
    told = {
        name
        for path in [ROOT / "README.rst", ROOT / "CHANGELOG.rst", *(ROOT / "docs").glob("*.rst")]
        for name in re.findall(r"\bstarlette_sse\.(\w+)", path.read_text())
        if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
    }
    assert told
    assert told <= public


def imported_modules(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each module of the package that a file imports from, and what it takes of it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("starlette_sse"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, "") if whole in FILES else (str(node.module), alias.name)


def file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


FILES = {module.name: file_of(module.name) for module in pkgutil.walk_packages([str(PACKAGE)], "starlette_sse.")} | {
    "starlette_sse": file_of("starlette_sse")
}


#: ``SSETestClient.blocking()`` makes what is built on its class.
FACTORY = ("starlette_sse.testing.client", "starlette_sse.testing.blocking")


def test_no_modules_import_each_other() -> None:
    """Not over any number of others either, and not for types alone."""
    above = {name: {module for module, _ in imported_modules(path)} for name, path in FILES.items()}
    above[FACTORY[0]].remove(FACTORY[1])
    while ready := [name for name, needs in above.items() if not needs & above.keys()]:
        for name in ready:
            del above[name]
    assert above == {}


def test_modules_take_of_each_other_what_is_offered() -> None:
    """A name that another module imports is in ``__all__``, so that its owner knows."""
    taken = {pair for path in FILES.values() for pair in imported_modules(path) if pair[1]}
    secret = {(module, name) for module, name in taken if name not in importlib.import_module(module).__all__}
    assert secret == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_offers(name: str) -> None:
    """Each module's ``__all__`` names what it has, once."""
    module = importlib.import_module(name)
    offered = module.__all__
    assert len(set(offered)) == len(offered)
    assert [each for each in offered if not hasattr(module, each)] == []


def test_the_facade_offers_what_its_modules_offer() -> None:
    """A public name comes from a module that offers it, and the package's ``__all__`` names all of them."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    taken = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in taken for alias in node.names]
    assert sorted(names) == sorted(starlette_sse.__all__)
    for node in taken:
        module = importlib.import_module(str(node.module))
        assert {alias.name for alias in node.names} <= set(module.__all__)


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(distribution: str) -> set[str]:
    """Return the distributions that installing one without extras installs, itself included."""
    found: set[str] = set()
    waiting = [distribution]
    while waiting:
        name = normal(waiting.pop())
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [re.split(r"[^\w.-]", each)[0] for each in requirements if "extra ==" not in each]
    return found


ALONE = """
import sys

class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {allowed!r} | sys.stdlib_module_names:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Fence())
import starlette_sse
"""


def test_importing_the_package_needs_only_its_dependencies() -> None:
    """With nothing else installed than what the package requires, it imports: no extra's library is needed."""
    dependencies = set().union(*map(declared, ("starlette", "anyio", "structlog")))
    owners = metadata.packages_distributions()
    allowed = {name for name, found in owners.items() if dependencies & set(map(normal, found))}
    assert {"starlette", "anyio", "structlog"} <= allowed
    run(ALONE.format(allowed=allowed | {"starlette_sse"}))


# What is compared are all attributes of all loaded modules and of their classes, so no patch can hide.
UNCHANGED = """
import asyncio, contextvars, inspect, logging, signal, sys, threading, warnings
import anyio, starlette.applications, starlette.endpoints, starlette.responses, starlette.routing, structlog
import uvicorn, uvicorn.main, uvicorn.server, anyio._backends._asyncio, anyio._backends._trio

def state():
    found = {}
    for name, module in list(sys.modules.items()):
        if name == "__main__" or name.startswith("starlette_sse"):
            continue
        for key, value in list(getattr(module, "__dict__", {}).items()):
            found[name, key] = id(value)
            if inspect.isclass(value):
                found.update({(name, key, part): id(held) for part, held in list(vars(value).items())})
                # anyio's modules give their classes the package's name when they are imported; from Python 3.13 on
                # this takes the class's line away.
                found.pop((name, key, "__module__"), None)
                found.pop((name, key, "__firstlineno__"), None)
    return found

before = state()
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
filters = list(warnings.filters)
import starlette_sse
after = state()
changed = [key for key, value in before.items() if after.get(key) != value]
assert not changed, changed
assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}
assert filters == warnings.filters
assert threading.enumerate() == [threading.main_thread()]
assert not logging.getLogger().handlers
assert not structlog.is_configured()
"""


def test_importing_the_package_changes_nothing() -> None:
    """No monkey-patch, no signal handler, no thread, no logging set-up, nothing printed."""
    assert run(UNCHANGED) == ""


def run(code: str) -> str:
    """Run code in a new interpreter, and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
