"""The second process, which writes small files: the same tree, the same errors, no left-overs."""

from __future__ import annotations

import errno
import fcntl
import marshal
import mmap
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ociroot
from ociroot.api import extraction as extracting
from ociroot.errors import DestinationError, MalformedImage, SourceError
from ociroot.limits import Limits
from ociroot.notices import Notices
from ociroot.outputs.directory.forked import client, server, shared, start
from ociroot.outputs.directory.writer import DirectoryWriter
from ociroot.rootfs.nodes import Directory, Node
from ociroot.tar.stream import ChunkStream

from .support.build import Layer, Member, archive, digest, directory, file, link, symlink, unpacked
from .support.counting import kept_by_libraries
from .support.mounts import mounted
from .support.snapshot import Snapshot, differences, snapshot
from .support.strategies import Stack, blobs, dense_stacks, good_stacks
from .support.tally import tally
from .support.user import as_ordinary_user, remove, workshop
from .test_faults import ANSWERS, CALLS
from .test_model import EXAMPLES, SETTINGS, modelled

KILOBYTE = b"0123456789abcdef" * 64
# A batch is limited in bytes and in files; some files are too large for the rest, some for any.
MANY = [
    Layer(
        [
            *(
                Member(b"d%d/f%d" % (number % 7, number), data=KILOBYTE * (number % 60), uid=3)
                for number in range(900)
            ),
            Member(b"large", data=KILOBYTE * 400, mode=0o4755),
            Member(b"small", data=b"x", pax={b"SCHILY.xattr.user.k": b"v"}),
            Member(b"d0/link", "link", target=b"large"),
            Member(b"d1/link", "link", target=b"small"),
            *(symlink(b"s%d" % number, b"small") for number in range(500)),
            *(Member(b"d/" * number + b"deep", data=b"deep") for number in range(60)),
        ],
        "gzip",
    ),
    Layer(
        [
            # Each replaces something that the other process may not have removed yet.
            *(Member(b"d0/f%d" % (7 * number), "dir", mode=0o500) for number in range(100)),
            *(Member(b"d0/f%d/in" % (7 * number), data=KILOBYTE * 70) for number in range(100)),
            file(b"d1", data=KILOBYTE * 300),
            *(Member(b"d2/f%d" % (7 * number + 2), data=b"new") for number in range(100)),
            file(b"d3/.wh..wh..opq"),
            file(b"d3/new/large", data=KILOBYTE * 100),
            file(b".wh.d4"),
            file(b".wh.s2"),
            directory(b"s3", mode=0o711),
            link(b"s4", b"large"),
        ]
    ),
]


