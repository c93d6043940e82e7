"""Two loads that strangers can lay on a server, and another client's times beside them.

    python tests/support/server_loads.py [--seconds 20] [--checkout OLD]

A real `speceyes serve` with the bundled pair and two keys. One key's client asks about a small
picture, one question after the other; the other key's sends, over and over, (a) four requests at a
time with a progressive JPEG of 6300 x 6300 pixels and 295 KB whose last scan is there 1,000 times
more, and (b) twelve at a time of 1.2 MB with eight PNGs of 40 megapixels each. Printed are the
first client's times, the statuses of the second's requests, and the memory of the server and its
children before, at the most, and ten seconds after.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run by its path, as the docstring says
    HERE = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import httpx
from PIL import Image

from speceyes.server.keys import new_key
from support.processes import started
from support.slow_files import chunk, encoded, with_scans

ROOT = Path(__file__).resolve().parents[2]
AFTER_S = 10.0


def url_of(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def body(urls: Sequence[str], question: str = "What shape is the large object?") -> dict[str, Any]:
    """A request."""
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*images, {"type": "text", "text": question}]
    return {"model": "speceyes", "messages": [{"role": "user", "content": content}]}


def slow_jpeg(scans: int = 1000) -> dict[str, Any]:
    """Load (a)."""
    return body([url_of(with_scans(6300, scans), "jpeg")])


def large_pngs(side: tuple[int, int] = (8000, 5000)) -> Iterator[dict[str, Any]]:
    """Load (b): requests, none of whose images is another's."""
    data = encoded(Image.new("RGB", side, "navy"), "PNG")
    for number in itertools.count():
        names = (chunk(b"tEXt", b"number\0%d %d" % (number, n)) for n in range(8))
        yield body([url_of(data[:33] + name + data[33:], "png") for name in names])


def resident(pid: int) -> float:
    """MiB that a process and all its descendants hold."""
    pages = 0
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(words[1])
    for one in parents:
        up = one
        while up not in (0, pid):
            up = parents.get(up, 0)
        if up == pid:
            try:
                pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            except OSError:
                continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Running:
    """A server that runs."""

    url: str
    pid: int
    keys: dict[str, str]

    def in_flight(self) -> float:
        """Requests that are accepted and not done with."""
        with self.client("other") as http:
            lines = http.get("/metrics").text.splitlines()
        return next(float(x.split()[-1]) for x in lines if x.startswith("speceyes_in_flight "))

    def client(self, name: str) -> httpx.Client:
        """A client with one of the keys."""
        bearer = {"Authorization": f"Bearer {self.keys[name]}"}
        return httpx.Client(base_url=self.url, timeout=300, trust_env=False, headers=bearer)


@contextmanager
def running(checkout: Path = ROOT, *options: str) -> Iterator[Running]:
    """A server of a checkout with the bundled pair, with the keys "attacker" and "other"."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    serve = [sys.executable, "-m", "speceyes", "serve"]
    with tempfile.TemporaryDirectory() as folder:
        made = {name: new_key(name) for name in ("attacker", "other")}
        keys = {name: key for name, (key, _) in made.items()}
        lines = [f"{line}\n" for _, line in made.values()]
        file = Path(folder, "keys")
        file.write_text("".join(lines), encoding="utf-8")
        words = [*serve, "--keys", str(file), "--port", "0", *options]
        with started(*words, env=environment, stderr=subprocess.PIPE, grace_s=60) as child:
            assert child.stderr is not None
            for line in child.stderr:
                if "serving" in line:
                    break
            threading.Thread(target=child.stderr.read, daemon=True).start()
            url = line.split()[-1].removesuffix("/v1")
            yield Running(url, child.pid, keys)


@dataclass
class Seen:
    """What was seen while something ran."""

    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    others: Counter[int] = field(default_factory=Counter)
    most: float = 0.0

    def line(self) -> str:
        """Times in milliseconds, and what became of the requests."""
        if not self.times:
            return "no request was answered"
        times = sorted(1000 * one for one in self.times)
        p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
        return (
            f"{len(times)} requests, p50 {statistics.median(times):.0f} ms, p99 {p99:.0f} ms, "
            f"longest {times[-1]:.0f} ms, {dict(self.others)}; load {dict(self.statuses)}; "
            f"memory at most {self.most:.0f} MiB"
        )


def watched(server: Running, load: Sequence[dict[str, Any]], seconds: float) -> Seen:
    """Has one client ask while others send a load, each request over and over."""
    seen, over = Seen(), threading.Event()

    def attack(request: dict[str, Any]) -> None:
        with server.client("attacker") as http:
            while not over.is_set():
                try:
                    seen.statuses[http.post("/v1/chat/completions", json=request).status_code] += 1
                except httpx.HTTPError:
                    seen.statuses[0] += 1

    def look() -> None:
        while not over.wait(0.1):
            seen.most = max(seen.most, resident(server.pid))

    threads = [threading.Thread(target=attack, args=(one,)) for one in load]
    threads.append(threading.Thread(target=look))
    for thread in threads:
        thread.start()
    picture = url_of(encoded(Image.new("RGB", (448, 448), "teal"), "PNG"), "png")
    end = time.monotonic() + seconds
    try:
        with server.client("other") as http:
            while time.monotonic() < end:
                begin = time.perf_counter()
                reply = http.post("/v1/chat/completions", json=body([picture]))
                seen.times.append(time.perf_counter() - begin)
                seen.others[reply.status_code] += 1
                time.sleep(0.02)
    finally:
        over.set()
        for thread in threads:
            thread.join(400)
        while server.in_flight():  # a place is held until the models are done
            seen.most = max(seen.most, resident(server.pid))
            time.sleep(0.1)
    return seen


def main() -> int:
    """Runs both loads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    options = parser.parse_args()
    loads = {
        "no load": [],
        "(a) JPEGs of 1,000 scans": [slow_jpeg()] * 4,
        "(b) eight PNGs of 40 megapixels, twelve times": list(itertools.islice(large_pngs(), 12)),
    }
    for name, load in loads.items():
        with running(options.checkout) as server:
            watched(server, [], 3.0)  # what is made at the first request
            before = resident(server.pid)
            seen = watched(server, load, options.seconds)
            time.sleep(AFTER_S)
            sys.stdout.write(
                f"{name}: {seen.line()}; before {before:.0f} MiB, "
                f"{AFTER_S:g} s after {resident(server.pid):.0f} MiB\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
