"""Pickled documents, as bluesky's Publisher sends them, without executing anything."""

from __future__ import annotations

import io
import pickle
from typing import Any

from bluesky_beamtime.errors import DocumentError

# What plain values and NumPy's arrays are made with; none of it has any other effect.
_KNOWN = frozenset(
    {
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        *(
            (f"numpy.{core}.{module}", name)
            for core in ("core", "_core")
            for module, name in (
                ("multiarray", "_reconstruct"),
                ("multiarray", "scalar"),
                ("numeric", "_frombuffer"),
            )
        ),
    }
)
# As the oldest protocols call it.
_RENAMED = {"__builtin__": "builtins"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        module_name = _RENAMED.get(module_name, module_name)
        if (module_name, global_name) in _KNOWN:
            # The modules of NumPy have had two names.
            name = module_name.replace("numpy.core.", "numpy._core.")
            return super().find_class(name, global_name)
        return _value_of(f"{module_name}.{global_name}")


def _value_of(name: str) -> Any:
    """Return what stands for a class that is not imported.

    A member of an enumeration is pickled as its class and its value: the value stays.
    """

    def make(*args: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], (str, int, float)):
            return args[0]
        raise pickle.UnpicklingError(f"an object of {name} is refused")

    return make


def unpickle(content: bytes) -> Any:
    """Return a pickled document.

    Raises
    ------
    DocumentError
        It is damaged, or holds something else than plain values and arrays.
    """
    try:
        value = _Unpickler(io.BytesIO(content)).load()
    except Exception as error:
        # A damaged pickle raises whatever it likes.
        raise DocumentError(
            f"a pickled document is refused: {error}; let the publisher serialize "
            "with msgpack"
        ) from error
    if callable(value):
        raise DocumentError("a pickled document is refused: it is a class")
    return value
