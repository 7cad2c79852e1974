"""`edgedafl device add|list|remove|check|calibrate`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import exit_code_of, message_printer, print_findings, print_json, print_table, refuse_invalid

__all__ = ["command"]


@click.group("device")
def command() -> None:
    """Boards and phones that bundles are measured on.

    \b
    Examples:
      edgedafl device add lab-pi ssh://pi@board.local
      edgedafl device check lab-pi
    """


@command.command("add")
@click.argument("name")
@click.argument("address")
@click.option("--target", default="", help="The target whose bundles it runs.")
@click.option("--python", default="python3", show_default=True, help="Command that starts Python there.")
@click.option("--emulated", is_flag=True, help="Its times say nothing about a device.")
@common
def add(name: str, address: str, target: str, python: str, emulated: bool, as_json: bool, quiet: bool) -> int:
    """Remember a device as NAME. ADDRESS is ssh://user@host:port, adb or adb:SERIAL."""
    from edgedafl.devices import NamedDevice, add_device, devices_file
    from edgedafl.targets import find_target

    full = find_target(target).name if target else ""
    added = add_device(NamedDevice(name, address, python, emulated, full))
    if as_json:
        print_json({"name": name, **added.to_dict()})
    else:
        click.echo(f"{name}: {address}, kept in {devices_file()}")
        click.echo(f"Look what it has: edgedafl device check {name}")
    return 0


@command.command("remove")
@click.argument("name")
@common
def remove(name: str, as_json: bool, quiet: bool) -> int:
    """Forget the device NAME."""
    from edgedafl.devices import remove_device

    remove_device(name)
    if as_json:
        print_json({"removed": name})
    return 0


@command.command("list")
@common
def list_all(as_json: bool, quiet: bool) -> int:
    """Named devices, and what adb sees."""
    import shutil

    from edgedafl.devices import known_devices, list_attached

    known = known_devices()
    phones = list_attached() if shutil.which("adb") else []
    if as_json:
        named = [{"name": d.name, **d.to_dict()} for d in known]
        print_json({"named": named, "attached": [vars(phone) for phone in phones]})
        return 0
    rows = [[d.name, d.address, d.target, "emulated" if d.emulated else ""] for d in known]
    rows += [[f"adb:{p.serial}", p.state, "", p.details] for p in phones]
    print_table(["device", "address", "target", ""], [["local", "this machine", "", ""], *rows])
    return 0


@command.command("check")
@click.argument("name")
@click.option("--target", help="For whose bundles; what was said at `device add` by default.")
@common
def check(name: str, target: str | None, as_json: bool, quiet: bool) -> int:
    """What NAME has and lacks; exit 3 when something needed is missing."""
    from edgedafl.devices import check_device, find_device, get_device_entry, read_facts
    from edgedafl.targets import find_target

    wanted = target or get_device_entry(name).target
    with closing(find_device(name)) as device:
        facts = read_facts(device)
    findings = check_device(facts, device, find_target(wanted) if wanted else None)
    if as_json:
        print_json({"facts": facts.values, "findings": [vars(finding) for finding in findings]})
    else:
        print_findings(findings)
    return exit_code_of(findings)


@command.command("calibrate")
@click.argument("name")
@click.option("--target", help="Whose runtime and integer scheme; `device add`'s or this host's by default.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the networks.")
@click.option("--allow-contended", is_flag=True, help="Keep a model from a disturbed measurement.")
@common
def calibrate(name: str, target: str | None, threads: int, allow_contended: bool, as_json: bool, quiet: bool) -> int:
    """Measure small networks on NAME (up to three minutes) and fit its own latency model.

    Estimates for it are tier A from then on, and students are chosen with it.
    """
    from edgedafl import pipeline

    found = pipeline.calibrate(name, target=target, threads=threads, on_message=message_printer(quiet))
    refuse_invalid(found.invalid, allow_contended)
    path = pipeline.keep_calibration(found)
    if as_json:
        print_json({**found.to_dict(), "path": str(path)})
        return 0
    rows: list[list[Any]] = [
        [precision, str(fit.rows), f"{100 * fit.median_error:.1f} %", f"{fit.band:.2f}"]
        for precision, fit in found.fits.items()
    ]
    print_table(["precision", "networks", "error, left out", "band"], rows)
    click.echo(f"Kept in {path}; use it with --device {name} or as --target {found.target}.")
    return 0
