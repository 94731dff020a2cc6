"""A folder of arrays that is looked at only: what changes is kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.abc.store import ByteRequest, Store
from zarr.storage import LocalStore, MemoryStore

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype


class LookedAt(Store):
    """Shows what lies in a folder, as it is now, except where something was written or deleted here.

    Parameters
    ----------
    folder : Path
        Nothing is written into it. It need not exist, and may come into being later.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, folder: Path) -> None:
        super().__init__(read_only=False)
        self._folder = folder
        self._below = LocalStore(folder, read_only=True)
        self._above = MemoryStore()
        self._changed: set[str] = set()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Value of a key."""
        if key in self._changed:
            return await self._above.get(key, prototype, byte_range)
        if not self._folder.is_dir():
            return None
        return await self._below.get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of values."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        if key in self._changed:
            return await self._above.exists(key)
        return self._folder.is_dir() and await self._below.exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Keep a value in memory."""
        await self._above.set(key, value)
        self._changed.add(key)

    async def delete(self, key: str) -> None:
        """Show a value no longer."""
        await self._above.delete(key)
        self._changed.add(key)

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self._above.list():
            yield key
        if self._folder.is_dir():
            async for key in self._below.list():
                if key not in self._changed:
                    yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with something."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """What lies right below a key."""
        start = f"{prefix.rstrip('/')}/".lstrip("/")
        for name in {key[len(start) :].split("/")[0] async for key in self.list_prefix(start)}:
            yield name
