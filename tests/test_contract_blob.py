"""What every blob, and every source of blobs, must do.

A new implementation adds a line to ``SOURCES``. Where its blobs are files that others may write to,
it adds one to ``IN_FILES``, too.
"""

from __future__ import annotations

import json
import os
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.limits import DEFAULTS
from ociroot.sources.blob import Blob, LocalBlob, head
from ociroot.sources.detect import open_source
from ociroot.sources.source import Source
from ociroot.spec.descriptor import Descriptor

from .support.build import archive_of, compress, digest, unpacked
from .support.fetched import FetchedSource

CONTENTS = [bytes(range(256)) * 40 + b"odd", b"", b"x", b"\0" * 5000]


def _stored(tmp_path: Path, contents: Sequence[bytes]) -> Path:
    """An oci-archive of some blobs, the last of which is the last in the file."""
    blobs: dict[str, bytes | None] = {digest(content): content for content in contents}
    return archive_of(tmp_path / "image.tar", [], blobs=blobs)


def in_archive(tmp_path: Path, contents: Sequence[bytes]) -> Source:
    return open_source(_stored(tmp_path, contents), limits=DEFAULTS)


def in_layout(tmp_path: Path, contents: Sequence[bytes]) -> Source:
    return open_source(unpacked(_stored(tmp_path, contents), tmp_path / "layout"), limits=DEFAULTS)


def in_shared_directory(tmp_path: Path, contents: Sequence[bytes]) -> Source:
    layout = unpacked(_stored(tmp_path, contents), tmp_path / "layout")
    (layout / "blobs").rename(tmp_path / "blobs")
    return open_source(layout, shared_blobs=tmp_path / "blobs", limits=DEFAULTS)


def decompressed(tmp_path: Path, contents: Sequence[bytes]) -> Source:
    path = _stored(tmp_path, contents)
    path.write_bytes(compress(path.read_bytes(), "gzip"))
    return open_source(path, limits=DEFAULTS)


def fetched(tmp_path: Path, contents: Sequence[bytes]) -> Source:
    return FetchedSource(_stored(tmp_path, contents))


Make = Callable[[Path, Sequence[bytes]], Source]
SOURCES: dict[str, Make] = {
    "archive": in_archive,
    "compressed archive": decompressed,
    "layout": in_layout,
    "shared blobs": in_shared_directory,
    "fetched": fetched,
}
# With where the file is that ends with the last blob, or is it.
IN_FILES: dict[str, tuple[Make, Callable[[Path, bytes], Path]]] = {
    "archive": (in_archive, lambda path, content: path / "image.tar"),
    "layout": (
        in_layout,
        lambda path, content: path / "layout/blobs" / digest(content).replace(":", "/"),
    ),
    "shared blobs": (
        in_shared_directory,
        lambda path, content: path / "blobs" / digest(content).replace(":", "/"),
    ),
}


@pytest.fixture(params=SOURCES.values(), ids=list(SOURCES))
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def descriptor(content: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest(content), len(content))


def blob_of(source: Source, content: bytes) -> Blob:
    found = source.blob(descriptor(content))
    assert found is not None
    return found


@pytest.mark.parametrize("step", [1, 3, 512, 10_243, 1 << 20])
def test_exact_bytes_in_chunks_of_at_most_a_step(make: Make, tmp_path: Path, step: int) -> None:
    source = make(tmp_path, CONTENTS)
    for content in CONTENTS:
        blob = blob_of(source, content)
        assert blob.size == len(content)
        chunks = list(blob.chunks(step))
        assert b"".join(chunks) == content
        assert all(1 <= len(chunk) <= step for chunk in chunks)
    source.close()


