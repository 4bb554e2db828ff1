"""An S3 server on this machine, for tests of what talks to object stores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bluesky_beamtime.errors import BackendError


class S3TestServer:
    """A moto server in a process of its own, on a free port of 127.0.0.1.

    Its content lives in that process and ends with it. Use it as a context manager, or
    call :meth:`start` and :meth:`stop`. Needs ``pip install 'moto[server]'``.

    Attributes
    ----------
    port : int
        Port, once started.
    """

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_available() -> bool:
        """Say whether the packages that it needs are installed."""
        return all(find_spec(name) is not None for name in ("moto", "flask"))

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """Options for ``open_backend("s3://…", **server.options)``."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": "test",
            "secret_access_key": "test",
            "region": "us-east-1",
        }

    def start(self, timeout: float = 60) -> Self:
        """Start the server and wait until it answers."""
        if not self.is_available():
            raise BackendError(
                "an S3 server for tests needs: pip install 'moto[server]'"
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                f"{self.port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError as error:
                ended = self._process.poll()
                if ended is not None or time.monotonic() > deadline:
                    self.stop()
                    raise BackendError(
                        f"the S3 server for tests did not start (exit code {ended})"
                    ) from error
                time.sleep(0.02)

    def create_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        request = Request(f"{self.endpoint}/{name}", method="PUT")
        try:
            urlopen(request, timeout=30).close()
        except HTTPError as error:
            error.close()
            raise BackendError(f"cannot make the bucket {name!r}: {error}") from error
        return f"s3://{name}"

    def pause(self) -> None:
        """Hold the process: connections open and requests hang, nothing is lost."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a held process go on."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the process; may be called again."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
