"""A web server for a test, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Quiet(SimpleHTTPRequestHandler):
    """Serves the files of a folder; what is named in ``broken`` is answered with that status."""

    broken: dict[str, int] = {}  # noqa: RUF012 - replaced for a server, never changed

    def do_GET(self) -> None:
        for part, status in self.broken.items():
            if part in self.path and (status != 403 or not Path(self.translate_path(self.path)).is_file()):
                self.send_error(status)
                return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Patient(ThreadingHTTPServer):
    """Lets more callers wait than five, whom the system makes ask again a second later."""

    request_queue_size = 128


@contextmanager
def serve(folder: Path, broken: dict[str, int] | None = None) -> Iterator[str]:
    """Serve a folder; the address is ``http://127.0.0.1:PORT``.

    ``broken`` maps parts of paths to the status that they are answered with; 403 is for missing files only.
    """
    handler = type("Handler", (Quiet,), {"broken": broken if broken is not None else {}})
    server = Patient(("127.0.0.1", 0), partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
