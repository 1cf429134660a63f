"""Load by wrk, the usual generator of HTTP load: each client sends its next request as soon as it is answered."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60  # seconds until a request counts as failed
_SCRIPT = """
local file = io.open(%(body)s, "rb")
wrk.method, wrk.body = "POST", file:read("*all")
wrk.headers["Content-Type"] = %(kind)s
file:close()

function done(summary, latency, requests)
  local e = summary.errors
  print(string.format('\\n{"requests": %%d, "microseconds": %%d, "p50": %%d, "p95": %%d, "p99": %%d, "failed": %%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Args:
        requests: Requests that were answered.
        rate: Requests a second.
        p50: Median latency in milliseconds; and so are the next two.
        p95: Its 95th percentile.
        p99: Its 99th percentile.
        failed: Requests that were not answered with success.
    """

    requests: int
    rate: float
    p50: float
    p95: float
    p99: float
    failed: int


def check() -> None:
    """Check that wrk is installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt install wrk, or brew install wrk")


def load(url: str, body: bytes, kind: str, clients: int, seconds: float) -> Load:
    """Have clients post a body for some seconds, on one thread."""
    with tempfile.TemporaryDirectory() as name:
        script, content = Path(name) / "post.lua", Path(name) / "body"
        content.write_bytes(body)
        script.write_text(_SCRIPT % {"body": json.dumps(str(content)), "kind": json.dumps(kind)})
        command = [
            "wrk",
            "-t1",
            f"-c{clients}",
            f"-d{round(seconds)}s",
            f"--timeout={_PATIENCE}s",
            "-s",
            str(script),
            url,
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    p50, p95, p99 = (found[name] / 1000 for name in ("p50", "p95", "p99"))
    count = found["requests"]
    return Load(count, count / found["microseconds"] * 1e6, p50, p95, p99, found["failed"])
