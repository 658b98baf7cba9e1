"""Looking into a call of any Keras model, nested or subclassed: what layers give, or something else in its place."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras

# Given the layer's own `call`, its positional and its named arguments: the output.
Tap: TypeAlias = Callable[..., Any]


@contextmanager
def tapped(taps: Mapping[keras.layers.Layer, Tap]) -> Iterator[None]:
    """While this is open, a call of these layers, wherever it is made from, goes through their tap.

    In a graph function it has to be open while the function is traced. A tap is called as `tap(call, *args, **kwargs)`.
    """
    # On the object, in front of the class's method; a plain dictionary entry, which Keras does not track.
    for layer, tap in taps.items():
        layer.__dict__["call"] = _through(tap, layer.call)
    try:
        yield
    finally:
        for layer in taps:
            del layer.__dict__["call"]


def noting(seen: list[Any]) -> Tap:
    """A tap that adds what the layer gives to `seen` and changes nothing."""

    def look(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(call(*args, **kwargs))
        return seen[-1]

    return look


def _through(tap: Tap, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: tap(call, *args, **kwargs)
