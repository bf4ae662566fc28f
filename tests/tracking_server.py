"""MLflow's tracking server on a PostgreSQL of the test's own, and a proxy that misbehaves."""

import http.client
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.request import urlopen

import psycopg

Mood = Callable[[str, str], int | None]
_PATIENCE = 180.0  # seconds to start: CI's machine may be busy


def postgres_programs() -> Path | None:
    """Debian's folder of PostgreSQL's server programs, the newest; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_release)
    return found[-1].parent if found else None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A database server on a socket in a folder of its own; yields SQLAlchemy's URL.

    PostgreSQL refuses to run as root, so root starts it as Debian's user postgres.
    """
    folder = Path(
        tempfile.mkdtemp(prefix="suffice-pg-", dir="/tmp")
    )  # a short path: it is a socket's
    user = "postgres" if os.getuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    data, settings = (
        folder / "data",
        ("listen_addresses=", "fsync=off", f"unix_socket_directories={folder}"),
    )
    try:
        initialise = [programs / "initdb", "-D", data, "-U", "suffice", "--auth", "trust", "-N"]
        subprocess.run(initialise, user=user, cwd="/", check=True, capture_output=True)
        command = [programs / "postgres", "-D", data]
        command += [word for setting in settings for word in ("-c", setting)]
        with _running(command, folder / "log", user=user, cwd="/"):
            _until(lambda: _answers(folder), folder / "log")
            yield f"postgresql+psycopg://suffice@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def tracking_server(store: str, folder: Path) -> Iterator[int]:
    """`mlflow server` on loopback, serving the files of runs from `folder`; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--artifacts-destination", folder / "files", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    with _running([*command], folder / "server.log", cwd=folder, env=server_environment()):
        _until(lambda: _healthy(f"http://127.0.0.1:{port}/health"), folder / "server.log")
        yield port


@contextmanager
def model_server(model: str, folder: Path, tracking: str) -> Iterator[int]:
    """`mlflow models serve` of a registered model in this environment; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]
    environment = server_environment() | {"MLFLOW_TRACKING_URI": tracking}
    # MLflow starts uvicorn by its name, and nobody has to have activated this environment.
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**environment, "PATH": own}
    with _running([*command], folder / "model.log", cwd=folder, env=environment):
        _until(lambda: _healthy(f"http://127.0.0.1:{port}/ping"), folder / "model.log")
        yield port


@contextmanager
def proxy(port: int) -> Iterator["Proxy"]:
    """A proxy in front of a server on loopback, which answers as its `mood` says."""
    server = Proxy(port)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Proxy(ThreadingHTTPServer):
    """Forwards requests; `mood(method, path)` may give a status instead, or take its time."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.upstream = port
        self.mood: Mood = lambda method, path: None

    @property
    def url(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up waiting is what the tests want."""


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        body = self._body()
        refused = self.server.mood(self.command, self.path)
        if refused is not None:
            self._answer(refused, {}, b"the server is in a mood")
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
        headers["Content-Length"] = str(len(body))
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        with closing(upstream):
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            status, told, content = answer.status, dict(answer.getheaders()), answer.read()
        self._answer(status, told, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _forward  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def server_environment() -> dict[str, str]:
    """For MLflow's servers: without telemetry and without its executor of agents' jobs."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | quiet


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _running(command: list[object], log: Path, **more: object) -> Iterator[None]:
    with log.open("w") as told:
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words,
            stdout=told,
            stderr=told,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **more,
        )
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def _until(ready: Callable[[], bool], log: Path) -> None:
    ends = time.monotonic() + _PATIENCE
    while not ready():
        assert time.monotonic() < ends, f"not ready: {log.read_text()[-2000:]}"
        time.sleep(0.2)


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(host=str(folder), user="suffice", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def _healthy(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _release(program: Path) -> float:
    return float(program.parent.parent.name)
