"""One hash for the source that a stage runs, found by its imports.

TFX's cache knows a stage by its inputs, its parameters and its executor's name. Code that is named by import path is
none of these, so a changed feature would be answered from the cache. Every stage therefore carries a hash of its code
as one of its parameters: of the modules that it starts from and of all that they import, at their top or inside a
function, with the files that lie beside them. A text that is the import path of a module counts as an import of it:
that is how processes are started.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from bike_pipeline.errors import ConfigurationError

PACKAGE_ROOT = Path(__file__).resolve().parent
PACKAGE = PACKAGE_ROOT.name
# Modules that no result of a stage depends on, and why.
LEFT_OUT = {
    "errors": "how a failure is told; a failed stage has no result",
    "extras": "how a missing library is told",
    "log_capture": "where the messages of libraries go",
    "progress": "how far a stage is",
    "run_events": "how stages are shown",
    "signals": "how a run is ended",
    "settings": "a stage gets its settings as parameters; the sections that it reads itself count",
    "settings.tree": "as settings",
    "lineage.store.connection": "how the metadata store is reached, and not what it holds",
    "lineage.store.located_store": "as lineage.store.connection",
}


class SourceTree:
    """The modules of this package, and of others whose code is called by import path, as they are when first asked."""

    def __init__(self, root: Path = PACKAGE_ROOT) -> None:
        """Look at the package in the folder `root`; other packages are looked for where Python finds them."""
        self._places = {PACKAGE: root}
        self._modules: dict[str, tuple[str, tuple[str, ...]] | None] = {}

    def modules(self, *starts: str) -> dict[str, str]:
        """Return the SHA-256 of the given modules, which exist, and of all that they import, by name."""
        found: dict[str, str] = {}
        waiting = list(starts)
        while waiting:
            name = waiting.pop()
            if name in found or _is_left_out(name):
                continue
            module = self._module(name)
            if module is not None:
                found[name] = module[0]
                # Python runs the packages around a module too.
                waiting += [*module[1], name.rpartition(".")[0]]
            elif name in starts:
                # A hash of nothing would make every change invisible.
                raise ConfigurationError(
                    "a stage names source that is not there", where=name, fix="reinstall the package that brings it"
                )
        return found

    def hash_of(self, *starts: str) -> str:
        """Return one SHA-256 for what `modules` returns."""
        digest = hashlib.sha256()
        for name, of_file in sorted(self.modules(*starts).items()):
            digest.update(f"{name}\0{of_file}\n".encode())
        return digest.hexdigest()

    def _module(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """Return the hash of a module's file and what it imports; None where there is no such module."""
        if name not in self._modules:
            path = self._file(name)
            self._modules[name] = None
            if path is not None:
                tops = {PACKAGE, name.partition(".")[0]}
                imported = {n for n in _imported(ast.parse(path.read_bytes())) if n.partition(".")[0] in tops}
                files = [path, *(_other_files(path.parent) if path.name == "__init__.py" else ())]
                self._modules[name] = _hash(path.parent, files), tuple(imported)
        return self._modules[name]

    def _file(self, name: str) -> Path | None:
        top, *below = name.split(".")
        if top not in self._places:
            spec = find_spec(top)
            if spec is None:
                return None
            self._places[top] = Path(next(iter(spec.submodule_search_locations or [spec.origin or ""])))
        path = self._places[top].joinpath(*below)
        return next((file for file in (path / "__init__.py", path.with_suffix(".py"), path) if file.is_file()), None)


@functools.cache
def this_source() -> SourceTree:
    """Return the source as this process runs it: what is edited while it runs is not what it runs."""
    return SourceTree()


def tree_hash(folder: Path) -> str:
    """Return the SHA-256 over all files below a folder but compiled ones, as they are at this moment."""
    return _hash(folder, (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"))


def _hash(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _other_files(package: Path) -> Iterator[Path]:
    """Yield what else lies in a package and in its folders that are none: templates, data."""
    for path in package.iterdir():
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _other_files(path)
        elif path.is_file() and path.suffix != ".py":
            yield path


def _is_left_out(name: str) -> bool:
    package, _, below = name.partition(".")
    # The package's own face imports what it offers to programs.
    return name == "" or (package == PACKAGE and (not below or below in LEFT_OUT))


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names that may be those of imported modules."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        waiting += ast.iter_child_nodes(node)
