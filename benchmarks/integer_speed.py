"""int8 against float32 on this machine, with and without the way around overflows of x86 without VNNI.

    python -m benchmarks.integer_speed --models DIR

Networks as in `benchmarks.memory`. One thread; all three sessions run in turn, medians of 60 calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.common import interleaved, print_rows, write_result
from benchmarks.memory import integers, networks

_ROUNDS = 60
_WARM_UP = 10


def session_of(model: onnx.ModelProto, *, careful: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if careful:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def row(name: str, model: onnx.ModelProto) -> dict[str, Any]:
    small = integers(model)
    sessions = [session_of(model, careful=False), session_of(small, careful=True), session_of(small, careful=False)]
    given = sessions[0].get_inputs()[0]
    feeds = {given.name: np.random.default_rng(0).random(given.shape).astype(np.float32)}
    calls: list[Callable[[], object]] = [partial(session.run, None, feeds) for session in sessions]
    slow, fast = (session.run(None, feeds)[0] for session in sessions[1:])
    times = interleaved(calls, _ROUNDS, warm_up=_WARM_UP)
    names = ("float32", "int8, careful", "int8")
    return {"network": name, **dict(zip(names, times, strict=True)), "same": bool(np.array_equal(slow, fast))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    args = parser.parse_args()
    rows = [row(name, model) for name, model in networks(args.models)]
    print_rows(
        ["network", "float32, ms", "int8, careful, ms", "int8, ms", "times as fast as float32", "same answers"],
        [
            [
                r["network"],
                *(f"{1e3 * r[kind]:.2f}" for kind in ("float32", "int8, careful", "int8")),
                f"{r['float32'] / r['int8']:.2f}",
                "yes" if r["same"] else "no",
            ]
            for r in rows
        ],
    )
    write_result("integer_speed", {"rows": rows})


if __name__ == "__main__":
    main()
