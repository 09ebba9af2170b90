"""Output files: what `open(path, "wb")` would leave, but whole or not at all, whatever the place is."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.small_programs import dense_model
from xbcompile import files
from xbcompile.errors import ProgramError
from xbcompile.files import atomic_file, check_file, regular_size, scratch_folder, write_atomically

IS_ROOT = os.geteuid() == 0
OLD, NEW = b"before", b"what is written"


def tree(folder: Path) -> dict[str, tuple[str, object]]:
    """Every name below a folder: the target of a link, the mode and content of a file."""
    found: dict[str, tuple[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        name, mode = str(path.relative_to(folder)), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[name] = ("link", os.readlink(path))
        elif stat.S_ISREG(mode):
            found[name] = (oct(mode), path.read_bytes())
        else:
            found[name] = (oct(mode), None)
    return found


# A place: folders that links cross, each link by a relative or an absolute path, and what the last one leads to.
PLACES = st.tuples(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=5),
    st.sampled_from(["file", "private file", "nothing", "folder", "no folder", "itself", "first"]),
    st.sampled_from("abc"),
)


def laid_out(root: Path, place: tuple[list[tuple[str, bool]], str, str]) -> Path:
    """The path that is written to: the first link, or the end itself."""
    hops, end, folder = place
    for name in "abc":
        (root / name).mkdir(parents=True)
    last = root / folder / "end"
    paths = [root / name / f"link{number}" for number, (name, _) in enumerate(hops)] + [last]
    for path, target, (_, absolute) in zip(paths, paths[1:], hops, strict=False):
        path.symlink_to(target if absolute else os.path.relpath(target, path.parent))
    if end in ("file", "private file"):
        last.write_bytes(OLD)
        last.chmod(0o600 if end == "private file" else 0o644)
    elif end == "folder":
        last.mkdir()
    elif end == "no folder":
        last.symlink_to("missing/file")
    elif end in ("itself", "first"):
        last.symlink_to(last if end == "itself" else paths[0])
    return paths[0]


@settings(max_examples=150, deadline=None)
@given(place=PLACES)
def test_what_a_plain_write_leaves(place, tmp_path_factory) -> None:
    """Reference: the operating system's own `open`, on a second copy of the same folders and links."""
    root = tmp_path_factory.mktemp("places")
    plain, own = laid_out(root / "plain", place), laid_out(root / "own", place)
    before = tree(root / "own")
    try:
        plain.write_bytes(NEW)
    except OSError:
        with pytest.raises(ProgramError):
            check_file(own)
        with pytest.raises(ProgramError):
            write_atomically(own, NEW)
        assert tree(root / "own") == before
    else:
        check_file(own)
        write_atomically(own, NEW)
        found, wanted = tree(root / "own"), tree(root / "plain")
        assert found.keys() == wanted.keys()
        for name, (kind, content) in wanted.items():
            if kind == "link":
                content = str(content).replace(str(root / "plain"), str(root / "own"))
            assert found[name] == (kind, content)


def read_once(pipe: Path) -> tuple[threading.Thread, list[bytes]]:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    return reader, found


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_through(tmp_path, linked) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to("pipe")
    check_file(path)
    reader, found = read_once(pipe)
    write_atomically(path, NEW)
    reader.join(10)
    assert found == [NEW]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert regular_size(path) is None


