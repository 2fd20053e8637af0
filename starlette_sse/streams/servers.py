"""What is known of particular servers, for speed and for what ASGI leaves out; any other server works without it."""

from __future__ import annotations

from contextlib import suppress
from socket import SHUT_RDWR
from types import FunctionType, MethodType
from typing import Any, Protocol

from starlette.types import Receive, Send

from starlette_sse.eventloop import EventLoop

__all__ = ["Transport", "abort_connection", "free_connection", "is_closed", "is_uvicorns", "plain_send"]

#: Starlette's own wrappers, which only note that a response has started.
WRAPPERS = frozenset(
    {
        ("starlette._exception_handler", "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender"),
        ("starlette.middleware.errors", "ServerErrorMiddleware.__call__.<locals>._send"),
    }
)

#: How many middlewares are looked through.
MOST_WRAPPERS = 64


class Transport(Protocol):
    """A connection of asyncio's or uvloop's."""

    def write(self, data: bytes) -> object:
        """Send ``data``, or keep it until it can be sent."""

    def abort(self) -> None:
        """Close it now, whatever has not been sent."""

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes have not been sent."""

    def get_extra_info(self, name: str) -> Any:
        """Return what is known of the connection by a name; None if nothing is."""

    def get_protocol(self) -> Any:
        """Return who is told what happens to the connection."""


def is_uvicorns(function: Receive | Send) -> bool:
    """Tell whether ``receive`` or ``send`` is uvicorn's own, which waits for one asyncio future at a time.

    It needs no task to be awaited in. Behind a middleware that wraps it, it may be anything.
    """
    # A proxy around it, as tracing makes them, passes for an instance of the same class.
    if type(function) is not MethodType:
        return False
    module = type(function.__self__).__module__
    return module.startswith("uvicorn.protocols.http.") and is_own(function.__func__, module)


def is_own(function: Any, module: str) -> bool:
    """Tell whether a function is the one of its module; what takes its place to see what is sent must see it."""
    names = getattr(function, "__globals__", {})
    code = getattr(function, "__code__", None)
    return names.get("__name__") == module and getattr(code, "co_filename", None) == names.get("__file__")


def plain_send(send: Send) -> MethodType | None:
    """Return uvicorn's own ``send`` if nothing stands before it but what every Starlette app has; else None."""
    while type(send) is FunctionType and is_starlettes(send):
        send = wrapped_by(send, "send")
    return send if isinstance(send, MethodType) and is_uvicorns(send) else None


def is_starlettes(function: FunctionType) -> bool:
    """Tell whether a function is one of Starlette's own wrappers, by what :func:`functools.wraps` does not copy."""
    return (function.__globals__.get("__name__"), function.__code__.co_qualname) in WRAPPERS


def wrapped_by(wrapper: Any, name: str) -> Any:
    """Return what a function that was defined around another one calls by ``name``, or one that ends with it."""
    cells = getattr(wrapper, "__closure__", None) or ()
    for free, cell in zip(wrapper.__code__.co_freevars if cells else (), cells, strict=True):
        if free.endswith(name):
            return cell.cell_contents
    return None


def abort_connection(receive: Receive) -> None:
    """Free a connection whose client reads nothing, on uvicorn; elsewhere do nothing.

    Uvicorn closes the transport when the app returns, and a transport that is closed waits until its buffer is
    read: the connection would stay, and hold up the server's shutdown, for as long as the client likes.
    """
    transport = transport_of(receive)
    if transport is not None:
        transport.abort()


def free_connection(receive: Receive, loop: EventLoop, patience: float, *, draining: bool) -> None:
    """Abort the connection of a response that has ended, on uvicorn, if its client does not take the rest of it.

    What is less than the server's high-water mark holds up no ``send``, but it holds the transport open that uvicorn
    closes, and so the server's shutdown. TLS waits besides, for 30 seconds by default, until the client has answered
    that the connection ends.

    :param patience: how long the client gets, in seconds.
    :param draining: whether the server shuts down, so that it waits for TLS too.
    """
    exchange = exchange_of(receive)
    if exchange is None:
        return
    transport: Transport = exchange.transport
    try:
        unsent, protocol = transport.get_write_buffer_size(), transport.get_protocol()
        socket = transport.get_extra_info("socket") if transport.get_extra_info("sslcontext") else None
    except AttributeError:
        # TLS of asyncio's that is closed twice, as by uvicorn for a client that has gone, knows nothing any more.
        return
    if not unsent and not (draining and socket):
        return

    def look() -> None:
        if getattr(protocol, "cycle", exchange) is not exchange:
            # What is not sent is of another request.
            return
        if transport.is_closing():
            transport.abort()
            if socket is not None:
                # Asyncio's TLS that was closed twice does not abort. Uvloop's does, and has no socket to shut down.
                with suppress(OSError, TypeError):
                    socket.shutdown(SHUT_RDWR)
        elif transport.get_write_buffer_size():
            # It is kept for another request, until nobody has made one for a while.
            loop.call_at(loop.time() + patience, look)

    loop.call_at(loop.time() + patience, look)


def is_closed(receive: Receive) -> bool:
    """Tell whether the connection is seen to be closed, on uvicorn; elsewhere nobody can tell.

    With httptools a client that has sent another request behind that of its stream is never said to have gone: uvicorn
    tells it to the last request of a connection alone.
    """
    transport = transport_of(receive)
    return transport is not None and transport.is_closing()


def transport_of(receive: Receive) -> Transport | None:
    """Return the connection's transport, on uvicorn."""
    exchange = exchange_of(receive)
    transport: Transport | None = None if exchange is None else exchange.transport
    return transport


def exchange_of(receive: Receive) -> Any:
    """Return what has the connection's transport, on uvicorn: its request and response; else None.

    Middleware that wraps ``receive`` is looked through as far as it calls the one that it wraps by a usual name.
    """
    wrapper: Any = receive
    for _ in range(MOST_WRAPPERS):
        owner = getattr(wrapper, "__self__", None)
        transport: Any = getattr(owner, "transport", None)
        # Asyncio's and uvloop's have both.
        if hasattr(transport, "abort") and hasattr(transport, "get_write_buffer_size"):
            return owner
        # BaseHTTPMiddleware's function has wrapped_receive, and its request _receive.
        wrapper = wrapped_by(wrapper, "receive") if owner is None else getattr(owner, "_receive", None)
        if wrapper is None:
            break
    return None
