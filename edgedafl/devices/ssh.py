"""A device behind SSH, through the system's own `ssh` and `sftp`.

They bring what users have set up: `~/.ssh/config`, agents, jump hosts, keys. Host keys are always
verified and nothing is ever asked at the terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from edgedafl.devices.base import DeviceLostError, Outcome
from edgedafl.devices.program import find_program, run_program
from edgedafl.errors import MeasurementError, UsageError

__all__ = ["CONFIG_VARIABLE", "SshDevice"]

CONFIG_VARIABLE = "EDGEDAFL_SSH_CONFIG"
"""Environment variable that names an ssh configuration file other than the user's."""

_INSTALL = "Install an OpenSSH client, e.g. apt-get install openssh-client."
_FAILED = 255  # ssh's own failures; a command's status is passed on as it is
_CONNECT_SECONDS = 15
_COPY_SECONDS = 600
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
_REFUSALS = {
    "host key verification failed": (
        "its host key is not the one known here, or is not known",
        "Compare its fingerprint on the device (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
        "then connect once by hand with ssh to accept it.",
    ),
    "permission denied": (
        "it does not accept this user's key",
        "Copy your key there with ssh-copy-id, or name the user: ssh://user@host.",
    ),
    "could not resolve hostname": ("there is no host of that name", "Correct the address or your ssh configuration."),
}


class SshDevice:
    """One connection, shared by all commands and copies through a control socket.

    Args:
        address: `ssh://[user@]host[:port]`; a host of the user's ssh configuration will do.
        python: Command that starts Python there.
        emulated: Whether its times say nothing about a device.

    Raises:
        UsageError: If the address is not of that form.
        EnvironmentMissingError: If ssh is not installed.
    """

    scratch = "${TMPDIR:-/tmp}"

    def __init__(self, address: str, *, python: str = "python3", emulated: bool = False) -> None:
        self.name, self.python, self.emulated = address, python, emulated
        self._host, self._user, self._port = _parts(address)
        self._ssh, self._sftp = find_program("ssh", _INSTALL), find_program("sftp", _INSTALL)
        self._sockets = Path(tempfile.mkdtemp(prefix="edgedafl-ssh-"))

    def run(self, script: str, *, timeout: float) -> Outcome:
        """See `Device.run`; the script travels as standard input, past any quoting."""
        port = ["-p", str(self._port)] if self._port else []
        command = [self._ssh, *self._options(), *port, "-T", self._target, "sh -s"]
        done = run_program(command, where=self.name, timeout=timeout, given=script)
        self._judge(done)
        return done

    def push(self, files: Sequence[Path], folder: str) -> None:
        """See `Device.push`."""
        lines = [f"put -p {_quoted(str(file))} {_quoted(f'{folder}/{file.name}')}" for file in files]
        self._copy(lines)

    def pull(self, file: str, destination: Path) -> None:
        """See `Device.pull`."""
        self._copy([f"get {_quoted(file)} {_quoted(str(destination))}"])

    def close(self) -> None:
        """End the shared connection."""
        with contextlib.suppress(MeasurementError):
            run_program(
                [self._ssh, *self._options(), "-O", "exit", self._target], where=self.name, timeout=_CONNECT_SECONDS
            )
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def _target(self) -> str:
        return f"{self._user}@{self._host}" if self._user else self._host

    def _options(self) -> list[str]:
        own = os.environ.get(CONFIG_VARIABLE)
        return [
            *(["-F", own] if own else []),
            *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=30", "-o", f"ControlPath={self._sockets}/%C"),
        ]

    def _copy(self, lines: list[str]) -> None:
        port = ["-P", str(self._port)] if self._port else []
        command = [self._sftp, "-q", *self._options(), *port, "-b", "-", self._target]
        done = run_program(command, where=self.name, timeout=_COPY_SECONDS, given="\n".join(lines) + "\n")
        self._judge(done)
        if done.code:
            raise MeasurementError(
                f"Copying to or from {self.name} failed: {done.last_words}", "Look at its free space and its sftp."
            )

    def _judge(self, done: Outcome) -> None:
        if done.code != _FAILED:
            return
        said = done.errors.lower()
        for sign, (meaning, remedy) in _REFUSALS.items():
            if sign in said:
                raise MeasurementError(f"{self.name} cannot be used: {meaning} ({done.last_words}).", remedy)
        raise DeviceLostError(
            f"{self.name} cannot be reached: {done.last_words}", "Look whether it is on and in the network."
        )


def _parts(address: str) -> tuple[str, str, int | None]:
    split = urlsplit(address)
    try:
        host, user, port = split.hostname or "", split.username or "", split.port
    except ValueError:
        host = user = ""
        port = None
    plain = split.path in ("", "/") and not split.query and not split.fragment and split.password is None
    if split.scheme != "ssh" or not plain or not _NAME.fullmatch(host) or (user and not _NAME.fullmatch(user)):
        raise UsageError(
            f"{_without_password(address)!r} is not an SSH address.",
            "Write it like ssh://user@host:22; a host of your ssh configuration will do. Passwords are not taken.",
        )
    return host, user, port


def _without_password(address: str) -> str:
    return re.sub(r":[^:@/]*@", ":***@", address)


def _quoted(path: str) -> str:
    """A path as sftp's batch language wants it."""
    return '"' + re.sub(r'([\\"*?\[])', r"\\\1", path) + '"'
