"""Carry a bundle to a device, run its `bench` there, bring the result back, leave nothing behind.

`bench` runs detached: when the connection breaks, it goes on, and so does the waiting once the
device answers again.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from edgedafl.callbacks import OnMessage, silent
from edgedafl.devices.base import Device, DeviceLostError, Outcome
from edgedafl.errors import EdgeDaflError, MeasurementError

__all__ = ["BenchRun", "run_bundle", "run_with_retries", "working_folder"]

RESULT, PARTIAL, LOG = "latency.json", "latency.partial.json", "bench.log"
_COMMAND_SECONDS = 60.0
_WAIT_SECONDS = 20
_END_SECONDS = 10
_PAUSES = (1.0, 3.0, 10.0)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class BenchRun:
    """What came back.

    Attributes:
        code: Exit status of `bench`: 0, or 1 where outputs differ from the expected ones.
        log: What it printed.
        result: The file it wrote.
    """

    code: int
    log: str
    result: Path


def run_with_retries(action: Callable[[], _Answer], on_message: OnMessage = silent) -> _Answer:
    """Repeat what may be repeated while the connection is lost; three times, with longer pauses.

    Raises:
        DeviceLostError: If the device stays away.

    Examples:
        >>> run_with_retries(lambda: 42)
        42
    """
    for pause in _PAUSES:
        try:
            return action()
        except DeviceLostError as error:
            on_message(f"{error.message} Trying again in {pause:.0f} s.")
            time.sleep(pause)
    return action()


@contextlib.contextmanager
def working_folder(device: Device, *, keep: bool = False) -> Iterator[str]:
    """A new folder on the device, removed in the end with all that still runs from it.

    Raises:
        MeasurementError: If it cannot be made.

    Examples:
        >>> from edgedafl.devices.local import LocalDevice
        >>> device = LocalDevice()
        >>> with working_folder(device) as folder:
        ...     print(Path(folder).is_dir())
        True
        >>> Path(folder).exists()
        False
    """
    made = device.run(f'umask 077; mktemp -d "{device.scratch}/edgedafl.XXXXXX"', timeout=_COMMAND_SECONDS)
    folder = made.output.strip()
    if made.code or not PurePosixPath(folder).is_absolute():
        raise MeasurementError(
            f"No folder can be made on {device.name}: {made.last_words}", "Free some space, or set TMPDIR there."
        )
    try:
        yield folder
    finally:
        if not keep:
            with contextlib.suppress(EdgeDaflError):
                run_with_retries(lambda: device.run(_removal(folder), timeout=_COMMAND_SECONDS))


def _removal(folder: str) -> str:
    """A script that ends what runs from a folder, then removes it.

    What is being ended still writes its last files; a folder that gains one while it is removed stays.
    """
    return (
        f"cd {shlex.quote(folder)} || exit 0\n"
        "if [ -f pid ] && [ ! -f exit ]; then\n"
        f"  kill $(cat pid) 2>/dev/null; left={_END_SECONDS}\n"
        "  while [ ! -f exit ] && [ $left -gt 0 ]; do sleep 1; left=$((left - 1)); done\n"
        "  [ -f exit ] || kill -9 $(cat pid) 2>/dev/null\n"
        "fi\n"
        f"cd / && {{ rm -rf {shlex.quote(folder)} || {{ sleep 1; rm -rf {shlex.quote(folder)}; }}; }}"
    )


def run_bundle(
    device: Device,
    bundle: Path,
    arguments: Sequence[str],
    result: Path,
    *,
    timeout: float,
    keep: bool = False,
    on_message: OnMessage = silent,
) -> BenchRun:
    """Push a bundle, run its `bench`, pull its `latency.json` to `result`.

    Args:
        device: Where.
        bundle: The bundle's folder; it holds files only.
        arguments: Of `bench`.
        result: Where to write what came back; what was measured before a failure goes to a file
            beside it that ends in `.partial.json`.
        timeout: Seconds for `bench`.
        keep: Leave the folder on the device.
        on_message: Called with what happens.

    Raises:
        MeasurementError: If the device or `bench` fails.

    Examples:
        >>> from edgedafl.devices.registry import find_device
        >>> board, bundle = find_device("local"), Path("runs/teacher-rpi4/bundles/rpi4")
        >>> run_bundle(board, bundle, ["--quick"], Path("latency.json"), timeout=120)  # doctest: +SKIP
    """
    result.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(device, keep=keep) as folder:
        on_message(f"copying {bundle.name} to {device.name}")
        run_with_retries(lambda: device.push([f for f in sorted(bundle.iterdir()) if f.is_file()], folder), on_message)
        on_message(f"running bench on {device.name}")
        _start(device, folder, bundle, arguments)
        try:
            code = _wait(device, folder, timeout, on_message)
        except (MeasurementError, KeyboardInterrupt):
            _rescue(device, folder, result)
            raise
        log = run_with_retries(lambda: device.run(f"cat {shlex.quote(folder)}/{LOG}", timeout=_COMMAND_SECONDS)).output
        if not _pull(device, f"{folder}/{RESULT}", result, on_message):
            _rescue(device, folder, result)
            raise MeasurementError(
                f"bench failed on {device.name} (exit {code}): {Outcome(code, log, '').last_words}",
                f"Run {bundle / 'bench'} there by hand to see more.",
            )
    if keep:
        on_message(f"left on {device.name}: {folder}")
    return BenchRun(code, log, result)


def _start(device: Device, folder: str, bundle: Path, arguments: Sequence[str]) -> None:
    words = shlex.join([*arguments, "--output", RESULT])
    python = (bundle / "bench").read_bytes().startswith(b"#!/usr/bin/env python3")
    bench = f"{device.python if python else 'sh'} ./bench {words}"
    if python and (bundle / "bench.sh").is_file():  # phones have none: their runtime's own program does it
        found = f"command -v {shlex.quote(shlex.split(device.python)[0])} > /dev/null"
        bench = f"if {found}; then exec {bench}; else exec sh ./bench.sh {words}; fi"
    # The status appears by renaming: a reader never sees half of it.
    body = f"{bench} > {LOG} 2>&1 & echo $! > pid; wait $!; echo $? > exit.new; mv exit.new exit"
    script = (
        f"cd {shlex.quote(folder)} || exit 1\n"
        # Libraries leave files in temporary and cache folders; this one is removed in the end.
        f"export OMP_NUM_THREADS=1 TMPDIR={shlex.quote(folder)} XDG_CACHE_HOME={shlex.quote(folder)}\n"
        f"nohup sh -c {shlex.quote(body)} > /dev/null 2>&1 < /dev/null &\n"
    )
    started = device.run(script, timeout=_COMMAND_SECONDS)
    if started.code:
        raise MeasurementError(f"bench cannot be started on {device.name}: {started.last_words}")


def _wait(device: Device, folder: str, timeout: float, on_message: OnMessage) -> int:
    place = shlex.quote(folder)
    script = (
        f"cd {place} || exit 1; n=0\n"
        f"while [ ! -f exit ] && [ $n -lt {_WAIT_SECONDS} ]; do sleep 1; n=$((n + 1)); done\n"
        "cat exit 2>/dev/null || echo running\n"
    )
    start = time.monotonic()
    while True:
        done = run_with_retries(lambda: device.run(script, timeout=_WAIT_SECONDS + _COMMAND_SECONDS), on_message)
        answer = done.output.strip()
        if answer.isdigit():
            return int(answer)
        if done.code:
            raise MeasurementError(f"The folder of bench is gone on {device.name}: was it restarted?")
        spent = time.monotonic() - start
        if spent > timeout:
            raise MeasurementError(
                f"bench did not end within {timeout:.0f} s on {device.name}.",
                "Measure with --quick, or raise --timeout.",
            )
        on_message(f"running bench on {device.name}, {spent:.0f} s")


def _pull(device: Device, file: str, result: Path, on_message: OnMessage) -> bool:
    there = run_with_retries(lambda: device.run(f"[ -s {shlex.quote(file)} ]", timeout=_COMMAND_SECONDS), on_message)
    if there.code:
        return False
    with tempfile.TemporaryDirectory(prefix="edgedafl-") as folder:
        own = Path(folder) / result.name
        run_with_retries(lambda: device.pull(file, own), on_message)
        staged = result.with_name(f".{result.name}.new")
        shutil.copyfile(own, staged)
        staged.replace(result)
    return True


def _rescue(device: Device, folder: str, result: Path) -> None:
    """Bring back what was measured before the failure, if anything can be had."""
    with contextlib.suppress(EdgeDaflError):
        kept = result.with_name(f"{result.stem}.partial.json")
        _pull(device, f"{folder}/{PARTIAL}", kept, lambda _: None)
