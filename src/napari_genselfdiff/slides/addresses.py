"""Where a slide lies: a path, or an address such as ``https://`` or ``s3://``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

# two letters at least: C:\slides is a path
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3"}
FORBIDDEN = 403


def located(where: str | Path) -> Path | str:
    """Return an address as it is, and anything else (``file://`` too) as a path."""
    if isinstance(where, Path) or not _ADDRESS.match(where):
        return Path(where)
    parts = urlsplit(where)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return where.rstrip("/")


def name_of(where: Path | str) -> str:
    """Last part of a path or address."""
    return where.name if isinstance(where, Path) else urlsplit(where).path.rpartition("/")[2] or where


def open_store(address: str) -> Store:
    """Open the folder at an address for reading; no request is made yet.

    Raises
    ------
    UserError
        If there is no way to read this kind of address.
    """
    from zarr.storage import FsspecStore

    try:
        if urlsplit(address).scheme in ("http", "https"):
            return _web_store(address)
        return FsspecStore.from_url(address, read_only=True)
    except (ImportError, ValueError) as error:
        scheme = urlsplit(address).scheme
        extra = _EXTRAS.get(scheme)
        todo = f'pip install "napari-genselfdiff[{extra}]"' if extra else str(error)
        raise UserError(f"addresses that begin with {scheme}:// cannot be read yet", address, todo) from error


def _web_store(address: str) -> Store:
    from aiohttp import ClientResponseError
    from zarr.storage import FsspecStore

    class WebStore(FsspecStore):
        """Amazon answers 403 instead of 404 where the list of files is not public.

        That is believed of metadata, which are looked for under several names, and not of pixels, which would
        become a black tile.
        """

        async def get(
            self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            try:
                return await super().get(key, prototype, byte_range)
            except ClientResponseError as error:
                if error.status == FORBIDDEN and key.rpartition("/")[2].lstrip(".").startswith("z"):
                    return None
                raise

    return WebStore.from_url(address, read_only=True)
