"""A writer of one's own: each source is one ``.npy`` file that grows."""

# [file]
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_beamtime.errors import PathError, StoreWriteError
from bluesky_beamtime.storage import SourceInfo, Writer, from_uri, register_writer


class NpyFile:
    """Frames behind the header of a ``.npy`` file, which says how many there are."""

    def __init__(self, path: Path, source: SourceInfo) -> None:
        self.path, self.source = path, source
        self.written = 0
        with self.naming():
            self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.publish()

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Say which file the disk refused."""
        try:
            yield
        except OSError as error:
            text = f"{self.path}: {error.strerror}"
            raise StoreWriteError(
                text, errno=error.errno, filename=str(self.path)
            ) from error

    def append(self, frame: np.ndarray[Any, Any]) -> None:
        """Write a frame; it is the operating system's when this returns."""
        data = memoryview(frame.tobytes())
        # Counted from the start: a frame that was torn is written over by the next.
        offset = self.header_size + self.written * len(data)
        with self.naming():
            while data:
                done = os.pwrite(self.fd, data, offset)
                data, offset = data[done:], offset + done
        self.written += 1

    def publish(self) -> int:
        """Let readers see every frame so far. NumPy leaves room for a longer number."""
        header = BytesIO()
        described = {
            "descr": np.lib.format.dtype_to_descr(self.source.dtype),
            "fortran_order": False,
            "shape": (self.written, *self.source.shape),
        }
        np.lib.format.write_array_header_1_0(header, described)
        self.header_size = header.tell()
        with self.naming():
            os.pwrite(self.fd, header.getvalue(), 0)
        self.published = self.written
        return self.published

    def sync(self) -> None:
        """Bring it to the disk itself."""
        with self.naming():
            os.fsync(self.fd)

    def close(self) -> None:
        """Publish the exact length and close."""
        try:
            self.publish()
        finally:
            os.close(self.fd)


# [writer]
@register_writer
class NpyWriter(Writer):
    """One ``.npy`` file for each source, ``<uri>/<source>.npy``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._files: dict[str, NpyFile] = {}

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-growing-npy"

    # The five that a format must have are these three, kickoff and _finalize.

    def _on_prepare(self, name: str) -> None:
        if Path(name).name != name:
            raise PathError(f"{name!r} cannot be the name of a file")

    def _write_frame(self, name: str, frame: np.ndarray[Any, Any]) -> None:
        self._files[name].append(frame)

    def kickoff(self) -> None:
        self._files = {}
        Path(from_uri(self.uri)).mkdir(parents=True, exist_ok=True)
        try:
            for name in self.sources:
                self._on_join(name)
        except BaseException:
            self._finalize()
            raise

    def _finalize(self) -> None:
        for name in list(self._files):
            self._on_complete(name)

    # What lets a source join late, readers look meanwhile, and a source end early.

    def _on_join(self, name: str) -> None:
        path = Path(from_uri(self.uri)) / f"{name}.npy"
        self._files[name] = NpyFile(path, self._source(name))

    def _on_publish(self, name: str) -> int:
        return self._files[name].publish()

    def _published(self, source: SourceInfo) -> int:
        return self._files[source.name].published

    def _on_flush(self, name: str) -> None:
        self._files[name].publish()
        self._files[name].sync()

    def _on_complete(self, name: str) -> None:
        file = self._files.pop(name, None)
        if file is not None:
            file.close()

    # What the documents say.

    def source_uri(self, source: SourceInfo) -> str:
        return f"{super().source_uri(source)}.npy"


# [use]
def main() -> None:
    from bluesky_beamtime.storage import make_writer

    writer = make_writer("application/x-growing-npy", "detectors")
    writer.set_uri(str(Path("scan_1").resolve()))
    sink = writer.prepare("cam", "cam", dtype="<u2", shape=(2, 3))
    writer.kickoff()
    for number in range(4):
        sink.write(np.full((2, 3), number, "<u2"))
    print(writer.get_indices_written(), "frames are there")
    print(np.load("scan_1/cam.npy", mmap_mode="r")[:, 0, 0])
    sink.write(np.full((2, 3), 4, "<u2"))
    sink.close()
    print(np.load("scan_1/cam.npy").shape)


if __name__ == "__main__":
    main()
