"""What the server asks of uvicorn beyond its settings: limits before the first request, and a gentle end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..errors import ConfigError
from .hub import Hub

GOODBYE_SECONDS = 5.0  # for a client to close after `done`, and for what is still to be sent
# Beyond two a session: pages, health checks, clients that are told to wait.
SPARE_CONNECTIONS = 64
SPARE_CONNECTIONS_PER_ADDRESS = 16


def open_socket(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(cast(Any, address[:2]), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {reason}; choose another --port or --host"
        ) from None


class Listener(uvicorn.Server):
    """Tells when it is ready, leaves signals alone, and lets sessions end before connections do."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub
        self.ready: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._hub.start()
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._hub.stop()
        await super().shutdown(sockets)


def http_protocol(hub: Hub) -> type[asyncio.Protocol]:
    class Http(H11Protocol):
        """Refuses one connection too many, and those that ask for nothing."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._patience = self.loop.call_later(hub.limits.hello_seconds, self._give_up)
            host = self.client[0] if self.client else ""
            same = sum((getattr(other, "client", None) or ("",))[0] == host for other in self.connections)
            most = hub.limits.per_address
            if len(self.connections) > 2 * hub.max_streams + SPARE_CONNECTIONS or (
                most is not None and same > 2 * most + SPARE_CONNECTIONS_PER_ADDRESS
            ):
                transport.write(
                    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\n"
                    b"Connection: close\r\n\r\n"
                )
                transport.close()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._patience.cancel()  # from now on the connection's own
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            if self.cycle is None:  # no whole request yet
                self.transport.abort()

    return Http


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Does not wait for ever until a client that reads nothing has read the rest."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)
