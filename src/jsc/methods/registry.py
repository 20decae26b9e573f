"""The one list of convolution methods. A new method is one file and one line here."""

from __future__ import annotations

from jsc.methods.amx import Amx
from jsc.methods.base import Method
from jsc.methods.columns import Cpo, Cps
from jsc.methods.cpc import Cpc
from jsc.methods.dense import Dense
from jsc.methods.lowering import Im2col, Mec
from jsc.methods.winograd import Winograd

_ALL: tuple[Method, ...] = (Dense(), Im2col(), Mec(), Cpo(), Cps(), Cpc(), Winograd(), Amx())

_BY_NAME: dict[str, Method] = {method.name: method for method in _ALL}
METHODS = tuple(method.name for method in _ALL)  # the names, in the order of the documentation


def get(name: str) -> Method:
    """The method of that name.

    Raises
    ------
    ValueError  if there is none, with the names that there are.
    """
    method = _BY_NAME.get(name) if isinstance(name, str) else None
    if method is None:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {name!r}")
    return method


def available() -> tuple[str, ...]:
    """The methods that this machine's processor can run."""
    return tuple(method.name for method in _ALL if method.available())
