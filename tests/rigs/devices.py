"""Emulated devices: an arm64 system behind a real sshd, and behind a stand-in for Android's daemon.

All of it needs root rights (to change into the system and to register qemu), a Debian with its
archive within reach, qemu-user-static, openssh-server and adb; where something lacks, the reason
is what the tests skip with.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# sshd changes only into folders that lie under root's own; the temporary folder does not.
PLACE = Path(os.environ.get("EDGEDAFL_RIG", "/srv/edgedafl-rig"))
SITE = "/opt/site"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
CPU = "cortex-a76"


def missing(*programs: str) -> str:
    """Why the rig cannot be used; empty where it can."""
    if os.geteuid() != 0:
        return "the emulated device needs root rights"
    for program in ("qemu-aarch64-static", "apt-get", "dpkg", *programs):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        arm_root()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no arm64 system can be made here: {error}"
    return ""


def arm_root() -> Path:
    """The arm64 system, made once."""
    root = PLACE / "root"
    done = PLACE / "made"
    script = HERE / "arm_root.sh"
    if not done.is_file() or done.read_text() != script.read_text():
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir(parents=True)
        subprocess.run(["sh", str(script), str(PLACE)], check=True, capture_output=True, timeout=600)
        done.write_text(script.read_text())
    register()
    said = subprocess.run(["chroot", str(root), "/bin/uname", "-m"], check=True, capture_output=True, text=True)
    if said.stdout.strip() != "aarch64":
        raise OSError(f"the system answers as {said.stdout.strip()}")
    return root


def register() -> None:
    """Let the kernel start arm64 programs through qemu."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True, capture_output=True)
    if not (BINFMT / "qemu-aarch64").exists():
        rule = Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_bytes()
        (BINFMT / "register").write_bytes(rule)


@dataclass(frozen=True)
class Ssh:
    """A running sshd.

    Attributes:
        address: For `--device`.
        config: An ssh configuration with the right key and the known host.
        root: The device's file system.
        folder: Keys and logs.
    """

    address: str
    config: Path
    root: Path
    folder: Path
    process: subprocess.Popen[bytes]

    def sessions(self) -> list[int]:
        """Processes of open connections."""
        said = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(line) for line in said.stdout.split()]

    def cut(self) -> None:
        """Break every open connection."""
        for session in self.sessions():
            os.kill(session, signal.SIGKILL)


@contextmanager
def sshd(folder: Path) -> Iterator[Ssh]:
    """A real sshd on loopback whose sessions live in the arm64 system."""
    root, port = arm_root(), free_port()
    for name in ("host", "client", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, capture_output=True
        )
    (folder / "authorized").write_text((folder / "client.pub").read_text())
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "sshd.conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        f"UsePAM no\nStrictModes no\nSubsystem sftp internal-sftp\nChrootDirectory {root}\n"
        f"SetEnv QEMU_CPU={CPU} PYTHONPATH={SITE}\n"
    )
    config = folder / "ssh.conf"
    config.write_text(
        f"Host *\n  IdentityFile {folder}/client\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd.conf"), "-E", str(folder / "sshd.log")]
    )
    try:
        wait_for(port)
        yield Ssh(f"ssh://root@127.0.0.1:{port}", config, root, folder, process)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def adb_device() -> Iterator[str]:
    """The stand-in daemon with the real adb connected to it; gives the address for `--device`."""
    root, port = arm_root(), free_port()
    (root / "data/local/tmp").mkdir(parents=True, exist_ok=True)
    inside = ["chroot", str(root), "/usr/bin/env", f"PYTHONPATH={SITE}", f"QEMU_CPU={CPU}"]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "adbd.py"), str(port), str(root), *inside], stdout=subprocess.PIPE
    )
    serial = f"127.0.0.1:{port}"
    try:
        assert process.stdout is not None
        process.stdout.readline()
        subprocess.run(["adb", "connect", serial], check=True, capture_output=True, timeout=30)
        yield f"adb:{serial}"
    finally:
        subprocess.run(["adb", "disconnect", serial], check=False, capture_output=True, timeout=30)
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=30)
        process.kill()
        process.wait(10)


def free_port() -> int:
    """A port outside the range in which adb looks for emulators."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if not 5550 <= port <= 5600:
            return port


def wait_for(port: int, seconds: float = 10.0) -> None:
    """Until something listens."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise OSError(f"nothing listens on port {port}")
