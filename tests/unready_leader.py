"""A broker whose partition leaders are not ready at first: a proxy before a real one, which refuses first batches.

It does what a broker does whose metadata names a leader before that leader has opened its log: the first produce
request for a topic is answered with NOT_LEADER_OR_FOLLOWER, late enough for a second one to be under way by then.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PRODUCE = 0
VERSIONS = (9, 10)
"""Of the produce request, known here."""
NOT_LEADER = 6
SECOND_COMES_S = 0.5
"""How long a refusal waits for a second batch to pass it; a client that sends one at a time sends none."""


class UnreadyLeader(socketserver.ThreadingTCPServer):
    """The proxy. ``refused`` counts the requests that it has refused."""

    # Its threads are waited for when it closes.
    daemon_threads = False

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        host, port = behind.rsplit(":", 1)
        self.behind = host, int(port)
        self.port = int(self.server_address[1])
        self.refused = 0
        self.topics: set[bytes] = set()
        self.connections: list[socket.socket] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def end(self) -> None:
        """Close it, with its connections."""
        self.shutdown()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # It was closed before.
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    """A client's connection, with one of its own to the broker."""

    server: UnreadyLeader

    def handle(self) -> None:
        client: socket.socket = self.request
        self._passed, self._writes = threading.Event(), threading.Lock()
        with socket.create_connection(self.server.behind) as broker:
            self.server.connections += [client, broker]
            answers = threading.Thread(target=self._answer, args=[broker])
            answers.start()
            refusals = []
            while (request := _frame(client)) is not None:
                produces = struct.unpack_from(">h", request)[0] == PRODUCE
                if produces and (topic := _topic(request)) not in self.server.topics:
                    self.server.topics.add(topic)
                    refusals.append(threading.Thread(target=self._refuse, args=[request, topic]))
                    refusals[-1].start()
                    continue
                broker.sendall(struct.pack(">i", len(request)) + request)
                if produces:
                    self._passed.set()
            broker.shutdown(socket.SHUT_RDWR)
            for thread in (answers, *refusals):
                thread.join()

    def _answer(self, broker: socket.socket) -> None:
        # The broker names itself in its metadata, and would be asked directly from then on.
        host, port = self.server.behind
        itself, this = (host.encode() + struct.pack(">i", number) for number in (port, self.server.port))
        while (answer := _frame(broker)) is not None:
            self._write(answer.replace(itself, this))

    def _refuse(self, request: bytes, topic: bytes) -> None:
        version, correlation = struct.unpack_from(">hi", request, 2)
        assert version in VERSIONS, f"this knows the versions {VERSIONS} of the produce request, not {version}"
        self._passed.wait(SECOND_COMES_S)
        (partition,) = struct.unpack_from(">i", request, request.index(topic) + len(topic) + 1)
        # A compact array of one topic, with a compact array of one partition.
        answer = struct.pack(">ib", correlation, 0) + b"\x02" + bytes([len(topic) + 1]) + topic + b"\x02"
        answer += struct.pack(">ihqqq", partition, NOT_LEADER, -1, -1, -1) + b"\x01\x00\x00\x00"
        self._write(answer + struct.pack(">ib", 0, 0))
        self.server.refused += 1

    def _write(self, answer: bytes) -> None:
        with self._writes:
            try:
                self.request.sendall(struct.pack(">i", len(answer)) + answer)
            except OSError:
                return  # The client has gone.


def _frame(connection: socket.socket) -> bytes | None:
    """The next request or answer; None at the end."""
    head = _exactly(connection, 4)
    return None if head is None else _exactly(connection, struct.unpack(">i", head)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    try:
        found = connection.recv(size, socket.MSG_WAITALL)
    except OSError:
        return None
    return found if len(found) == size else None


def _topic(request: bytes) -> bytes:
    """The (first) topic of a produce request: after the header, a transactional id, acks and a timeout."""
    (client,) = struct.unpack_from(">h", request, 8)
    place = 10 + max(client, 0) + 1
    place += 1 + max(request[place] - 1, 0)
    place += 2 + 4 + 1
    return request[place + 1 : place + request[place]]


@contextmanager
def unready_leader(behind: str) -> Iterator[UnreadyLeader]:
    """A proxy before the broker at ``behind``."""
    proxy = UnreadyLeader(behind)
    thread = threading.Thread(target=proxy.serve_forever, args=[0.01])
    thread.start()
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join()
