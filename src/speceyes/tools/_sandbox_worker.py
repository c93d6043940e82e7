"""The inside of a sandbox: takes a job, gives up every right, runs the program, says what came.

Needs the standard library only. A job comes on standard input: a line of JSON, then the input
files one after the other. What the program prints goes to standard output and error as it is;
after it, on standard output, come the job's boundary, four bytes (big-endian) that tell the length
of the JSON which follows, and the images. A program can forge all of this. That gains it nothing:
it is what the program said either way, and the reader holds it to its limits.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import re
import resource
import struct
import sys
import traceback
from types import CodeType, ModuleType
from typing import Any

from speceyes.tools import _sandbox_kernel as kernel

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_PROGRAM = "<program>"
_SAVED = "/mnt/data/temp_processed_images"
"""Where Thyme saves images, and has no doubt that there is such a folder."""
NOBODY = 65534
_DAC_READ_SEARCH = 1 << 2


def read_job() -> tuple[dict[str, Any], list[bytes]]:
    """The job and its input files, from standard input, which is empty afterwards."""
    job: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    blobs = [sys.stdin.buffer.read(size) for _, size in job["inputs"]]
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    return job, blobs


def put_inputs(job: dict[str, Any], blobs: list[bytes]) -> None:
    """Writes the input files, read-only."""
    folder = job["inputs_dir"]
    os.umask(0o022)
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - pathlib costs time at every start
    for (name, _), blob in zip(job["inputs"], blobs, strict=True):
        opened = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(opened, "wb") as file:
            file.write(blob)


def work(job: dict[str, Any]) -> None:
    """Runs the job's programs in this process, and ends it."""
    cwd, limits = job["cwd"], job["limits"]
    kept = _leave_root(job) if job["confine"] else 0
    os.chdir(cwd)
    for name, _ in job["inputs"]:
        os.symlink(f"{job['inputs_dir']}/{name}", name)  # noqa: PTH211
    for folder in (".tmp", _SAVED.replace("/mnt", ".mnt")):
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    os.environ.clear()
    os.environ.update(
        HOME=cwd, TMPDIR=f"{cwd}/.tmp", PATH="", LANG="C.UTF-8", MPLBACKEND="Agg",
        MPLCONFIGDIR=f"{cwd}/.tmp", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    for name, soft, hard in (
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_CPU", limits["cpu_s"], limits["cpu_s"] + 1),
        ("RLIMIT_AS", limits["memory"], limits["memory"]),
        ("RLIMIT_FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("RLIMIT_NOFILE", 128, 128),
        # What is left open below counts threads, by which a program may speed itself up. For an
        # unconfined one it would count all that its user runs.
        *([("RLIMIT_NPROC", 32, 32)] if job["count_threads"] else []),
    ):
        _limit(getattr(resource, name), soft, hard)
    sys.path[:] = job["path"]
    sys.argv[:] = [_PROGRAM]
    if job["confine"]:
        kernel.no_new_rights()
        kernel.bound_capabilities()
        kernel.drop_capabilities(kept)
        kernel.undumpable()
        if job.get("host") and job["mounts"] is None:
            kernel.die_with_parent(job["host"])  # undone by what was given up since
        version = kernel.confine_files(job["readable"], job["listable"], [cwd, *job["writable"]])
        if job["confine"] == "landlock" and not version:
            raise kernel.KernelError(38, "this kernel has no Landlock (Linux 5.13 has)")
        kernel.confine_calls()
    shown: list[bytes] = []
    # Nothing of ours but what is running now is left for the program to come upon.
    for name in [name for name in sys.modules if name.split(".")[0] == "speceyes"]:
        del sys.modules[name]
    error = _run(job, shown)
    _flush()
    out = _tail(job, shown, error)
    while out:
        out = out[os.write(1, out) :]
    os._exit(0)


def _leave_root(job: dict[str, Any]) -> int:
    """Root's program runs as nobody, where this process may become somebody else.

    It stays root, without capabilities, where nobody can't read the interpreter's files, such as
    those in root's home, and can't be given the one right that is needed for it.

    Returns:
        The capabilities that it has to keep: to read files of others. Landlock still says which.
    """
    if os.geteuid() != 0:
        return 0
    cwd = job["cwd"]
    needed = [path for path in (*job["readable"], *job["path"]) if os.path.exists(path)]  # noqa: PTH110
    needed.append(os.path.dirname(cwd))  # noqa: PTH120
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, 0)
        os.setresuid(NOBODY, NOBODY, 0)
    except OSError:  # a root who may not become anybody else
        return 0
    hidden = not all(map(_may_read, needed))
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    if hidden and not kernel.permitted_capabilities() & _DAC_READ_SEARCH:
        return 0
    os.chown(cwd, NOBODY, NOBODY)
    kernel.bound_capabilities()
    kernel.keep_capabilities()
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kept = _DAC_READ_SEARCH if hidden else 0
    kernel.drop_capabilities(kept)
    return kept


def _may_read(path: str) -> bool:
    """True where this user may read a file, or come to what is in a folder."""
    wanted = os.X_OK if os.path.isdir(path) else os.R_OK  # noqa: PTH112
    return os.access(path, wanted, effective_ids=True)


def _limit(which: int, soft: int, hard: int) -> None:
    """Lowers a limit; one that is lower already stays."""
    _, now = resource.getrlimit(which)
    if now != resource.RLIM_INFINITY:
        soft, hard = min(soft, now), min(hard, now)
    resource.setrlimit(which, (soft, hard))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - the program may have put anything there, or closed it
            continue


def _run(job: dict[str, Any], shown: list[bytes]) -> str | None:
    """The error of the last program, as Python tells it; None where it went well."""
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    programs = [*job["before"], job["code"]]
    try:
        _preset(job, names, "\n".join(programs), shown)
    except ImportError as exc:
        return f"the sandbox lacks a package: {exc}"
    out, err, error = os.dup(1), os.dup(2), None
    for at, program in enumerate(programs):
        last = at == len(programs) - 1
        if not last:
            nothing = os.open("/dev/null", os.O_WRONLY)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            os.close(nothing)
        error = _one(program, names)
        _flush()
        if not last:
            os.dup2(out, 1)
            os.dup2(err, 2)
            shown.clear()
            job["seen"] = _files(job)
    return error


def _one(program: str, names: dict[str, Any]) -> str | None:
    try:
        code: CodeType = compile(_rewritten(program, names), _PROGRAM, "exec", dont_inherit=True)
        exec(code, names)
    except SystemExit as exc:
        # A program may end itself; it tells why by a text or by a number other than 0.
        return None if exc.code in (None, 0) else f"SystemExit: {exc.code}"
    except BaseException as exc:  # noqa: BLE001 - told to the model
        return _told(exc, program)
    return None


def _rewritten(program: str, names: dict[str, Any]) -> Any:
    """The program, with paths that agents take for granted led to what there is.

    `/mnt/data` is in the working directory where there is no root of its own, and a text that
    `image_path` is set to becomes the path of the image, unless there is such a file.
    """
    here, there = os.path.realpath(".mnt"), os.path.realpath("/mnt")
    if here != there and "/mnt/data" in program:
        program = program.replace("/mnt/data", f"{here}/data")
    known = names.get("image_path")
    if known is None or "image_path" not in program:
        return program
    tree = ast.parse(program, _PROGRAM)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        targets = [one.id for one in node.targets if isinstance(one, ast.Name)]
        path = node.value.value
        if targets == ["image_path"] and isinstance(path, str) and not os.path.isfile(path):  # noqa: PTH113
            node.value.value = known
    return tree


def _told(exc: BaseException, program: str) -> str:
    """The traceback as far as the program is in it, with the program's own lines."""
    lines, source = ["Traceback (most recent call last):"], program.splitlines()
    try:
        for frame in traceback.extract_tb(exc.__traceback__):
            if frame.filename == _PROGRAM:
                number = frame.lineno or 0
                text = source[number - 1].strip() if 0 < number <= len(source) else ""
                lines.append(f"  line {number}, in {frame.name}: {text}"[:300])
        return "\n".join([*lines[:1], *lines[1:][-8:], *traceback.format_exception_only(exc)])
    except Exception:  # noqa: BLE001 - an exception's own __str__ can fail
        return f"{type(exc).__name__}"


def _preset(job: dict[str, Any], names: dict[str, Any], text: str, shown: list[bytes]) -> None:
    """Preset names of a notebook: the images as variables, and a show() that shows; and the
    names that Thyme has without importing them.
    """
    names.update(os=os, re=re)
    if job["confine"] and "shutil" in text:
        _copy_content_alone()
    if job["variables"]:
        names["image_path"] = job["variables"][0][1]
    for name, module in (("np", "numpy"), ("cv2", "cv2")):
        if f"{name}." in text:
            try:
                names[name] = importlib.import_module(module)
            except ImportError:
                continue  # the program's own import says so
    if not job["variables"] and not any(one in text for one in ("PIL", "plt", "Image.")):
        return
    from PIL import Image

    names["Image"] = Image
    if job.get("clamp"):
        _clamp_crops(Image)

    def show(image: Any, *_: Any, **__: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        shown.append(buffer.getvalue())

    Image.Image.show = show  # type: ignore[assignment, method-assign]
    for name, file in job["variables"]:
        names[name] = Image.open(file)
    if "plt" in text or "matplotlib" in text:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            return  # the program's own import says so
        names.setdefault("plt", plt)
        _show_figures(plt, shown)


def _copy_content_alone() -> None:
    """Copies of files are made without the originals' modes and times, which can't be set."""
    import shutil

    shutil.copymode = shutil.copystat = lambda *_, **__: None


def _clamp_crops(pillow: ModuleType) -> None:
    """Boxes that leave an image are moved into it, where PIL would fill up with black."""
    whole = pillow.Image.crop

    def crop(image: Any, box: Any = None) -> Any:
        if box is not None and len(box) == 4:
            width, height = image.size
            (x0, x1), (y0, y1) = sorted((box[0], box[2])), sorted((box[1], box[3]))
            left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
            box = (left, top, max(min(x1, width), left + 1), max(min(y1, height), top + 1))
        return whole(image, box)

    pillow.Image.crop = crop


def _show_figures(plt: ModuleType, shown: list[bytes]) -> None:
    def show(*_: Any, **__: Any) -> None:
        for number in plt.get_fignums():
            buffer = io.BytesIO()
            plt.figure(number).savefig(buffer, format="png", bbox_inches="tight")
            shown.append(buffer.getvalue())
        plt.close("all")

    plt.show = show  # type: ignore[attr-defined]


def _files(job: dict[str, Any]) -> dict[str, int]:
    """The images in the working directory, to when they were written (ns)."""
    given, found = {name for name, _ in job["inputs"]}, {}
    tops = [".", ".tmp"] if os.path.islink(".tmp") else ["."]  # noqa: PTH114
    for top in tops:
        for folder, folders, names in os.walk(top):
            folders[:] = [one for one in folders if not os.path.ismount(f"{folder}/{one}")]
            for name in names:
                path = f"{folder}/{name}".removeprefix("./")
                if name.lower().endswith(_SUFFIXES) and path not in given:
                    try:
                        found[path] = os.stat(path).st_mtime_ns  # noqa: PTH116
                    except OSError:
                        continue
    return found


def _tail(job: dict[str, Any], shown: list[bytes], error: str | None) -> bytes:
    """The end of standard output: what became of the program, and its images."""
    before, room = job.get("seen", {}), job["limits"]["image_bytes"]
    images: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    listed = [("", True, blob) for blob in shown]
    files = sorted(_files(job).items(), key=lambda item: item[1])
    for path, when in files[-job["limits"]["images"] :]:
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                listed.append((path[:1000], before.get(path) != when, file.read(room + 1)))
        except OSError:
            continue
    for path, new, blob in listed:
        fits = len(blob) <= room
        room -= len(blob) if fits else 0
        images.append({"path": path, "new": new, "size": len(blob) if fits else -1})
        blobs += [blob] if fits else []
    head = json.dumps({"error": error and error[-4000:], "images": images}).encode()
    return b"".join([job["boundary"].encode(), struct.pack(">I", len(head)), head, *blobs])
