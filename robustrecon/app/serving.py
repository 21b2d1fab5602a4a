"""Serve the page on this machine."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..types import InputError

Message = MutableMapping[str, Any]
# Gradio's page asks a server elsewhere for a script that it does without.
ONLY_FROM_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class Offline:
    """Middleware that lets the browser fetch from this server alone."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer a request, with the header that says so."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", ONLY_FROM_HERE.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, sent)


def check_there() -> None:
    """Whether Gradio is installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InputError("app: needs Gradio, which is not installed; install robustrecon[app]")


def check_port(host: str, port: int) -> None:
    """Whether a port can be listened on.

    Raises:
        InputError: no such port or host, or one that is taken.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"port: got {port}, must be in 1 to 65535")
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as error:
        raise InputError(f"port: got {port}, which cannot be used on {host} ({error.strerror or error})") from None


def serve(first: str, host: str, port: int, detector: str | None, data_dir: str, device: str) -> None:
    """Serve the page until the process is stopped; prints its address.

    Raises:
        InputError: Gradio is missing, a model that cannot be loaded, or a port that is taken.
    """
    check_there()
    check_port(host, port)
    from .desk import Desk, open_desk

    known: dict[str, Desk] = {first: open_desk(first, detector, data_dir=data_dir, device=device)}

    def desk_of(model: str) -> Desk:
        return known.get(model) or open_desk(model, detector, data_dir=data_dir, device=device)

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from starlette.middleware import Middleware

    from .page import page

    print(f"http://{host}:{port} - Ctrl+C stops it", flush=True)
    page(first, desk_of).launch(
        server_name=host,
        server_port=port,
        share=False,
        show_api=False,
        quiet=True,
        app_kwargs={"middleware": [Middleware(Offline)]},
    )
