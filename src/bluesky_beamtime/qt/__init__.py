"""Widgets for your own windows, in any binding of Qt that qtpy knows (extra ``qt``).

Nothing else in this package imports Qt.
"""

from .scan_storage import ScanStorageWidget as ScanStorageWidget