def test_the_step_may_be_left_to_it(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    assert b"".join(blob_of(source, CONTENTS[0]).chunks()) == CONTENTS[0]


def test_nothing_in_it_means_no_chunks(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    empty = blob_of(source, b"")
    assert empty.size == 0 and list(empty.chunks()) == [] and head(empty, 8) == b""


@pytest.mark.parametrize("size", [0, 1, 8, 4999, 5000, 5001, 1 << 30])
def test_the_first_bytes(make: Make, tmp_path: Path, size: int) -> None:
    source = make(tmp_path, CONTENTS)
    for content in CONTENTS:
        assert head(blob_of(source, content), size) == content[:size]


def test_reading_twice(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    blob = blob_of(source, CONTENTS[0])
    first = blob.chunks(100)
    begun = next(first)
    assert b"".join(blob.chunks(1000)) == CONTENTS[0], "the other has not come to its end"
    assert begun + b"".join(first) == CONTENTS[0]
    assert b"".join(blob.chunks(1000)) == CONTENTS[0]


def test_two_threads_read_two_blobs_in_turns(make: Make, tmp_path: Path) -> None:
    contents = [os.urandom(200_000), os.urandom(200_000)]
    source = make(tmp_path, contents)
    meeting = threading.Barrier(2, timeout=60)
    found: dict[bytes, bytes] = {}

    def read(content: bytes) -> None:
        chunks = []
        for number, chunk in enumerate(blob_of(source, content).chunks(10_000)):
            if number < 5:
                meeting.wait()
            chunks.append(chunk)
        found[content] = b"".join(chunks)

    threads = [threading.Thread(target=read, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {content: content for content in contents}


def test_it_is_equal_to_itself_asked_for_again(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    blobs = [blob_of(source, content) for content in CONTENTS]
    again = [blob_of(source, content) for content in CONTENTS]
    assert blobs == again and list(map(hash, blobs)) == list(map(hash, again))
    assert len(set(blobs)) == len(CONTENTS)


def test_stored_bytes_are_counted_once_for_each_blob(make: Make, tmp_path: Path) -> None:
    contents = [os.urandom(3000), os.urandom(3000), b"x"]
    source = make(tmp_path, contents)
    blobs = [blob_of(source, content) for content in contents]
    again = [blob_of(source, content) for content in contents]
    stored = source.stored_size(blobs + again)
    assert stored == source.stored_size(blobs)
    assert stored == 6001
    assert source.stored_size([]) == 0


def test_a_closed_source_is_not_read(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    blob, empty = blob_of(source, CONTENTS[0]), blob_of(source, b"")
    chunks = blob.chunks(100)
    next(chunks)
    source.check_open()
    source.close()
    source.close()
    # What the kernel gives the numbers of closed files to.
    others = [os.open("/dev/zero", os.O_RDONLY) for _ in range(8)]
    try:
        for reading in (lambda: next(chunks), lambda: next(blob.chunks()), source.check_open):
            with pytest.raises(ociroot.ClosedSource, match="the source is closed"):
                reading()
        if isinstance(blob, LocalBlob):
            with pytest.raises(ociroot.ClosedSource), blob.opened():
                pass
        assert empty.size == 0
    finally:
        for fd in others:
            os.close(fd)


@pytest.mark.parametrize("reading", ["chunks", "read_at", "opened"])
def test_a_source_that_is_closed_during_a_read(
    make: Make, tmp_path: Path, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another thread: what comes is of the blob, not of the file with its number."""
    source = make(tmp_path, CONTENTS)
    blob = blob_of(source, CONTENTS[0])
    if not isinstance(blob, LocalBlob):
        assert make is fetched
        return
    others: list[int] = []

    def closing(work: Callable[..., Any]) -> Callable[..., Any]:
        def closed_first(*args: Any) -> Any:
            monkeypatch.undo()
            source.close()
            others.extend(os.open("/dev/zero", os.O_RDONLY) for _ in range(8))
            return work(*args)

        return closed_first

    for name in ("pread", "dup"):
        monkeypatch.setattr(os, name, closing(getattr(os, name)))
    try:
        if reading == "chunks":
            assert next(blob.chunks(100)) == CONTENTS[0][:100]
        elif reading == "read_at":
            assert blob.read_at(100, 300) == CONTENTS[0][100:400]
        else:
            with blob.opened() as fd:
                assert os.pread(fd, 300, blob.offset) == CONTENTS[0][:300]
        assert others
        with pytest.raises(ociroot.ClosedSource):
            next(blob.chunks())
    finally:
        for fd in others:
            os.close(fd)


def test_read_in_place(make: Make, tmp_path: Path) -> None:
    """A blob that lies in a file says where; it stays readable in the block."""
    source = make(tmp_path, CONTENTS)
    blob = blob_of(source, CONTENTS[0])
    assert isinstance(blob, LocalBlob) == (make is not fetched)
    if isinstance(blob, LocalBlob):
        with blob.opened() as fd:
            source.close()
            assert os.pread(fd, 300, blob.offset + 100) == CONTENTS[0][100:400]
        with pytest.raises(ociroot.ClosedSource):
            blob.read_at(0, 1)


def test_exact_bytes_at_any_place(make: Make, tmp_path: Path) -> None:
    content = CONTENTS[0]
    blob = blob_of(make(tmp_path, CONTENTS), content)
    if isinstance(blob, LocalBlob):
        for offset, size in ((0, len(content)), (0, 0), (100, 300), (len(content) - 1, 1)):
            assert blob.read_at(offset, size) == content[offset : offset + size]
    else:
        assert make is fetched


# Sources.


def test_the_documents_to_begin_from(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    roots = source.roots()
    assert roots.index is not None and roots.manifest is None
    content = source.document(roots.index)
    assert content is not None and json.loads(content)["manifests"] == []
    assert source.name and source.form and source.limits == ociroot.Limits()
    assert all(map(os.path.isabs, source.source_paths))


def test_what_is_not_there(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path, CONTENTS)
    absent = source.blob(descriptor(b"absent"))
    error = source.missing(descriptor(b"absent").parsed_digest)
    assert isinstance(error, ociroot.MalformedImage) and digest(b"absent") in str(error)
    if absent is not None:  # it shows when it is fetched
        with pytest.raises(ociroot.OcirootError):
            list(absent.chunks())


# Files that others may write to.


@pytest.fixture(params=IN_FILES.values(), ids=list(IN_FILES))
def in_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Source, bytes, Path]:
    """A source, its last blob, and the file that ends with it."""
    make, file_of = request.param
    content = os.urandom(300_000)
    return make(tmp_path, [b"first", content]), content, file_of(tmp_path, content)


def test_a_file_that_shrinks(in_file: tuple[Source, bytes, Path]) -> None:
    source, content, path = in_file
    blob = blob_of(source, content)
    chunks = blob.chunks(1000)
    found = [next(chunks)]
    end = path.read_bytes().index(content) + 100_000
    os.truncate(path, end)
    with pytest.raises(ociroot.SourceError, match=r"ends inside a blob, 200000 bytes early"):
        found.extend(chunks)
    assert b"".join(found) == content[: sum(map(len, found))]
    assert blob.size == len(content)
    assert isinstance(blob, LocalBlob) and blob.read_at(99_000, 1000) == content[99_000:100_000]
    with pytest.raises(ociroot.SourceError, match="ends inside a blob, 1 bytes early"):
        blob.read_at(99_000, 1001)


def test_a_file_that_grows(in_file: tuple[Source, bytes, Path]) -> None:
    source, content, path = in_file
    blob = blob_of(source, content)
    chunks = blob.chunks(1000)
    found = [next(chunks)]
    with path.open("ab") as out:
        out.write(b"more")
    found.extend(chunks)
    assert b"".join(found) == content and b"".join(blob.chunks()) == content


@pytest.mark.parametrize("kind", ["archive", "layout"])
def test_a_very_large_one(tmp_path: Path, kind: str) -> None:
    """Beyond what 32 bits count, in a sparse file: nothing of it is read in vain."""
    size = (5 << 30) + 123
    large, small = digest(b"a name for it"), digest(b"behind it")
    layout = unpacked(_stored(tmp_path, [b"behind it"]), tmp_path / "layout")
    if kind == "layout":
        path = layout / "blobs" / large.replace(":", "/")
        path.write_bytes(b"")
        os.truncate(path, size)
    else:
        path = tmp_path / "image.tar"
        _sparse_archive(path, layout, large, size)
    with_large = open_source(layout if kind == "layout" else path, limits=DEFAULTS)
    blob = with_large.blob(Descriptor("application/octet-stream", large, size))
    assert blob is not None and blob.size == size
    assert head(blob, 1000) == bytes(1000)
    assert next(blob.chunks(1 << 20)) == bytes(1 << 20)
    behind = with_large.blob(Descriptor("application/octet-stream", small, 9))
    assert behind is not None and b"".join(behind.chunks()) == b"behind it"
    with_large.close()


def _sparse_archive(path: Path, layout: Path, large: str, size: int) -> None:
    """An archive with a blob that is a hole, and all the others behind it."""
    others = path.with_name("others.tar")
    with tarfile.open(others, "w") as tar:
        tar.add(layout, ".")
    member = tarfile.TarInfo("blobs/" + large.replace(":", "/"))
    member.size = size
    header = member.tobuf(tarfile.GNU_FORMAT)
    with path.open("wb") as out:
        out.write(header)
        out.seek(size + -size % 512, os.SEEK_CUR)
        out.write(others.read_bytes())
