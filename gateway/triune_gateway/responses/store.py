"""Keeps answers, so that a conversation can go on from one by its id. Bounded: what was not used for longest goes first.

One SQLite database, in memory unless a file is named. What one key has stored, another cannot read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ApiError, invalid

Json = dict[str, Any]
IN_MEMORY = ":memory:"
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, used INTEGER NOT NULL, bytes INTEGER NOT NULL,
    response TEXT NOT NULL, input TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON responses (used);
CREATE TABLE IF NOT EXISTS items (item TEXT NOT NULL, response TEXT NOT NULL REFERENCES responses ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS by_item ON items (item);
CREATE INDEX IF NOT EXISTS by_response ON items (response);
"""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An answer, and the items of its request; those of the answers before it are theirs."""

    response: Json
    input: list[Json]

    @property
    def items(self) -> list[Json]:
        """What the conversation holds of it."""
        return [*self.input, *self.response["output"]]


class Store:
    """The answers that are kept."""

    def __init__(self, *, most: int, most_bytes: int, file: str = IN_MEMORY) -> None:
        """
        Args:
            most: answers; 0: none is kept.
            most_bytes: of their JSON.

        Raises:
            OSError: the file cannot be written.
            sqlite3.Error: it is no database of this kind.
        """
        if file != IN_MEMORY:  # conversations are nobody else's business
            os.close(os.open(Path(file).expanduser(), os.O_CREAT | os.O_RDWR, 0o600))
        self._most, self._most_bytes = most, most_bytes
        self._database = sqlite3.connect(Path(file).expanduser() if file != IN_MEMORY else file, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        row = self._database.execute(
            "SELECT count(*), coalesce(sum(bytes), 0), coalesce(max(used), 0) FROM responses"
        ).fetchone()
        self._count, self._bytes, self._clock = row

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self._most > 0

    def put(self, owner: str, stored: Stored) -> None:
        """Keep an answer; others may have to go for it."""
        response, items = _text(stored.response), _text(stored.input)
        size = len(response) + len(items)
        if not self.keeps or size > self._most_bytes:
            return
        name = stored.response["id"]
        with self._database:
            self._clock += 1
            self._database.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)", (name, owner, self._clock, size, response, items)
            )
            ids = [(item["id"], name) for item in stored.items]
            self._database.executemany("INSERT INTO items VALUES (?, ?)", ids)
            self._count, self._bytes = self._count + 1, self._bytes + size
            while self._count > self._most or self._bytes > self._most_bytes:
                self._drop(*self._database.execute("SELECT id, bytes FROM responses ORDER BY used LIMIT 1").fetchone())

    def get(self, owner: str, name: str) -> Stored | None:
        """An answer by its id, which is then the last one used; None if it is not kept."""
        found = self._database.execute(
            "SELECT response, input FROM responses WHERE id = ? AND owner = ?", (name, owner)
        ).fetchone()
        if found is None:
            return None
        with self._database:
            self._clock += 1
            self._database.execute("UPDATE responses SET used = ? WHERE id = ?", (self._clock, name))
        return Stored(response=json.loads(found[0]), input=json.loads(found[1]))

    def delete(self, owner: str, name: str) -> bool:
        """Forget an answer; whether it was kept."""
        found = self._database.execute("SELECT id, bytes FROM responses WHERE id = ? AND owner = ?", (name, owner)).fetchone()
        if found is not None:
            with self._database:
                self._drop(*found)
        return found is not None

    def item(self, owner: str, name: str) -> Json | None:
        """An item of a request or an answer by its id; None if it is not kept."""
        found = self._database.execute(
            "SELECT responses.id FROM items JOIN responses ON responses.id = items.response WHERE item = ? AND owner = ?"
            " ORDER BY items.rowid DESC LIMIT 1",
            (name, owner),
        ).fetchone()
        stored = None if found is None else self.get(owner, found[0])
        return None if stored is None else next(item for item in stored.items if item["id"] == name)

    def conversation(self, owner: str, last: str) -> list[Json]:
        """All items up to and with those of the answer `last`.

        Raises:
            ApiError: it, or one before it, is not kept.
        """
        found: list[list[Json]] = []
        name: str | None = last
        while name is not None:
            if (stored := self.get(owner, name)) is None:
                message = (
                    f"Previous response with id '{name}' not found: it was never stored, was deleted, or made room for others."
                )
                raise invalid(message, "previous_response_id", "previous_response_not_found")
            found.append(stored.items)
            name = stored.response["previous_response_id"]
        return [item for items in reversed(found) for item in items]

    def _drop(self, name: str, size: int) -> None:
        self._database.execute("DELETE FROM responses WHERE id = ?", (name,))
        self._count, self._bytes = self._count - 1, self._bytes - size


def not_found(name: str) -> ApiError:
    """There is no such answer."""
    return ApiError(404, f"Response with id '{name}' not found.", param="response_id")


def _text(value: Any) -> str:
    """JSON in ASCII, which can carry whatever a client has sent."""
    return json.dumps(value, separators=(",", ":"))
