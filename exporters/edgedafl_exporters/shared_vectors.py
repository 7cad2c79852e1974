"""A FlatBuffers builder that writes equal vectors once: files point at one copy, and readers see no difference."""

from __future__ import annotations

import flatbuffers

__all__ = ["SharingBuilder"]


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Like `flatbuffers.Builder`, with vectors of numbers shared.

    A .tflite file holds a 64-bit zero point for every channel of every weight and bias, nearly all of them zero. In a
    MobileNet they are a sixth of the file.

    Args:
        size: Bytes to begin with.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[int, int, bytes], int] = {}
        self._before, self._form, self._points = 0, (0, 0), False

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        """Begin a vector; see `flatbuffers.Builder`."""
        self._before, self._form, self._points = self.Offset(), (elemSize, alignment), False
        return int(super().StartVector(elemSize, numElems, alignment))

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Write a string; it ends in a zero that vectors do not have."""
        self._points = True
        return int(super().CreateString(s, encoding, errors))

    def PrependUOffsetTRelative(self, off: int) -> None:
        """Write where something lies: such a vector means something else at every place."""
        self._points = True
        super().PrependUOffsetTRelative(off)

    def EndVector(self, numElems: int | None = None) -> int:
        """End a vector; returns where it, or an equal one before, lies."""
        length = 4 + self._form[0] * self.vectorNumElems
        place = int(super().EndVector(numElems))
        if self._points:
            return place
        key = (*self._form, bytes(self.Bytes[self.Head() : self.Head() + length]))
        if key in self._written:
            self.head = len(self.Bytes) - self._before
            return self._written[key]
        self._written[key] = place
        return place
