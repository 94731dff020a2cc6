"""Where a slide lies: a path, or an address such as ``https://`` or ``s3://``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

# two letters at least: C:\slides is a path
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")
CREDENTIALS = ("AWS_ACCESS_KEY", "AWS_CONTAINER_", "AWS_WEB_IDENTITY_", "AWS_SKIP_SIGNATURE")
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
    if isinstance(where, Path):
        return where.name
    parts = urlsplit(where)
    return parts.path.rpartition("/")[2] or parts.netloc


def open_store(address: str) -> Store:
    """Open the folder at an address for reading; no request is made yet.

    Raises
    ------
    UserError
        If there is no way to read this kind of address.
    """
    from zarr.storage import FsspecStore

    scheme = urlsplit(address).scheme
    try:
        if scheme in ("http", "https"):
            return _web_store(address)
        if scheme in BUCKETS and not _fsspec_reads(scheme):
            return _bucket_store(address)
        return FsspecStore.from_url(address, read_only=True)
    except (ImportError, ValueError) as error:
        todo = 'pip install "napari-genselfdiff[s3]"' if scheme in BUCKETS else str(error)
        raise UserError(f"addresses that begin with {scheme}:// cannot be read yet", address, todo) from error


def _fsspec_reads(scheme: str) -> bool:
    """Whether the package that fsspec itself wants for a kind of address is there (s3fs, gcsfs, adlfs)."""
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(scheme)
    except ImportError:
        return False
    return True


def _bucket_store(address: str) -> Store:
    from obstore import fsspec as buckets
    from zarr.storage import FsspecStore

    scheme, _, path = address.partition("://")
    open_bucket: Any = buckets.FsspecStore
    # It would look for a server of credentials that only machines in the cloud have, and wait.
    public = scheme in ("s3", "s3a") and not any(name.startswith(CREDENTIALS) for name in os.environ)
    config: Any = {"skip_signature": True} if public else None
    return FsspecStore(open_bucket(scheme, config=config, asynchronous=True), path=path, read_only=True)


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
