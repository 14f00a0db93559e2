"""Whether a Ray cluster answers at an address. Imports no Ray; see ``distributed``."""

from __future__ import annotations

import socket
import subprocess
import sys

from learn_to_steer.errors import UnsupportedError

CONNECT, ANSWER = 6.0, 18.0  # seconds to wait for the address, and for Ray behind it


def require_answer(address: str) -> None:
    """Check that a Ray cluster answers. Ray itself would try for minutes.

    Args:
        address: The address, HOST:PORT.

    Raises:
        OSError: Nothing answers, or not as Ray does.
        TimeoutExpired: It accepts a connection and does not answer.
        UnsupportedError: The address has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UnsupportedError(
            f"--ray {address} is no address; give HOST:PORT, as 'ray start' prints it on the first machine, or auto on "
            "a machine of the cluster"
        )
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, check=False)
    if done.returncode != 0:
        raise OSError((done.stdout + done.stderr).strip().splitlines()[-1:] or "it does not speak Ray's protocol")
