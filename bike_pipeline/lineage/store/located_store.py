"""ML Metadata in a file whose records do not name the place that it lies in: a workspace can be moved or copied.

What lies below the folder of the store's file is kept relative to it: `workspace:/artifacts/Trainer/model/7`. Whoever
reads gets whole paths again, as they are now. The records of earlier releases hold whole paths; where such a path is
one of before the folder was moved is told by its files: ids are unique in a store, so the files of an artifact lie
below this folder only where they were always its own.

A store on a server is shared by workspaces in many places; its records keep whole paths.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

MARK = "workspace:/"
# What is hashed or signed as a text must come back as it was.
_AS_IT_WAS = frozenset({"evidence"})
# Where requests and answers hold artifacts and executions.
_FIELDS = frozenset({
    "artifact", "artifacts", "artifact_event_pairs", "artifact_and_events", "execution", "executions",
    "lineage_subgraph",
})  # fmt: skip
# A folder's name goes on before it.
_BEGINS = r"(?<![\w.\-/])"


def read_only(file: Path) -> sqlite3.Connection:
    """Return a connection to the file itself, which waits a second where somebody else holds it locked."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)


class Places:
    """The folder of a store's file, and the folders that it lay in before."""

    def __init__(self, root: Path, before: tuple[str, ...] = ()) -> None:
        """Name the folder as it is now, absolute, and those of before, as the records of earlier releases have them."""
        own = str(root).rstrip("/")
        self._place, self._in_json = f"{own}/", json.dumps(f"{own}/")[1:-1]
        both = {self._place, self._in_json}
        self._own = re.compile(_BEGINS + _any(both)) if own else None
        moved = {text for folder in before for text in (f"{folder}/", json.dumps(f"{folder}/")[1:-1])}
        self._known = re.compile(f"{re.escape(MARK)}|{_BEGINS}{_any(moved)}" if moved else re.escape(MARK))
        self._former = tuple(f"{folder}/" for folder in before)

    @staticmethod
    def of(config: pb.ConnectionConfig) -> Places | None:
        """Return those of a store in a file; None for one on a server."""
        file = Path(config.sqlite.filename_uri)
        return Places(file.parent, _moved_from(file)) if config.HasField("sqlite") else None

    def shorten(self, text: str) -> str:
        """Return a text in which the folder's own place stands for itself no more."""
        return self._own.sub(MARK, text) if self._own is not None and "/" in text else text

    def lengthen(self, text: str) -> str:
        """Return a text with whole paths, as they are now."""
        if MARK not in text and not (self._former and "/" in text):
            return text
        place = self._in_json if text[:1] in ("{", "[") else self._place
        return self._known.sub(lambda _: place, text)

    def everywhere(self, uri: str) -> list[str]:
        """Return all that may stand on record for a path."""
        short = self.shorten(uri)
        if short == uri:
            return [uri]
        return [uri, short, *(former + short.removeprefix(MARK) for former in self._former)]


def _any(texts: set[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, sorted(texts)))})"


def _moved_from(file: Path) -> tuple[str, ...]:
    try:
        with closing(read_only(file)) as connection:
            uris = [row[0] for row in connection.execute("SELECT uri FROM Artifact WHERE uri LIKE '/%/artifacts/%'")]
    except sqlite3.Error:
        # It is of an earlier schema, locked or no store at all; whoever opens it says so.
        return ()
    own, found = str(file.parent), list[str]()
    for uri in uris:
        folder, _, rest = uri.rpartition("/artifacts/")
        if folder != own and folder not in found and (file.parent / "artifacts" / rest).exists():
            found.append(folder)
    return tuple(found)


class LocatedStore(metadata_store.MetadataStore):  # type: ignore[misc]
    """ML Metadata's store, whose records of what lies beside its file can be moved with it."""

    def __init__(self, config: pb.ConnectionConfig, enable_upgrade_migration: bool = False) -> None:
        super().__init__(config, enable_upgrade_migration)
        self.places = Places.of(config)

    @staticmethod
    def around(store: metadata_store.MetadataStore, config: pb.ConnectionConfig) -> LocatedStore:
        """Return a store that somebody else opened, as one of these."""
        located = LocatedStore.__new__(LocatedStore)
        located.__dict__.update(store.__dict__)
        located.places = Places.of(config)
        return located

    def _call(self, method_name: str, request: Any, response: Any, extra_options: Any = None) -> Any:
        """Pass a request on with short paths, and its answer with whole ones."""
        if self.places is None:
            return super()._call(method_name, request, response, extra_options)
        for node in _nodes(request):
            _translate(node, self.places.shorten)
        if method_name == "GetArtifactsByURI":
            request.uris[:] = [text for uri in request.uris for text in self.places.everywhere(uri)]
        answer = super()._call(method_name, request, response, extra_options)
        for node in _nodes(response):
            _translate(node, self.places.lengthen)
        return answer


def _nodes(message: Message) -> Iterator[Any]:
    for field, value in message.ListFields():
        if field.name not in _FIELDS:
            continue
        for item in [value] if isinstance(value, Message) else value:
            if isinstance(item, pb.Artifact | pb.Execution):
                yield item
            elif isinstance(item, Message):
                yield from _nodes(item)


def _translate(node: Any, translate: Any) -> None:
    if isinstance(node, pb.Artifact) and node.uri:
        node.uri = translate(node.uri)
    for properties in (node.properties, node.custom_properties):
        for name, value in properties.items():
            if name not in _AS_IT_WAS and value.WhichOneof("value") == "string_value":
                translated = translate(value.string_value)
                if translated != value.string_value:
                    value.string_value = translated