@pytest.fixture(autouse=True)
def forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Fork for images of any size; yield the process IDs, and check that none is left."""
    numbers: list[int] = []

    def fork() -> int:
        number = real()
        if number:
            numbers.append(number)
        return number

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 0)
    if len(os.sched_getaffinity(0)) < 2:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    yield numbers
    for number in numbers:
        assert not Path(f"/proc/{number}").exists()


def extract(image: Path, root: Path, **options: Any) -> ociroot.Report:
    limits = options.pop("limits", Limits())
    with ociroot.open(image, ociroot.SourceOptions(limits=limits)) as source:
        return source.image().extract(
            root, ociroot.ExtractOptions(**{"writer_process": True, **options})
        )


def both(image: Path, where: Path) -> tuple[Snapshot, Snapshot]:
    """Return the trees written by one process and by two."""
    one = extract(image, where / "one", writer_process=False)
    two = extract(image, where / "two")
    # The example in a warning depends on which process is first.
    assert [(w.code, w.count) for w in one.warnings] == [(w.code, w.count) for w in two.warnings]
    return snapshot(where / "one"), snapshot(where / "two")


def test_the_same_tree(forks: list[int]) -> None:
    with workshop() as where:
        one, two = both(archive(where / "image", MANY), where)
        assert len(forks) == 1
        assert len(one) > 1200
        assert differences(one, two) == []


@pytest.mark.parametrize("slots", [1, 2])
def test_the_same_tree_by_one_that_is_slow(monkeypatch: pytest.MonkeyPatch, slots: int) -> None:
    """The first process then writes most files, before and after those of the other."""
    real = DirectoryWriter.make_file

    def late(self: DirectoryWriter, parent: Any, name: bytes, node: Node, data: Any) -> None:
        if isinstance(data, server.Server):
            time.sleep(0.001)
        real(self, parent, name, node, data)

    monkeypatch.setattr(DirectoryWriter, "make_file", late)
    monkeypatch.setattr(shared, "SLOTS", slots)
    with workshop() as where:
        one, two = both(archive(where / "image", MANY), where)
        assert differences(one, two) == []


@pytest.mark.slow
@pytest.mark.root
@settings(SETTINGS, max_examples=EXAMPLES // 3)
@given(st.data(), st.one_of(good_stacks, dense_stacks))
def test_any_stack(data: st.DataObject, stack: Stack) -> None:
    want = modelled(stack)
    with workshop() as where:
        image = archive(where / "image", data.draw(blobs(stack)))
        if want is None:
            with pytest.raises(MalformedImage):
                extract(image, where / "root")
            assert list(where.iterdir()) == [image]
        else:
            extract(image, where / "root")
            assert differences(want, snapshot(where / "root")) == []
    tally("a random stack of layers, by two processes", "as the model says")


@pytest.mark.root
def test_without_privileges(forks: list[int]) -> None:
    """Both processes count what they skip."""
    layers = [
        [
            Member(b"null", "char", rdev=(1, 3)),
            Member(b"also", "link", target=b"null"),
            Member(b"pipe", "fifo", uid=5),
            Member(b"theirs", data=b"x", uid=7, xattrs={b"trusted.k": b"v"}),
            Member(b"large", data=KILOBYTE * 80, uid=8),
        ],
        [Member(b".wh.also"), Member(b"null", data=b"a file now")],
    ]
    with workshop() as where:
        image = archive(where / "image", layers)

        def work() -> tuple[Any, Any]:
            one = extract(image, where / "one", writer_process=False)
            two = extract(image, where / "two")
            return one.warnings, two.warnings

        one, two = as_ordinary_user(work)
        assert {(w.code, w.count) for w in one} == {(w.code, w.count) for w in two}
        assert {w.code for w in one} >= {"devices", "owners", "xattrs-privileged"}
        assert differences(snapshot(where / "one"), snapshot(where / "two")) == []


def test_warnings_from_before_the_fork(tmp_path: Path) -> None:
    """They are reported once, though both processes have them."""
    layers = [[file(b"a", data=b"1")], [file(b"a", data=b"2")]]
    diff_ids = [digest(Layer(layer).unpacked()) for layer in layers]
    image = archive(tmp_path / "image", layers, diff_ids=diff_ids[::-1])
    report = extract(image, tmp_path / "root")
    assert {w.code: w.count for w in report.warnings if w.code != "owners"} == {"layer-order": 1}
    assert (tmp_path / "root/a").read_bytes() == b"1"


@pytest.mark.root
@pytest.mark.parametrize("umask", [0o400, 0o277, 0o777])
def test_any_umask(umask: int) -> None:
    """With some of them the owner itself can neither read nor enter new directories."""
    with workshop() as where:
        image = archive(where / "image", MANY)
        extract(image, where / "whole", writer_process=False)
        whole = snapshot(where / "whole")

        def work() -> tuple[Snapshot, Snapshot]:
            os.umask(umask)
            return both(image, where)

        for tree in as_ordinary_user(work):
            assert differences(whole, tree, {"uid", "gid"}) == []


# Errors.


def test_an_error_there_is_told_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its layer and member, whichever entry is current in the first process."""
    real = os.open

    def fails(path: Any, *arguments: Any, **options: Any) -> int:
        if path == b"f":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fails)
    layers = [[file(b"a")], [file(b"d/f", data=b"x")], [file(b"b")]]
    image = archive(tmp_path / "image", layers)
    with pytest.raises(DestinationError) as caught:
        extract(image, tmp_path / "root")
    assert caught.value.errno == errno.EIO
    assert caught.value.member == b"d/f"
    assert str(caught.value.layer).startswith("2/3 sha256:")
    assert caught.value.source == str(tmp_path / "root")
    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    """Both processes count towards the bytes written."""
    layers = [
        [file(b"large", data=KILOBYTE * 500)],
        [file(b"f%d" % number, data=KILOBYTE * 4) for number in range(2000)],
    ]
    image = archive(tmp_path / "image", [Layer(members, "gzip") for members in layers])
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as place:
        with pytest.raises(DestinationError, match=r"its file system is full after \d+") as caught:
            extract(image, place / "root", limits=Limits(size=1 << 40))
        assert list(place.iterdir()) == []
    assert caught.value.is_full
    assert str(caught.value.layer).startswith("2/2 ")
    words = str(caught.value).split(" after ")[1].split()
    assert 3 << 20 < int(words[0]) <= 4 << 20
    assert int(words[3]) == (int(words[0]) - 500 * 1024) // 4096 + 1


