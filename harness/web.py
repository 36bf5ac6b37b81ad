"""Calls of servers by URL: those on this machine never go through a proxy, the others say which one they go through."""

import functools
import ipaddress
import os
import socket
import ssl
import urllib.request
from typing import Any
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Does the address lead to this machine? Clusters set `http_proxy` for all, and a proxy cannot reach it."""
    host = (urlsplit(url if "://" in url else f"http://{url}").hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def reserve_port() -> socket.socket:
    """A socket that keeps a free port of 127.0.0.1 until it is closed: no other program is given that port.

    A server that sets SO_REUSEADDR, as servers do, can listen on it meanwhile; before that, connections are refused.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept


@functools.cache
def trusted() -> ssl.SSLContext:
    """Whom TLS connections trust: the authorities of SSL_CERT_FILE and SSL_CERT_DIR; without them, those of the system
    and of `certifi`, by which the other clients of a run go."""
    context = ssl.create_default_context()  # which heeds both variables
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def open_url(request: "urllib.request.Request | str", *, timeout: float) -> Any:
    """`urllib.request.urlopen`, past any proxy where the address is this machine's."""
    url = request if isinstance(request, str) else request.full_url
    handlers: list[urllib.request.BaseHandler] = []
    if is_loopback(url):
        handlers.append(urllib.request.ProxyHandler({}))
    if url.lower().startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=trusted()))
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def proxy_of(url: str, *, secret: bool = False) -> str:
    """The proxy that calls of `url` go through by the environment; empty where none. `secret`: with its password."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = parts.hostname or ""
    if is_loopback(url) or urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return ""
    proxies = urllib.request.getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all") or ""
    return found if secret else found.rpartition("@")[2]


def through(url: str) -> str:
    """` through the proxy X`, for an error about `url`; empty where there is none."""
    proxy = proxy_of(url)
    return (
        f" through the proxy {proxy} (from http_proxy, https_proxy or all_proxy; no_proxy excepts hosts)"
        if proxy
        else ""
    )
