"""Images decoded in processes that can be killed: the same pixels, an end for whatever lasts."""

from __future__ import annotations

import base64
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from speceyes.errors import ConfigError, ImageError
from speceyes.gate import SeparabilityGate
from speceyes.images import ImageLimits, load_image
from speceyes.images import decoding_pool as module
from speceyes.images.decoding_pool import Cancellation, DecodingPool, DecodingStopped
from speceyes.images.deferred import DeferredImage
from speceyes.images.reduced import reduced, reduced_size
from speceyes.pipeline import DraftConfig, SpecPipeline
from speceyes.server.loading import LANES
from speceyes.types import Conversation, Query
from support.models import FakeModel
from support.processes import started, until
from support.served import asking, data_url, pipeline, serving
from support.slow_files import encoded

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
LARGE = encoded(NOISE.resize((6000, 5000)), "JPEG", quality=60)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodingPool]:
    with DecodingPool(2) as one:
        yield one


PHOTO = NOISE.resize((1600, 1000), Image.Resampling.BICUBIC)
FEW, MANY = 20_000, 120_000
PHOTO_WHOLE = load_image(encoded(PHOTO, "JPEG"))


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(NOISE, "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        encoded(NOISE, "PNG"),
        encoded(NOISE, "WEBP"),
        encoded(NOISE.convert("L"), "BMP"),
        encoded(NOISE.convert("P"), "GIF"),
        encoded(NOISE.convert("CMYK"), "TIFF"),
        encoded(NOISE.convert("RGBA").rotate(45), "PNG"),
        encoded(Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)), "PNG"),
        encoded(Image.new("RGB", (4, 70_000), "red"), "PNG"),
        encoded(Image.new("RGB", (70_000, 4), "red"), "PNG"),
        _turned(),
        LARGE,
    ],
    ids=[
        "png",
        "webp",
        "bmp",
        "gif",
        "cmyk",
        "alpha",
        "16 bits",
        "high",
        "wide",
        "turned",
        "large",
    ],
)
def test_pixels_are_those_of_this_process(data: bytes, pool: DecodingPool) -> None:
    here, there = load_image(data), pool.decode(data)
    assert (there.mode, there.size) == ("RGB", here.size) and there.tobytes() == here.tobytes()


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_views_are_those_of_this_process_and_the_whole_comes_when_it_is_asked_for(
    orientation: int, mode: str, pool: DecodingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PHOTO.convert(mode), "JPEG", exif=exif)
    here = load_image(data, views=(FEW, MANY))
    # Nothing is decoded in this process.
    monkeypatch.setattr(JpegImageFile, "load", _never)
    there = pool.decode(data, views=(FEW, MANY))
    assert isinstance(there, DeferredImage) and there.undecoded
    assert there.mode == "RGB" and there.size == here.size
    for most in (FEW, MANY):
        [one], [other] = (reduced(Query("?", (im,)), most).images for im in (here, there))
        assert one.size == other.size == reduced_size(*here.size, most)
        assert one.tobytes() == other.tobytes()
    assert there.undecoded
    pixels = there.tobytes()
    monkeypatch.undo()
    assert pixels == load_image(data).tobytes() == here.tobytes()


def _never(self: object) -> None:
    raise AssertionError("decoded here")


@pytest.mark.parametrize(
    ("data", "views"),
    [
        (encoded(PHOTO, "PNG"), (FEW,)),
        (encoded(NOISE, "JPEG"), (60_000,)),
        (encoded(NOISE, "JPEG"), (200_000,)),
        (encoded(PHOTO, "JPEG"), (FEW, 1_600_000)),
    ],
)
def test_what_gains_nothing_by_views_is_decoded_at_once(
    data: bytes, views: tuple[int, ...], pool: DecodingPool
) -> None:
    image = pool.decode(data, views=views)
    assert type(image) is Image.Image and image.tobytes() == load_image(data).tobytes()