@pytest.mark.root
def test_an_attribute_that_linux_does_not_take(tmp_path: Path) -> None:
    """It is refused on read, or by the kernel in the second process."""
    image = archive(tmp_path / "image", [[Member(b"f", xattrs={b"system.posix_acl_access": b"?"})]])
    with pytest.raises(MalformedImage, match="posix_acl_access"):
        extract(image, tmp_path / "root")
    assert list(tmp_path.iterdir()) == [image]


def test_a_damaged_layer_stops_both(tmp_path: Path) -> None:
    whole = Layer(MANY[0].content, "none").unpacked()
    image = archive(tmp_path / "image", [Layer(whole[: len(whole) * 2 // 3])])
    with pytest.raises(MalformedImage, match="truncated"):
        extract(image, tmp_path / "root")
    assert list(tmp_path.iterdir()) == [image]


def test_when_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the OOM killer, at any operation."""
    real = server.Server.make_other

    def killed(self: Any, *arguments: Any) -> None:
        if arguments[0][2] == b"s250":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, *arguments)

    monkeypatch.setattr(server.Server, "make_other", killed)
    image = archive(tmp_path / "image", MANY)
    with pytest.raises(DestinationError, match="was killed"):
        extract(image, tmp_path / "root")
    assert list(tmp_path.iterdir()) == [image]


def test_a_fault_of_ours_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has its traceback; and no other descriptor is open in the second process."""

    def run(self: object) -> bool:
        raise LookupError(sorted(Path("/proc/self/fd").iterdir()))

    monkeypatch.setattr(server.Server, "run", run)
    image = archive(tmp_path / "image", [[file(b"a")]])
    pipe = os.pipe()
    try:
        with pytest.raises(LookupError) as caught:
            extract(image, tmp_path / "root")
    finally:
        os.close(pipe[0])
        os.close(pipe[1])
    # 0 to 2, the root, two pipes, and the directory being listed.
    assert len(caught.value.args[0]) == 7
    assert "in run" in "".join(caught.value.__notes__)
    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_each_call_fails_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In either process: nothing is left behind, or the tree is complete."""
    layers = [
        [
            Member(b"d/f", data=b"x" * 5000, mode=0o4755, pax={b"SCHILY.xattr.user.k": b"v"}),
            Member(b"d/l", "symlink", target=b"f"),
            Member(b"d/h", "link", target=b"d/f"),
            Member(b"d/p", "fifo", uid=7),
            Member(b"d/o", data=KILOBYTE * 70, uid=7, gid=8),
        ],
        [Member(b".wh.d"), Member(b"e/g", data=b"y" * 700)],
    ]
    with workshop() as where:
        image, root = archive(where / "image", layers), where / "root"
        extract(image, where / "whole", writer_process=False)
        whole = snapshot(where / "whole")
        subprocess.run(["rm", "-r", where / "whole"], check=True)
        quiet = 0
        for number in range(1, 100):
            failed = False
            with ociroot.open(image) as source, monkeypatch.context() as patched:
                chosen = source.image()
                patched.setattr(os, name, failing(getattr(os, name), number))
                try:
                    chosen.extract(root, ociroot.ExtractOptions(writer_process=True))
                except (DestinationError, SourceError):
                    failed = True
            if failed:
                assert not root.exists()
            else:
                assert differences(whole, snapshot(root)) == []
            quiet = 0 if failed else quiet + 1
            remove(root)
            if quiet > 5:  # each process counts its own calls; some may fail
                break


def failing(real: Callable[..., Any], fails_at: int) -> Callable[..., Any]:
    count = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == fails_at:
            code = ANSWERS[fails_at % len(ANSWERS)]
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    return call


@pytest.mark.parametrize("what", ["values", "names"])
def test_attributes_are_not_gathered_beyond_measure(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """200 files with 100 attributes of 64 KiB would be more than a gigabyte."""
    real = marshal.loads

    def loads(message: bytes) -> Any:
        if len(message) > 600_000:
            raise AssertionError(f"{len(message)} bytes at once")
        return real(message)

    monkeypatch.setattr(marshal, "loads", loads)
    attributes = (
        {b"user.%d" % number: b"x" * 60_000 for number in range(4)}
        if what == "values"
        else {b"user.%d" % number + b"x" * 240: b"" for number in range(90)}
    )
    members = [Member(b"f%d" % number, xattrs=attributes) for number in range(40)]
    with workshop() as where:
        extract(archive(where / "image", [members]), where / "root")
        assert (where / "root/f39").exists()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit pipes to a page, as for a user with many: a few answers, or a part of one error."""
    real = os.pipe

    def pipe() -> tuple[int, int]:
        ends = real()
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    monkeypatch.setattr(os, "pipe", pipe)
    monkeypatch.setattr(client, "OPERATIONS", 1)


@pytest.mark.usefixtures("narrow")
def test_more_answers_than_a_pipe_holds() -> None:
    """The processes must not deadlock."""
    with workshop() as where:
        members = [symlink(b"s%d" % number, b"x") for number in range(6000)]
        hidden = [[Member(b"d/" + member.name, "symlink", target=b"x") for member in members]]
        image = archive(where / "image", [*hidden, [file(b".wh.d"), *members]])
        extract(image, where / "root")
        assert len(list((where / "root").iterdir())) == 6000


@pytest.mark.usefixtures("narrow")
def test_an_error_longer_than_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It contains a path, whose length the image determines."""
    real = os.symlink

    def fails(target: bytes, name: bytes, **options: Any) -> None:
        if name == b"here":
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(target, name, **options)

    monkeypatch.setattr(os, "symlink", fails)
    deep = (b"x" * 200 + b"/") * 100 + b"here"
    members = [symlink(deep, b"x"), *(symlink(b"s%d" % number, b"x") for number in range(3000))]
    with workshop() as where:
        image = archive(where / "image", [members])
        with pytest.raises(DestinationError, match="EMLINK") as caught:
            extract(image, where / "root")
        assert caught.value.member == deep
        assert list(where.iterdir()) == [image]


@pytest.mark.root
def test_an_error_that_is_ours_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace an owner may not exist; the error still names the file."""

    real = os.fchown

    def fails(fd: int, uid: int, gid: int) -> None:
        if uid == 7:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd, uid, gid)

    monkeypatch.setattr(os, "fchown", fails)
    image = archive(tmp_path / "image", [[Member(b"d/f", data=b"x", uid=7)]])
    with pytest.raises(DestinationError, match="does not exist in this user namespace") as caught:
        extract(image, tmp_path / "root")
    assert caught.value.member == b"d/f"


@pytest.mark.root
def test_a_reserve_is_left_by_both(tmp_path: Path) -> None:
    """Each process considers what both have written."""
    members = [
        *(file(b"a%d" % number, data=KILOBYTE * 4) for number in range(3)),  # one check of space
        *(file(b"large%d" % number, data=KILOBYTE * 3000) for number in range(16)),
        *(file(b"f%d" % number, data=KILOBYTE * 4) for number in range(8000)),
    ]
    image = archive(tmp_path / "image", [Layer(members, "gzip")])
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as place:
        with pytest.raises(DestinationError, match="a reserve of 671088 bytes is kept"):
            extract(image, place / "root")
        assert list(place.iterdir()) == []


def test_many_descriptors(tmp_path: Path) -> None:
    """Beyond 1023, which select(2) does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("there may not be so many here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    taken = [os.open("/", os.O_RDONLY) for _ in range(1100)]
    try:
        extract(archive(tmp_path / "image", [[file(b"a", data=b"x")]]), tmp_path / "root")
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (tmp_path / "root/a").read_bytes() == b"x"


# When there is no second process.


def test_none_beside_other_threads(tmp_path: Path, forks: list[int]) -> None:
    """A lock that another thread holds would stay locked in the child."""
    wait = threading.Event()
    other = threading.Thread(target=wait.wait)
    other.start()
    try:
        extract(archive(tmp_path / "image", [[file(b"a")]]), tmp_path / "root")
    finally:
        wait.set()
        other.join()
    assert forks == []
    assert (tmp_path / "root/a").exists()


@pytest.mark.parametrize("looks", [3, 10_000])
def test_a_thread_that_python_does_not_know(
    tmp_path: Path, forks: list[int], monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """The kernel still shows a thread that has ended for a moment; one of a library stays."""
    real = os.listdir
    left = looks

    def listdir(path: Any = ".") -> list[str]:
        nonlocal left
        found: list[str] = real(path)
        if path == "/proc/self/task" and left:
            left -= 1
            found = [*found, "another"]
        return found

    monkeypatch.setattr(os, "listdir", listdir)
    extract(archive(tmp_path / "image", [[file(b"a")]]), tmp_path / "root")
    assert len(forks) == (1 if looks == 3 else 0)
    assert (tmp_path / "root/a").exists()


def test_none_on_one_processor_nor_unasked_nor_for_little(
    tmp_path: Path, forks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = archive(tmp_path / "image", [[file(b"a")]])
    extract(image, tmp_path / "1", writer_process=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_getaffinity", lambda _: {0})
        extract(image, tmp_path / "2")
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 1 << 20)
    extract(image, tmp_path / "3")
    assert forks == []


@pytest.mark.parametrize("missing", ["fork", "pipe", "pipe again", "memory"])
def test_none_when_the_kernel_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    calls = 0
    real = os.pipe

    def refused(*_: object) -> Any:
        nonlocal calls
        calls += 1
        if missing == "pipe again" and calls == 1:
            return real()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    module: Any = mmap if missing == "memory" else os
    monkeypatch.setattr(module, "mmap" if missing == "memory" else missing.split()[0], refused)
    before = sorted(Path("/proc/self/fd").iterdir())
    extract(archive(tmp_path / "image", [[file(b"a", data=b"x")]]), tmp_path / "root")
    assert (tmp_path / "root/a").read_bytes() == b"x"
    assert sorted(Path("/proc/self/fd").iterdir()) == before


# In a restricted environment.

COMMAND = """
import os
import ociroot.api.extraction
ociroot.api.extraction.WORTH_A_PROCESS = 0
os.sched_getaffinity = lambda _: {0, 1}
from ociroot.cli import main
main()
"""
FAR = Layer(
    [
        *(Member(b"%d/" % n + b"d/" * 40 + b"f", data=b"x") for n in range(30)),
        *(link(b"%d/l" % n, b"%d/" % (n - 1) + b"d/" * 40 + b"f") for n in range(1, 30)),
        Member(b"large", data=KILOBYTE * 300),
    ],
    "gzip",
)


def commanded(
    image: Path, root: Path, *, before: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Extract with the command in two processes, in an environment that the caller prepares."""
    command = [sys.executable, "-c", before + COMMAND, "extract", "--quiet", str(image), str(root)]
    return subprocess.run(command, check=False, text=True, **options)


@pytest.mark.parametrize(
    ("form", "handles"),
    [*(("archive", handles) for handles in (8, 10, 11, 12)), ("layout", 10), ("layout", 12)],
)
def test_few_descriptors(form: str, handles: int) -> None:
    """Too few for the pipes, or for little besides them."""
    with workshop() as where:
        image = archive(where / "image", [FAR, *MANY])
        if form == "layout":  # each layer is a separate file
            image = unpacked(image, where / "layout")
        extract(image, where / "whole", writer_process=False)
        limit = handles + kept_by_libraries()
        few = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
        done = commanded(image, where / "root", before=few, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, "")
        assert differences(snapshot(where / "whole"), snapshot(where / "root")) == []


@pytest.mark.parametrize("handles", [10, 11, 12])
def test_an_error_there_with_few_descriptors(tmp_path: Path, handles: int) -> None:
    """Importing the module that reports the error needs descriptors."""
    limit = handles + kept_by_libraries()
    before = f"""
import errno, os, resource
def fails(*arguments, **options):
    raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
os.symlink = fails
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
"""
    image = archive(tmp_path / "image", [FAR, [symlink(b"s", b"t")]])
    done = commanded(image, tmp_path / "root", before=before, stderr=subprocess.PIPE)
    assert done.returncode == 7
    assert len(done.stderr.splitlines()) == 1
    assert "cannot make the symlink: Too many links EMLINK" in done.stderr
    assert list(tmp_path.iterdir()) == [image]


@contextmanager
def without(*closed: int) -> Iterator[None]:
    """Close descriptors of this process; they must still be closed at the end."""
    held = [os.dup(fd) for fd in closed]
    for fd in closed:
        os.close(fd)
    try:
        yield
        left = [fd for fd in closed if Path(f"/proc/self/fd/{fd}").exists()]
    finally:
        for fd, kept in zip(closed, held, strict=True):
            os.dup2(kept, fd)
            os.close(kept)
    assert left == []


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_no_file_becomes_a_standard_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: tuple[int, ...]
) -> None:
    """Output of a library to one of them must not go into a file of the image."""
    real = os.open
    opened: list[int] = []

    def noting(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        fd = real(path, flags, *rest, **options)
        if flags & os.O_CREAT:
            opened.append(fd)
        return fd

    root_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "open", noting)
    node = Node("file", 0)
    node.size = 1
    with without(*closed):
        writer = DirectoryWriter(root_fd, Notices())
        try:
            writer.make_file(Directory(None, b"", 0), b"f", node, ChunkStream(iter([b"x"])))
        finally:
            writer.close()
    os.close(root_fd)
    assert [fd > 2 for fd in opened] == [True]


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_closed_descriptors(closed: tuple[int, ...]) -> None:
    with workshop() as where:
        image = archive(where / "image", MANY)
        extract(image, where / "whole", writer_process=False)
        with ociroot.open(image) as source:
            chosen = source.image()
            with without(*closed):
                chosen.extract(where / "root", ociroot.ExtractOptions(writer_process=True))
        assert differences(snapshot(where / "whole"), snapshot(where / "root")) == []


def test_a_directory_as_a_standard_descriptor(tmp_path: Path) -> None:
    """The directory that is written to, which the other process needs."""
    root = Directory(None, b"", 0)
    node = Node("file", 0)
    node.size, node.uid, node.gid = 1, os.geteuid(), os.getegid()
    notices = Notices()
    held, root_fd = os.dup(2), os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.dup2(root_fd, 2)
        writer = DirectoryWriter(2, notices)
        with start.writing(writer, notices, ()) as both_of_them:
            both_of_them.make_file(root, b"f", node, ChunkStream(iter([b"x"])))
            both_of_them.finish(root)
    finally:
        os.dup2(held, 2)
        os.close(held)
        os.close(root_fd)
    assert (tmp_path / "f").read_bytes() == b"x"


@pytest.mark.parametrize("closed", [(1, 2), (0, 1, 2)])
def test_a_command_with_closed_descriptors(closed: tuple[int, ...]) -> None:
    """The first files that are opened get their numbers: the image, the destination."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    with workshop() as where:
        image = archive(where / "image", MANY)
        extract(image, where / "whole", writer_process=False)
        assert commanded(image, where / "root", preexec_fn=close).returncode == 0
        assert differences(snapshot(where / "whole"), snapshot(where / "root")) == []


@pytest.mark.parametrize("closed", [(), (0, 1, 2)])
def test_no_dev_null(monkeypatch: pytest.MonkeyPatch, closed: tuple[int, ...]) -> None:
    """As in a chroot without it."""
    monkeypatch.setattr(os, "devnull", "/absent")
    with workshop() as where:
        image = archive(where / "image", MANY)
        with without(*closed):
            extract(image, where / "two")
        extract(image, where / "one", writer_process=False)
        assert differences(snapshot(where / "one"), snapshot(where / "two")) == []


# When the first process is stopped.


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_any_moment(number: signal.Signals) -> None:
    """To the process group, as a terminal does; the next run removes what SIGKILL leaves."""
    with workshop() as where:
        image, root = archive(where / "image", MANY), where / "root"
        start = time.monotonic()
        extract(image, root)
        longest = time.monotonic() - start + 0.1
        whole = snapshot(root)
        # Before the interpreter has started, a signal has its default effect.
        command = COMMAND.replace("main()\n", "os.write(1, b'.')\nmain()\n")
        for step in range(12):
            remove(root)
            running = subprocess.Popen(
                [sys.executable, "-c", command, "extract", "--quiet", image, root],
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert running.stdout is not None
            running.stdout.read(1)
            time.sleep(longest * step / 12)
            os.killpg(running.pid, number)
            _, said = running.communicate()
            if root.exists():
                assert differences(whole, snapshot(root)) == []
            elif number != signal.SIGKILL and running.returncode != -number:
                assert running.returncode == 128 + number
                assert said.count(b"\n") == 1, said
                assert sorted(where.iterdir()) == [image]
        remove(root)
        extract(image, root)
        assert sorted(where.iterdir()) == [image, root]
        assert differences(whole, snapshot(root)) == []


@pytest.mark.parametrize("times", [1, 2, 5])
def test_signals_while_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: list[int], times: int
) -> None:
    """The second process has ended before anything is removed, however many signals arrive."""
    real = os.waitpid
    left = times

    def waitpid(*arguments: int) -> tuple[int, int]:
        nonlocal left
        while left:
            left -= 1
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(*arguments)

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def removing(*arguments: Any) -> Any:
        assert not any(Path(f"/proc/{number}").exists() for number in forks)
        return scandir(*arguments)

    scandir = os.scandir
    image = archive(tmp_path / "image", MANY)
    monkeypatch.setattr(os, "waitpid", waitpid)
    monkeypatch.setattr(os, "scandir", removing)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            extract(image, tmp_path / "root")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert left < times
    assert list(tmp_path.iterdir()) == [image]


def test_what_is_to_be_ignored_is_ignored_there(tmp_path: Path) -> None:
    """As under nohup(1): closing the terminal stops neither process."""
    image, fifo = archive(tmp_path / "image", MANY), tmp_path / "fifo"
    os.mkfifo(fifo)
    command = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + COMMAND.replace(
        "main()\n",
        f"""
from ociroot.outputs.directory.forked import client
real = client.ProcessWriter.make_link
def make_link(self, *arguments):
    with open({str(fifo)!r}, "w") as waits:
        waits.write("x")
    open({str(fifo)!r}).read()
    real(self, *arguments)
client.ProcessWriter.make_link = make_link
main()
""",
    )
    running = subprocess.Popen(
        [sys.executable, "-c", command, "extract", "-q", image, tmp_path / "root"],
        start_new_session=True,
    )
    for _ in range(3):  # as many as there are links
        fifo.read_text()
        os.killpg(running.pid, signal.SIGHUP)
        fifo.write_text("go on")
    assert running.wait() == 0
    assert (tmp_path / "root/small").exists()


# When the first process is killed: right after the fork, and at the end, with an idle pipe.
KILLED = {
    "right after the fork": """
real = os.fork
def fork():
    number = real()
    if number:
        open({fifo!r}, "w").write(str(number))
        signal.pause()
    return number
os.fork = fork
""",
    "when all has been sent": """
from ociroot.outputs.directory.forked import client
real = client.ProcessWriter.finish
def finish(self, root):
    open({fifo!r}, "w").write(str(self.child.pid))
    signal.pause()
client.ProcessWriter.finish = finish
""",
}


@pytest.mark.parametrize("moment", KILLED)
def test_it_ends_with_the_first_one(moment: str) -> None:
    with workshop() as where:
        image, fifo = archive(where / "image", MANY), where / "fifo"
        os.mkfifo(fifo)
        before = KILLED[moment].format(fifo=str(fifo))
        command = COMMAND.replace("main()\n", f"import signal\n{before}main()\n")
        running = subprocess.Popen(
            [sys.executable, "-c", command, "extract", image, where / "root"]
        )
        pid = int(fifo.read_text())
        held = os.pidfd_open(pid)
        running.kill()
        running.wait()
        assert select.select([held], [], [], 60)[0], "it is still there"
        os.close(held)
        extract(image, where / "root")
        assert sorted(path.name for path in where.iterdir()) == ["fifo", "image", "root"]
