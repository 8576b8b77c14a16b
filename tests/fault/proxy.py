"""A TCP proxy that loses replies, swallows everything, or cuts: the network at its worst."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from dataclasses import dataclass, field

PIECE = 1 << 16


@dataclass
class Proxy:
    """Forwards to a port; what it does to the bytes may change at any time.

    Attributes:
        lose_replies: chance that a request is forwarded and the connection cut before its reply.
        is_deaf: bytes of clients are swallowed.
        is_mute: bytes of the server are swallowed.
        refuses: connections are cut as soon as they come, and those that are there.
        barred: addresses whose connections are cut as soon as they come.
        came_s: when each connection came, monotonic.
    """

    target: int
    seed: int = 0
    lose_replies: float = 0.0
    is_deaf: bool = False
    is_mute: bool = False
    refuses: bool = False
    barred: set[str] = field(default_factory=set)
    losses: int = 0
    came_s: list[float] = field(default_factory=list)
    port: int = field(init=False)
    _open: set[socket.socket] = field(default_factory=set)
    _frozen: set[socket.socket] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, (host, _) = self._listener.accept()
            except OSError:
                return
            self.came_s.append(time.monotonic())
            if self.refuses or host in self.barred:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                is_cut_off = self.is_deaf if to_server else self.is_mute
                if is_cut_off or source in self._frozen:
                    continue
                if not to_server and self._dice.random() < self.lose_replies:
                    self.losses += 1
                    break
                sink.sendall(piece)
        self._cut(source)
        self._cut(sink)

    def _cut(self, end: socket.socket) -> None:
        self._open.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

    def freeze_all(self) -> None:
        """Let the connections there are stay open and silent for ever; new ones work."""
        self._frozen |= self._open

    def cut_all(self) -> None:
        """Reset every connection."""
        for end in list(self._open):
            self._cut(end)

    def close(self) -> None:
        """Stop forwarding."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
