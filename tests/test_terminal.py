"""Files of an image on a terminal: text unchanged, and no control characters."""

from __future__ import annotations

import os
import subprocess
import sys
import tty
from pathlib import Path

import pytest

from .support.build import Layer, Member, archive

TEXT = "Grüße\taus\r\n\fKöln 你好\n".encode()
# One of its characters spans two chunks, whatever their size.
LONG = b"x" + "ü".encode() * 1_000_000
BINARY = {
    "NUL": b"a\0b",
    "an escape sequence": b"\x1b[31mred",
    "delete": b"\x7f",
    "a C1 control character": "\x9b31m".encode(),
    "another encoding": "Grüße".encode("latin-1"),
    "something else far behind": b"text\n" * 500_000 + b"\x1b]0;title\x07",
}


def on_a_terminal(*arguments: str | Path) -> tuple[int, bytes, str]:
    """Run the command with a terminal as stdout; return its exit code, stdout and stderr."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    process = subprocess.Popen(
        [sys.executable, "-m", "ociroot", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    shown = b""
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
        try:
            while piece := terminal.read(65536):
                shown += piece
        except OSError:  # EIO: the other end is closed
            pass
    _, err = process.communicate()
    return process.returncode, shown, err.decode()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    members = [Member(b"text", data=TEXT), Member(b"long", data=LONG), Member(b"empty")]
    members += [Member(name.encode(), data=data) for name, data in BINARY.items()]
    sparse = {b"GNU.sparse.size": b"9", b"GNU.sparse.map": b"0,1"}
    members.append(Member(b"hole", data=b"t", pax=sparse))
    return archive(tmp_path_factory.mktemp("terminal") / "image", [Layer(members, "gzip")])


def test_text_is_shown(image: Path) -> None:
    assert on_a_terminal("cat", image, "text", "empty", "text") == (0, TEXT * 2, "")
    assert on_a_terminal("cp", f"{image}:text", "-") == (0, TEXT, "")
    assert on_a_terminal("cat", image, "long") == (0, LONG, "")


@pytest.mark.parametrize("name", [*BINARY, "hole"])
def test_binary_data_is_not(image: Path, name: str) -> None:
    content = BINARY.get(name, b"t" + bytes(8))
    remedy = "binary data is not written to a terminal (--force writes it anyway)"
    code, shown, err = on_a_terminal("cat", image, name, "text")
    assert (code, err) == (1, f"ociroot: {image}, /{name}: {remedy}\n")
    assert shown.endswith(TEXT), "and the others are"
    assert set(shown.removesuffix(TEXT)) <= set(b"text\n")
    code, shown, err = on_a_terminal("cp", f"{image}:{name}", "-")
    assert (code, err) == (1, f"ociroot: {image}, {name}: {remedy}\n")
    assert set(shown) <= set(b"text\n")
    for command in (("cat", image, name), ("cp", f"{image}:{name}", "-")):
        assert on_a_terminal(*command, "--force") == (0, content, "")


def test_elsewhere_it_is(image: Path) -> None:
    command = [sys.executable, "-m", "ociroot", "cat", str(image), *BINARY]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"".join(BINARY.values())
