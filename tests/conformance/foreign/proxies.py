"""Clients behind nginx and HAProxy, as Debian has them, while connections to the server age; `make proxies` runs this.

Not part of `make test`: the proxies are installed by the machine's package manager.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import graphs, rolling
from tests.conftest import STOP_LIMIT_S, StartServer, eventually

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

CLIENTS = 16
REQUESTS = 4_000
START_LIMIT_S = 20.0

# Both keep connections to the server, and hand a request on once: what the server loses is lost.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream servers {{
        {servers}
        keepalive 32;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://servers;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 512
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    {servers}
"""
PROXIES = {
    "nginx": (NGINX, "server {address} max_fails=0;", ["nginx", "-p", "{folder}", "-c", "{file}"]),
    "haproxy": (HAPROXY, "server s{index} {address}", ["haproxy", "-db", "-f", "{file}"]),
}


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def proxy(name: str, folder: Path, addresses: list[str]) -> Iterator[str]:
    """Runs a proxy before `addresses`; gives its own."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    text, line, command = PROXIES[name]
    servers = "\n".join(line.format(address=address, index=index) for index, address in enumerate(addresses))
    port = free_port()
    file = folder / f"{name}.conf"
    file.write_text(text.format(folder=folder, servers=servers, port=port))
    arguments = [found, *(part.format(folder=folder, file=file) for part in command[1:])]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        address = f"127.0.0.1:{port}"
        eventually(
            lambda: answers(address) or process.poll() is not None,
            limit_s=START_LIMIT_S,
            what=f"{name} answers",
        )
        assert process.poll() is None, (folder / f"{name}.log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)


@pytest.mark.parametrize("name", PROXIES)
def test_nothing_is_lost_behind_a_proxy_while_connections_age(
    start_server: StartServer, tmp_path: Path, name: str
) -> None:
    folder = graphs.write_all(tmp_path / "models", (rolling.MODEL,))
    servers = [start_server(folder, "--max-connection-age-s", "1") for _ in range(2)]
    with (
        proxy(name, tmp_path, [server.http for server in servers]) as address,
        rolling.crowd([address], CLIENTS) as crowd,
    ):
        crowd.wait_for(REQUESTS)
    print(f"{name}: {crowd.counts['200']} answers, {crowd.lost()} lost")  # noqa: T201 -- the figures that the target is run for
    assert crowd.lost() == 0, crowd.counts
