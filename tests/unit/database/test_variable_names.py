"""Fields that are called like what tells the rows apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database.variable_names import variable_names
from tests.unit.exports.kinds import Emitter

KEYS = ["time", "time_value", "seq_num", "seq_num_value", "seq_num_value_", "x"]
NAMES = {
    **{key: key for key in KEYS},
    "time": "time_value_",
    "seq_num": "seq_num_value__",
}


def test_names_are_free() -> None:
    assert variable_names(KEYS) == NAMES
    assert variable_names(["time", "x"]) == {"time": "time_value", "x": "x"}


@pytest.mark.parametrize("keys", [KEYS, KEYS[::-1]])
def test_each_field_keeps_its_values(tmp_path: Path, keys: list[str]) -> None:
    sent = {key: float(number) for number, key in enumerate(keys)}
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = Emitter(beamtime, tmp_path)
        run.table("primary", {key: {"units": f"{key}s"} for key in keys}, [sent])
        stream = beamtime[run.stop().uid].primary
        whole, table, stamps = stream.read(), stream.to_pandas(), stream.timestamps()
        # What is read beside it changes no name.
        assert list(stream.read("time").data_vars) == [NAMES["time"]]
        for key, value in sent.items():
            name = NAMES[key]
            assert (whole[name].item(), table[name].item()) == (value, value)
            assert whole[name].attrs["units"] == f"{key}s"
            assert stamps[name].item() == 5.0
            assert stream[key].item() == value
        assert whole.sizes == {"time": 1}
        assert whole["seq_num"].item() == 1