def test_the_whole_behind_a_view_ends_with_its_deadline_and_with_the_pool() -> None:
    with DecodingPool(1) as pool:
        late = pool.decode(LARGE, views=(FEW,), deadline=time.monotonic() + 0.01)
        with pytest.raises(DecodingStopped, match="stopped"):
            late.load()
        before = pool.pids
        whole = pool.decode(LARGE, views=(FEW,))
        assert whole.getpixel((0, 0)) == load_image(LARGE).getpixel((0, 0))
        assert pool.pids == before or not before
        after = pool.decode(LARGE, views=(FEW,))
    with pytest.raises(DecodingStopped, match="closed"):
        after.load()


@pytest.mark.parametrize(
    "views", ["[[0, 5]]", "[[9000, 9000]]", "[[5]]", "7", '[["a", 5]]', "[[-1, -1]]"]
)
def test_views_that_a_decoder_which_was_taken_over_makes_up_are_not_read(
    views: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f'{{"size": [64, 48], "views": {views}}}'
    program = (
        f"import sys;sys.stdin.readline();print({said!r}, flush=True);sys.stdout.write('x'*99)"
    )
    monkeypatch.setattr(module, "_START", program)
    with DecodingPool(1) as pool, pytest.raises(DecodingStopped):
        pool.decode(b"any", views=(FEW,))


@pytest.mark.parametrize("data", [b"", b"no image", encoded(NOISE, "PNG")[:5000]])
def test_errors_are_those_of_this_process(data: bytes, pool: DecodingPool) -> None:
    before = pool.pids
    with pytest.raises(ImageError) as there:
        pool.decode(data)
    if data:
        with pytest.raises(ImageError) as here:
            load_image(data)
        assert str(there.value).removeprefix("the image") in str(here.value)
    assert not before or pool.pids == before
    with pytest.raises(ImageError, match="max_pixels=100"):
        pool.size(encoded(NOISE, "PNG"), "this one", ImageLimits(max_pixels=100))
    assert pool.size(encoded(NOISE, "PNG")) == (400, 300)


def test_decoding_is_stopped_and_the_next_is_done_by_another(
    pool: DecodingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancellation, begun, failed = Cancellation(), threading.Event(), []
    over = Cancellation.over

    def told(self: Cancellation, process: Any) -> None:
        over(self, process)
        begun.set()

    monkeypatch.setattr(Cancellation, "over", told)

    def decode() -> None:
        with pytest.raises(DecodingStopped, match="stopped"):
            while True:
                pool.decode(LARGE, cancellation=cancellation)
        failed.append(True)

    thread = threading.Thread(target=decode)
    thread.start()
    assert begun.wait(60)
    cancellation.cancel()
    thread.join(60)
    assert failed
    with pytest.raises(DecodingStopped, match="before it began"):
        pool.size(LARGE, cancellation=cancellation)
    with pytest.raises(DecodingStopped):
        pool.decode(LARGE, timeout_s=0.01)
    assert pool.decode(encoded(NOISE, "PNG"), timeout_s=60).size == (400, 300)


def test_a_process_that_hangs_is_killed_and_one_that_is_soon_done_is_kept() -> None:
    data = encoded(NOISE, "PNG")
    with DecodingPool(1) as pool:
        assert pool.decode(data).size == (400, 300)
        [pid] = pool.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DecodingStopped, match="was stopped"):
            pool.decode(data, timeout_s=0.05)
        assert pool.decode(data).size == (400, 300)
        [other] = pool.pids
        assert other != pid
        cancellation = Cancellation()
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(DecodingStopped):
            while True:  # cancelled in the middle of one of these, or between two
                pool.size(data, cancellation=cancellation)
        assert pool.size(data) == (400, 300)


def test_a_file_that_takes_too_much_time_is_at_fault(
    pool: DecodingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPU_S", 0.05)
    monkeypatch.setattr(module, "CPU_S_PER_MEGAPIXEL", 1e-4)
    with pytest.raises(ImageError, match="more time to decode than its pixels should"):
        pool.decode(LARGE)
    monkeypatch.undo()
    assert pool.decode(LARGE).size == (6000, 5000)


def test_a_process_that_ends_by_itself_is_replaced_unseen() -> None:
    with DecodingPool(1) as pool:
        for _ in range(3):
            assert pool.decode(encoded(NOISE, "PNG")).size == (400, 300)
            [pid] = pool.pids
            os.kill(pid, signal.SIGKILL)
    assert pool.pids == ()
    with pytest.raises(DecodingStopped, match="closed"):
        pool.decode(LARGE)
    with pytest.raises(ConfigError, match="processes=0"):
        DecodingPool(0)


def _dying(tmp_path: Path, how: str) -> str:
    program = tmp_path / "decoder"
    program.write_text(f"#!{sys.executable}\nimport os\n{how}\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("os.kill(os.getpid(), 9)", DecodingStopped, "ended: status -9"),
        ("os.kill(os.getpid(), 11)", ImageError, "ends its decoder"),
        ("print('nonsense')", DecodingStopped, "ended"),
        ("print('{\"size\": [9, 999999999]}')", DecodingStopped, "ended"),
        ("print('{\"size\": [9, 9]}')", DecodingStopped, "ended"),
        ("print('[]')", DecodingStopped, "ended"),
    ],
)
def test_a_decoder_that_fails_says_whose_fault_it_is(
    how: str, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", _dying(tmp_path, how))
    with DecodingPool(1) as pool, pytest.raises(error, match=words):
        pool.decode(LARGE)


def test_where_no_process_can_be_started_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with DecodingPool(1) as pool, pytest.raises(DecodingStopped, match="no process can be started"):
        pool.decode(LARGE)
    with serving(pipeline()) as server:
        reply = server.post(asking())
        assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        assert reply.json()["error"]["code"] == "decoding_stopped"


def test_processes_end_with_the_pool_however_it_ends() -> None:
    pool = DecodingPool(1)
    pool.decode(encoded(NOISE, "PNG"))
    [pid] = pool.pids
    os.kill(pid, 0)
    del pool
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PROGRAM = """
import sys
from PIL import Image
from speceyes.images.decoding_pool import DecodingPool
pool = DecodingPool(1)
pool.decode(open(sys.argv[1], "rb").read())
assert "torch" not in sys.modules
print(*pool.pids, flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_processes_end_with_the_program_however_it_ends(how: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded(NOISE, "PNG"))
    words = (sys.executable, "-c", PROGRAM, picture, "wait" if how == "kill" else "")
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE}
    with started(*words, **pipes) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        if how == "kill":
            assert b"torch" not in Path(f"/proc/{pid}/maps").read_bytes()
            child.kill()
        child.wait(60)
        until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _decoders() -> set[int]:
    """The processes of this one that decode."""
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, path.read_text().split()):
            with suppress(OSError):
                if b"decoding_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(pid)
    return found


# --- in a server ----------------------------------------------------------------------------------


def test_a_deadline_ends_decoding_and_the_process_is_replaced() -> None:
    url = f"data:image/jpeg;base64,{base64.b64encode(LARGE).decode()}"
    before = _decoders()
    with serving(pipeline()) as server:
        assert server.post(asking()).status_code == 200
        reply = server.post(asking(urls=[url], speceyes={"deadline_s": 0.25}))
        assert reply.status_code == 504 and reply.headers["x-should-retry"] == "false"
        until(lambda: server.service.slots.held == 0)
        reply = server.post(asking(urls=[url, data_url()]))
        assert reply.status_code == 200
        # What it waited for is in what it took.
        assert reply.json()["speceyes"]["timings"]["queue"] > 0.05
        assert 1 <= len(_decoders() - before) <= LANES + 1
    assert not _decoders() - before


def test_a_file_that_outlives_its_time_is_a_400(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_S", 0.05)
    monkeypatch.setattr(module, "CPU_S_PER_MEGAPIXEL", 1e-4)
    url = f"data:image/jpeg;base64,{base64.b64encode(LARGE).decode()}"
    with serving(pipeline()) as server:
        reply = server.post(asking(urls=[url]))
        assert reply.status_code == 400 and reply.headers["x-should-retry"] == "false"
        error = reply.json()["error"]
        assert error["code"] == "bad_image" and "more time to decode" in error["message"]
        assert error["param"] == "messages[0].content[0].image_url.url"
        until(lambda: server.service.slots.held == 0)


def test_a_server_decodes_small_what_is_seen_small_and_the_whole_for_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, ...]] = []
    decode = DecodingPool.decode

    def counted(self: DecodingPool, *given: Any, **more: Any) -> Image.Image:
        asked.append(tuple(more.get("views", ())))
        return decode(self, *given, **more)

    monkeypatch.setattr(DecodingPool, "decode", counted)
    monkeypatch.setattr(JpegImageFile, "load", _never)  # never in the server's own process
    whole = PHOTO_WHOLE.tobytes()
    url = data_url(PHOTO, "JPEG")
    agent, small = FakeModel("<answer>agent</answer>"), FakeModel("seen")

    def pipe(threshold: float) -> SpecPipeline:
        gate, draft = SeparabilityGate(threshold, top_k=20), DraftConfig(max_pixels=MANY)
        return SpecPipeline.from_pretrained(
            agent, small, gate=gate, judge=None, draft=draft, dialect="deepeyes"
        )

    with serving(pipe(0.5)) as server:
        assert server.ask(urls=[url])["choices"][0]["message"]["content"] == "seen"
        assert asked == [(MANY,)]
        [seen] = [im.size for one in small.asked for im in one.images]
        assert seen == reduced_size(1600, 1000, MANY)
        straight = server.ask(urls=[url], speceyes={"route": "agent"})
        assert straight["speceyes"]["route"] == "agent" and asked[1:] == [()]
        [image] = agent.asked[-1].images
        assert type(image) is Image.Image and image.tobytes() == whole
    with serving(pipe(1.0)) as server:
        assert server.ask(urls=[url])["speceyes"]["route"] == "agent"
        [image] = agent.asked[-1].images
        assert isinstance(image, DeferredImage) and image.undecoded
        assert image.tobytes() == whole and asked[2:] == [(MANY,), ()]


def test_a_whole_that_cant_be_had_ends_its_own_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(conversations: Sequence[Conversation]) -> None:
        for one in conversations:
            for image in one.images:
                image.load()

    agent = FakeModel("<answer>agent</answer>", fails=look)
    pipe = SpecPipeline.from_pretrained(
        agent,
        FakeModel("seen"),
        gate=SeparabilityGate(1.0, top_k=20),
        judge=None,
        draft=DraftConfig(max_pixels=MANY),
        dialect="deepeyes",
    )
    decode = DecodingPool.decode

    def fails(self: DecodingPool, data: bytes, *given: Any, **more: Any) -> Image.Image:
        if data == bad and not more.get("views"):
            raise ImageError("it takes more time to decode than its pixels should")
        return decode(self, data, *given, **more)

    bad = encoded(PHOTO, "JPEG", quality=31)
    monkeypatch.setattr(DecodingPool, "decode", fails)
    with serving(pipe) as server, ThreadPoolExecutor(4) as threads:
        urls = [data_url(PHOTO, "JPEG"), f"data:image/jpeg;base64,{base64.b64encode(bad).decode()}"]
        bodies = [asking(f"{n}?", urls=[urls[n % 2]]) for n in range(4)]
        replies = list(threads.map(server.post, bodies))
    # The model raises for all of a batch, and doesn't say whose fault it is.
    assert [one.status_code for one in replies] == [200, 502, 200, 502]
    assert [one.json()["speceyes"]["route"] for one in replies[::2]] == ["agent"] * 2