@pytest.mark.skipif(not IS_ROOT, reason="device nodes are made by root")
def test_a_device_stays_one(tmp_path) -> None:
    """A node of its own, with the numbers of /dev/null: this test must not break the system's."""
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.read_bytes()
    except PermissionError:
        pytest.skip("no device nodes here")
    write_atomically(device, NEW)
    assert stat.S_ISCHR(device.stat().st_mode)
    assert os.listdir(tmp_path) == ["null"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full exists on Linux only")
def test_a_full_device(tmp_path) -> None:
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(ProgramError, match="No space left on device"):
        write_atomically(tmp_path / "link", NEW * 10000)
    assert os.listdir(tmp_path) == ["link"]


def test_a_file_that_only_an_open_descriptor_leads_to(tmp_path) -> None:
    """`/proc/self/fd/N` of a file that was removed reads as `name (deleted)`, where no file must appear."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc")
    with open(tmp_path / "file", "w+b") as file:
        os.unlink(tmp_path / "file")
        write_atomically(f"/proc/self/fd/{file.fileno()}", NEW)
        assert file.read() == NEW
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_mode_is_kept(tmp_path, mode) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(mode)
    write_atomically(path, NEW)
    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (mode, NEW)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.skipif(not IS_ROOT, reason="root alone gives files away")
def test_owner_is_kept(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    os.chown(path, 12345, 54321)
    write_atomically(path, NEW)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (12345, 54321, NEW)


def test_extended_attributes_are_kept(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    try:
        os.setxattr(path, "user.note", b"mine")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    write_atomically(path, NEW)
    assert os.getxattr(path, "user.note") == b"mine"


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch) -> None:
    """For others than root; root's own `access` says yes."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "access", lambda name, mode: False)
    with pytest.raises(ProgramError, match="is write-protected"):
        write_atomically(path, NEW)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "folder/", "x" * 300, "missing/file"])
def test_names_that_no_file_has(folder, name) -> None:
    for attempt in (check_file, lambda path: write_atomically(path, NEW)):
        if attempt is check_file and len(name) == 300:
            continue
        with pytest.raises(ProgramError):
            attempt(name)
    assert os.listdir(folder) == []


def test_the_longest_name(folder) -> None:
    write_atomically("x" * 255, NEW)
    assert os.listdir(folder) == ["x" * 255]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), ValueError()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def write() -> None:
        with atomic_file(path) as file:
            file.write(NEW)
            raise error

    with pytest.raises(ProgramError if isinstance(error, OSError) else type(error)):
        write()
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], OLD)


KILLED = """
import os, signal
from xbcompile.files import atomic_file, scratch_folder
with scratch_folder(), atomic_file("file") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_write_removes_what_a_killed_process_left(folder, monkeypatch) -> None:
    environment = os.environ | {"TMPDIR": str(folder)}
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    left = sorted(os.listdir(folder))
    assert len(left) == 2
    with scratch_folder(), atomic_file("other"):  # as long as they are young, machines that share no locks are safe
        assert set(left) < set(os.listdir(folder))
    long_ago = time.time() - 2 * files._STALE
    with scratch_folder() as held, atomic_file("held") as file:
        file.write(NEW)
        file.flush()
        for name in os.listdir(folder):
            os.utime(name, (long_ago, long_ago))
        files._remove_stale_files.cache_clear()  # as in another process
        with scratch_folder(), atomic_file("another"):
            pass
        assert held.is_dir()  # somebody is still at work in it
    assert sorted(os.listdir(folder)) == ["another", "held", "other"]
    assert (folder / "held").read_bytes() == NEW


def test_every_writer_of_python_follows_links(folder) -> None:
    """A program and corrections, under a link into another folder and to a file that only its owner may read."""
    import xbcompile

    (folder / "elsewhere").mkdir()
    program = xbcompile.compile(
        dense_model(6, 4, 3),
        target="mram64",
        passes="quantize{scheme=binary},thermometer{bits=2}",
        calibration={"x": np.ones((8, 6), np.float32)},
    )
    for name, save in (
        ("p.xbar", program.save),
        ("c.fit", lambda path: xbcompile.save_corrections(xbcompile.commission(program), path)),
    ):
        target = folder / "elsewhere" / name
        target.write_bytes(OLD)
        target.chmod(0o600)
        (folder / name).symlink_to(f"elsewhere/{name}")
        save(folder / name)
        assert (folder / name).is_symlink()
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert target.read_bytes()[:4] == b"PK\x03\x04"
    assert sorted(os.listdir(folder / "elsewhere")) == ["c.fit", "p.xbar"]
