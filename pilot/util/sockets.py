"""Bytes that processes have moved over the network, as far as Linux tells whose they are.

/proc/PID/io counts what goes through read and write, on sockets too, but not what goes through send and recv, which
most programs use. So TCP connections are asked one by one (sock_diag(7), tcp_info), and belong to the process that has
them open. A process in a network namespace of its own (a container) is asked for the counters of that namespace's
devices instead, which nobody else moves. What Linux counts for nobody in particular: UDP, and recv on Unix sockets.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

# Numbers of sock_diag(7), linux/inet_diag.h and linux/netlink.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_INFO = 2
_ALL_STATES = 0xFFFFFFFF
# Layouts: netlink header; the request (family, protocol, extensions, states; then 48 bytes that name no socket); where
# inode and attributes stand in an answer; where tcpi_bytes_acked and tcpi_bytes_received stand in struct tcp_info.
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48x")
_INODE_AT, _ATTRIBUTES_AT = 68, 72
_BYTES_AT, _BYTES = 120, struct.Struct("=QQ")
# The kernel answers at once; this only guards against one that does not (s).
_PATIENCE = 5.0
_ANSWER = 65536


def traffic(pids: Iterable[int]) -> int:
    """Bytes that these processes have received and sent so far, over all connections that are open now.

    Any change of the number means traffic. It can shrink, when a connection is closed.
    """
    ours = _namespace("self")
    inodes: set[int] = set()
    others: dict[str, int] = {}
    for pid in pids:
        namespace = _namespace(pid)
        if namespace == ours:
            inodes |= _socket_inodes(pid)
        elif namespace:
            others[namespace] = pid
    total = sum(sum(device_counters(pid)) for pid in others.values())
    if inodes:
        total += sum(moved for inode, moved in _tcp_bytes().items() if inode in inodes)
    return total


def own_network(pid: int) -> bool:
    """Whether a process has a network namespace of its own: then its devices' counters are its own doing."""
    namespace = _namespace(pid)
    return bool(namespace) and namespace != _namespace("self")


def device_counters(pid: int) -> tuple[int, int, int, int]:
    """Bytes received and sent, packets received and sent, by all devices of a process's network namespace."""
    totals = [0, 0, 0, 0]
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/net/dev", encoding="utf-8") as stream:
        for line in stream:
            _, colon, numbers = line.partition(":")
            if colon:
                # proc(5): bytes and packets received are the first two columns, those sent the ninth and tenth.
                columns = [int(word) for word in numbers.split()]
                for place, column in enumerate((0, 8, 1, 9)):
                    totals[place] += columns[column]
    return totals[0], totals[1], totals[2], totals[3]


def _namespace(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _socket_inodes(pid: int) -> set[int]:
    """Inodes of the sockets that a process has open; none when it is gone or not ours to look into."""
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def _tcp_bytes() -> dict[int, int]:
    """Bytes acknowledged and received of every TCP connection in our network namespace, by its inode."""
    found: dict[int, int] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, struct.error):
            found.update(_dump(family))
    return found


def _dump(family: int) -> dict[int, int]:
    found: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_PATIENCE)
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), _ALL_STATES)
        link.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
        while True:
            answer = link.recv(_ANSWER)
            while answer:
                length, kind, _, _, _ = _HEADER.unpack_from(answer)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEADER.size:
                    return found
                inode, moved = _connection(answer[_HEADER.size : length])
                found[inode] = moved
                answer = answer[_aligned(length) :]


def _connection(message: bytes) -> tuple[int, int]:
    """Inode and bytes moved of one connection. Kernels before 4.1 do not count them."""
    (inode,) = struct.unpack_from("=I", message, _INODE_AT)
    at = _ATTRIBUTES_AT
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _INET_DIAG_INFO and length >= 4 + _BYTES_AT + _BYTES.size:
            return inode, sum(_BYTES.unpack_from(message, at + 4 + _BYTES_AT))
        at += max(_aligned(length), 4)
    return inode, 0


def _aligned(length: int) -> int:
    """Netlink rounds every length up to a multiple of four."""
    return (length + 3) & ~3
