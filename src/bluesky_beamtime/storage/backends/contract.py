"""The tests that every backend passes; run them on your own.

In a test module of yours::

    import pytest
    from bluesky_beamtime.storage.backends.contract import StorageBackendContract

    class TestMyBackend(StorageBackendContract):
        @pytest.fixture
        def backend(self, tmp_path):
            with MyBackend(tmp_path) as backend:
                yield backend

The fixture gives an open, empty backend that the test may close. pytest itself is not
needed to import this module.
"""

from __future__ import annotations

from bluesky_beamtime.storage.backends.contract_checks import fill as fill
from bluesky_beamtime.storage.backends.contract_checks import raises as raises
from bluesky_beamtime.storage.backends.contract_checks import (
    run_together as run_together,
)
from bluesky_beamtime.storage.backends.contract_keys import BAD_KEYS as BAD_KEYS
from bluesky_beamtime.storage.backends.contract_keys import GOOD_KEYS as GOOD_KEYS
from bluesky_beamtime.storage.backends.contract_keys import KeysContract
from bluesky_beamtime.storage.backends.contract_use import UseContract
from bluesky_beamtime.storage.backends.contract_values import ValuesContract


class StorageBackendContract(ValuesContract, KeysContract, UseContract):
    """What a backend promises, one test each; give it a fixture ``backend``."""
