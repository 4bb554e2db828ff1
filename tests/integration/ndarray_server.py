"""A PVAccess server of NTNDArrays of every kind; each follows a put to ``KINDS:go``.

The frame with ``uniqueId`` n is full of n modulo 100.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numcodecs import Blosc
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV

DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
SHAPE = (6, 8)
MEMBERS = {
    "i1": "byte",
    "i2": "short",
    "i4": "int",
    "i8": "long",
    "f4": "float",
    "u1": "ubyte",
    "u2": "ushort",
    "u4": "uint",
    "u8": "ulong",
    "f8": "double",
}
PVDATA = {"u2": 6}


def frame(name: str, number: int) -> Any:
    dtype = name if name in DTYPES else "u2"
    return np.full(SHAPE, number % 100, dtype)


def value(name: str, number: int) -> Any:
    array = frame(name, number)
    built = NTNDArray.buildType()()
    if name == "blosc":
        data = np.frombuffer(Blosc().encode(array), "u1")
        built["value"] = ("ubyteValue", data)
        built["codec"] = {"name": "blosc", "parameters": PVDATA["u2"]}
        built["uncompressedSize"] = array.nbytes
    else:
        built["value"] = (MEMBERS[array.dtype.str[1:]] + "Value", array.reshape(-1))
    built["dimension"] = [{"size": size} for size in reversed(SHAPE)]
    # Sent as a signed number, whatever it counts to.
    built["uniqueId"] = np.uint32(number % 2**32).view(np.int32).item()
    built["timeStamp"] = {"secondsPastEpoch": 1_700_000_000 + number % 1000}
    return built


def main() -> None:
    names = (*DTYPES, "blosc")
    pvs = {name: SharedPV(initial=value(name, 0)) for name in names}
    go = SharedPV(nt=NTScalar("as"), initial=[])

    @go.put
    def put(pv: Any, operation: Any) -> None:
        name, *numbers = operation.value()
        for number in map(int, numbers):
            pvs[name].post(value(name, number))
        operation.done()

    conf = {
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_SERVER_PORT": "0",
        "EPICS_PVAS_BROADCAST_PORT": "0",
    }
    served = {f"KINDS:{name}": pv for name, pv in pvs.items()} | {"KINDS:go": go}
    with Server(providers=[served], conf=conf, useenv=False) as server:
        port = server.conf()["EPICS_PVAS_SERVER_PORT"]
        client = {
            "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}",
            "EPICS_PVA_ADDR_LIST": "",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        }
        print(json.dumps(client), flush=True)
        # Ends with whoever started it.
        while os.read(0, 1):
            pass


if __name__ == "__main__":
    main()
