"""Where the page is listened for, and under which names it is asked for."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets

from headrace.errors import PortTaken, SettingsError

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\\\s]*)(?::\d*)?")


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen. Raises PortTaken or SettingsError."""
    try:
        return bind_sockets(port, host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(port, flag="--port", what="the page") from None
        if error.errno == errno.EACCES:
            raise SettingsError(
                f"port {port} may not be listened on: {error.strerror}", hint="choose one above 1023 with --port"
            ) from None
        raise SettingsError(
            f"--host is {host!r}, which cannot be listened on: {error.strerror}",
            hint="write an address of this machine, as 127.0.0.1, or 0.0.0.0 for all",
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host`` (a name, or an address without brackets)."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_origin(origin: str) -> bool:
    """Whether an ``Origin`` header can be read as one."""
    try:
        urlsplit(origin)
    except ValueError:
        return False
    return True


def host_name(request: HTTPServerRequest) -> str | None:
    """The name or address that the request was sent to, without brackets and port; None if it is neither."""
    host = _HOST.fullmatch(request.headers.get("Host", ""))
    return host["name"].strip("[]").lower() if host else None
