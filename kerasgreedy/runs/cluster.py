"""TF_CONFIG: which processes train together. Checked before TensorFlow sees it, which would misread it or wait for ever."""

import errno
import re
import socket
import time

from kerasgreedy.errors import InputError, tell
from kerasgreedy.strict_json import parse_json

SHAPE = '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}'
# Names of a cluster that is starting may be known late.
NAMES_SECONDS = 20.0
_HOST = re.compile(r"\[[0-9a-fA-F:.%\w]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def check_tf_config(text: str) -> list[str]:
    """The addresses that a TF_CONFIG names.

    Raises:
        InputError: says what is wrong with it; or a host is not known, or this worker's own port cannot be had.
    """
    try:
        config = parse_json(text)
        cluster, task = config["cluster"], config["task"]
        jobs = {kind: list(places) for kind, places in cluster.items() if isinstance(places, list)}
        kind, index = task["type"], task["index"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"TF_CONFIG: cannot be used ({error!r:.200}); allowed: {SHAPE}") from None
    if set(jobs) != set(cluster) or not all(isinstance(place, str) for places in jobs.values() for place in places):
        raise InputError(f"TF_CONFIG: its cluster is not lists of texts; allowed: {SHAPE}")
    odd = sorted(set(jobs) - {"chief", "worker"})
    if odd:
        raise InputError(f"TF_CONFIG: received '{odd[0]}' in its cluster; allowed: worker, and one chief")
    if len(jobs.get("chief", [])) > 1:
        raise InputError("TF_CONFIG: names more than one chief")
    if type(index) is not int or not isinstance(kind, str) or kind not in jobs or not 0 <= index < len(jobs[kind]):
        places = ", ".join(f"{kind} 0 to {len(each) - 1}" for kind, each in jobs.items())
        raise InputError(f"TF_CONFIG: received task {kind} {index!r:.40}; its cluster has {places or 'no worker'}")
    addresses = [place for places in jobs.values() for place in places]
    for place in addresses:
        _check_address(place)
    if len(set(addresses)) < len(addresses):
        raise InputError(f"TF_CONFIG: received '{addresses}'; allowed: host:port, each once")
    _resolve({place.rpartition(":")[0].strip("[]") for place in addresses})
    _check_own(jobs[kind][index])
    return addresses


def _check_address(place: str) -> None:
    host, _, port = place.rpartition(":")
    if not (_HOST.fullmatch(host) and port.isdecimal() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise InputError(f"TF_CONFIG: received '{place[:100]}'; allowed: host:port with a port from 1 to 65535")


def _resolve(hosts: set[str]) -> None:
    """Waits a little for names that are not known yet."""
    ends, said = time.monotonic() + NAMES_SECONDS, False
    for host in sorted(hosts):
        while True:
            try:
                socket.getaddrinfo(host, None)
                break
            except (OSError, UnicodeError) as error:
                if time.monotonic() > ends:
                    raise InputError(f"TF_CONFIG: the host '{host}' is not known ({error})") from None
                if not said:
                    tell(f"waiting for the name '{host}' to be known")
                    said = True
                time.sleep(1)


def _check_own(place: str) -> None:
    """Refuses a port that this worker cannot listen on."""
    port = int(place.rpartition(":")[2])
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
            tried.listen()
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise InputError(f"TF_CONFIG: port {port} of this worker, {place}, {why}; allowed: a free one") from None
