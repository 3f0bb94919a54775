"""Sockets of the server (docs/protocol.md): WebSocket sessions, the page, health and metrics.

The event loop reads, checks and writes; it never decodes. Each connection has a receiver, which stops
reading while too much of its sound waits, and a sender, which tells what its session has to tell from
the last event on that went out: a slow reader misses partials, never finals, and takes no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import ConfigError
from ..recognizer import Recognizer
from .hub import Holder, Hub, Limits, Live, log
from .listener import GOODBYE_SECONDS, Listener, WebSocketProtocol, http_protocol, open_socket
from .protocol import PATH, End, Hello, Refusal, parse, parse_first, render

WEB = Path(__file__).with_name("web")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
}


class Server:
    """A recogniser behind a port. Raises ConfigError where it would be open to everybody by accident.

    A `host` that others can reach needs a `token`, or `insecure`. `origins` are those of pages, beside the
    server's own, that may connect. Port 0 is any free one; `port` is then the one it got.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        token: str = "",
        insecure: bool = False,
        origins: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> None:
        if not is_local(host) and not token and not insecure:
            raise ConfigError(
                f"--host {host} can be reached from other machines: give a --token, or --insecure to let "
                "everybody in"
            )
        origins = list(origins)
        for origin in origins:
            if not re.fullmatch(r"https?://[^/?#\s]+/?", origin, re.IGNORECASE):
                raise ConfigError(f"--origin {origin}: not an origin such as https://captions.example")
        self.hub = Hub(recognizer, limits or Limits(), token)
        self._host, self._guarded = host, bool(token)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._socket = open_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.port}"
        self._listener = Listener(self._config(), self.hub)

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`. Calls `ready` when clients may come."""
        self._listener.ready = ready
        await self._listener.serve([self._socket])

    def stop(self) -> None:
        """Lets `run` end: sessions are finished first. May be called from anywhere."""
        self._listener.should_exit = True

    @property
    def connections(self) -> int:
        return len(self._listener.server_state.connections)

    def _config(self) -> uvicorn.Config:
        routes = [
            WebSocketRoute(PATH, self._websocket),
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
            Route("/", self._page),
            Route("/{name}", self._page),
        ]
        return uvicorn.Config(
            Starlette(routes=routes),
            http=http_protocol(self.hub),
            ws=WebSocketProtocol,
            ws_max_size=self.hub.limits.message_bytes,
            ws_per_message_deflate=False,
            # Pings keep lines open; whether a client is alive is judged by what it sends, because its
            # pongs wait behind its sound while it is held up.
            ws_ping_timeout=None,
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )

    async def _health(self, request: Request) -> Response:
        status = "stopping" if self.hub.stopping else "ok"
        content = {"status": status, "sessions": self.hub.sessions, "max_streams": self.hub.max_streams}
        return JSONResponse({**content, "model": self.hub.model}, 503 if self.hub.stopping else 200)

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(
            self.hub.render_metrics(self.connections), media_type="text/plain; version=0.0.4"
        )

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        path = WEB / name
        if name not in os.listdir(WEB) or path.suffix not in _TYPES:
            return PlainTextResponse("not found\n", 404)
        headers = _headers(request.headers.get("host", ""))
        return FileResponse(path, headers=headers, media_type=_TYPES[path.suffix])

    async def _websocket(self, websocket: WebSocket) -> None:
        origin, host = websocket.headers.get("origin"), websocket.headers.get("host", "")
        if not self._may_connect(origin, host):
            self.hub.metrics.count("origin_refused_total")
            log("origin refused", origin=str(origin)[:200])
            await websocket.close()  # before accept: HTTP 403
            return
        await websocket.accept()
        await _Connection(self.hub, websocket).run()

    def _may_connect(self, origin: str | None, host: str) -> bool:
        """Whether a handshake with this Origin and Host may go on.

        The server's own page has both the same. A name that is not ours may be one that another page's
        owner has pointed at this machine (DNS rebinding), so without a token only addresses count.
        """
        if origin is None or origin.lower() in self._origins:
            return True
        try:
            parts = urlsplit(origin.lower())
        except ValueError:  # brackets that hold no address
            return False
        if parts.scheme not in ("http", "https") or parts.netloc != host.lower():
            return False
        name = parts.hostname or ""
        return self._guarded or name in ("localhost", self._host.lower()) or _is_address(name)


class _Connection:
    """One WebSocket, from hello to close."""

    def __init__(self, hub: Hub, websocket: WebSocket) -> None:
        self._hub, self._websocket = hub, websocket
        self._holder = Holder()

    async def run(self) -> None:
        live: Live | None = None
        keep = True
        try:
            live, event = await self._greet()
            keep = await self._talk(live, event)
        except Refusal as refusal:
            keep = refusal.resumable
            self._hub.metrics.count("refused_total", code=refusal.code)
            log("refused", code=refusal.code, session=live.number if live else None)
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._refuse(refusal), min(GOODBYE_SECONDS, self._hub.limits.send_seconds)
                )
        except (WebSocketDisconnect, asyncio.CancelledError):
            pass  # cancelled only when the whole server ends at once
        finally:
            if live is not None:
                self._hub.leave(live, self._holder, keep)

    async def _greet(self) -> tuple[Live, int]:
        """First message -> (session, number of the last event that the client has)."""
        try:
            message = await asyncio.wait_for(self._websocket.receive(), self._hub.limits.hello_seconds)
        except asyncio.TimeoutError:
            raise Refusal("timeout", f"no hello for {self._hub.limits.hello_seconds:g} seconds") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if message.get("text") is None:
            raise Refusal("bad_audio", "sound before hello")
        first = parse_first(message["text"])
        scheme, _, bearer = self._websocket.headers.get("authorization", "").partition(" ")
        self._hub.authorize(first.token, bearer if scheme.lower() == "bearer" else "")
        client = self._websocket.client
        address = client.host if client else ""
        if isinstance(first, Hello):
            live, event = await self._hub.open(first, address, self._holder), 0
        else:
            live, event = self._hub.resume(first, self._holder), first.event
        self._holder.heard_at = asyncio.get_running_loop().time()
        return live, event

    async def _talk(self, live: Live, event: int) -> bool:
        """Both ways until one ends -> whether the client may want to come back. Raises Refusal."""
        ready = live.session.ready(self._hub.model, self._hub.limits.told())
        receiver = asyncio.create_task(self._receive(live))
        sender = asyncio.create_task(self._send(live, event, render(ready)))
        try:
            waiting: set[asyncio.Future[Any]] = {receiver, sender, self._holder.failure}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if receiver.done():
                return receiver.result() != 1000
            if self._holder.failure.done():
                raise self._holder.failure.result()
            sender.result()  # all told, and the client has not closed; or it broke
            await self._websocket.close(1012 if live.session.ended == "stopping" else 1000)
            return True
        finally:
            receiver.cancel()
            sender.cancel()
            await asyncio.gather(receiver, sender, return_exceptions=True)

    async def _receive(self, live: Live) -> int:
        """Messages until the client closes -> its close code. Raises Refusal."""
        loop = asyncio.get_running_loop()
        while True:
            message = await self._websocket.receive()
            self._holder.heard_at = loop.time()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            if live.holder is not self._holder:
                raise Refusal("replaced", "another connection has taken this session up")
            if message.get("text") is None:
                self._hub.hear(live, message["bytes"])
                while self._hub.is_full(live):
                    live.space.clear()
                    await live.space.wait()
                self._holder.heard_at = loop.time()
                continue
            parsed = parse(message["text"])
            if isinstance(parsed, End):
                self._hub.end(live)
            else:
                await self._text(render(live.session.pong(parsed)))

    async def _send(self, live: Live, event: int, ready: str) -> None:
        """Tells what is new until all is told, then gives the client time to close."""
        session = live.session
        await self._text(ready)
        told = session.heard
        while True:
            live.changed.clear()
            if session.heard - told >= session.hello.sample_rate or (session.done and told < session.heard):
                told = session.heard
                await self._text(render(session.progress()))
            done = session.done
            for number, text in session.after(event):
                await self._text(text)
                event = number
            if done:
                await asyncio.sleep(GOODBYE_SECONDS)
                return
            await live.changed.wait()

    async def _text(self, text: str) -> None:
        """The hub sees to it that this does not last; a timer for each would cost more than sending."""
        now = asyncio.get_running_loop().time()
        self._holder.sending_since = min(self._holder.sending_since, now)  # pongs and events may wait at once
        await self._websocket.send_text(text)
        self._holder.sending_since = math.inf

    async def _refuse(self, refusal: Refusal) -> None:
        await self._websocket.send_text(render(refusal.to_dict()))
        await self._websocket.close(refusal.close_code)


def _headers(host: str) -> dict[str, str]:
    """Of the page: nothing from elsewhere, nothing inline. `host` as the browser named it."""
    named = f" ws://{host} wss://{host}" if re.fullmatch(r"[\w.:\[\]-]+", host, re.ASCII) else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self'{named}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Permissions-Policy": "microphone=(self)",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
