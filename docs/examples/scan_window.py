"""A map is measured while a window shows where it goes."""

# [detector]
import numpy as np
from psygnal import Signal


class Mapper:
    """Stands for an instrument that measures a map on a thread of its own."""

    busyStateChanged = Signal(bool)
    dataAcquired = Signal(dict)
    dataShape = (3, 4)
    dtype = "u2"
    axes = (np.linspace(0.0, 1.0, 3), np.linspace(-3.0, 3.0, 4))

    def measure(self) -> None:
        self.busyStateChanged.emit(True)
        for row, column in np.ndindex(self.dataShape):
            self.dataAcquired.emit({(row, column): 10 * row + column})
        self.busyStateChanged.emit(False)


# [window]
import threading

import zarr
from qtpy.QtWidgets import QApplication

from bluesky_beamtime.qt import ScanStorageWidget
from bluesky_beamtime.storage import ScanStorage

app = QApplication([])
storage = ScanStorage("data", "2026/LaB6", "map")
window = ScanStorageWidget(storage)
window.show()

mapper = Mapper()
storage.connect(mapper)
measuring = threading.Thread(target=mapper.measure)
measuring.start()

# [close]
from qtpy.QtCore import QTimer

QTimer.singleShot(0, window.close)

# [run]
app.exec()  # until the window is closed

measuring.join()
storage.wait()
print(zarr.open_group("data/2026/LaB6/map_0.zarr", mode="r")["data"][...])
