"""Starts LiteLLM's proxy: with the files of router/README.md, or to write a spend log."""

import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEY = "sk-0123456789abcdef0123456789abcdef"  # the proxy refuses a weak one
SPENDING = """\
model_list:
  - model_name: "*"
    litellm_params:
      model: openai/*
      api_base: os.environ/UPSTREAM
      api_key: os.environ/UPSTREAM_KEY
litellm_settings: {callbacks: [spend.logger], num_retries: 0}
general_settings: {custom_auth: spend.check, store_prompts_in_spend_logs: true}
"""
_BLOCK = re.compile(r"^```\w+\n# (gateway\.py|config\.yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running proxy."""

    url: str
    folder: Path
    pid: int


@contextmanager
def gateway(folder: Path, upstream: str, models: str = "") -> Iterator[Gateway]:
    """Start one in a folder that holds ``artifacts/current``.

    Args:
        folder: the proxy's.
        upstream: where its models are.
        models: further ones, in YAML.
    """
    page = (ROOT / "router" / "README.md").read_text(encoding="utf-8")
    for name, text in _BLOCK.findall(page):
        text = text.replace("model_list:\n", f"model_list:\n{models}")
        (folder / name).write_text(text, encoding="utf-8")
    with _proxy(folder, upstream) as running:
        yield running


@contextmanager
def spending(folder: Path, upstream: str) -> Iterator[Gateway]:
    """Start one that passes every model on and keeps its spend log, `tests.spend_log.ROWS`."""
    (folder / "spend.py").write_text("from tests.spend_log import check, logger\n")
    (folder / "config.yaml").write_text(SPENDING)
    with _proxy(folder, upstream) as running:
        yield running


@contextmanager
def _proxy(folder: Path, upstream: str) -> Iterator[Gateway]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Path(os.environ["SUFFICE_GATEWAY_PYTHON"]).with_name("litellm")
    told = {"UPSTREAM": upstream, "UPSTREAM_KEY": "k", "LITELLM_MASTER_KEY": KEY}
    told |= {"PYTHONPATH": str(ROOT), "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "1"}
    log = (folder / "proxy.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [command, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=os.environ | told,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, folder / "proxy.log")
            yield Gateway(url, folder, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 600  # half a minute where nothing else runs
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health/liveliness", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the proxy did not start:\n{log.read_text(errors='replace')[-4000:]}")
