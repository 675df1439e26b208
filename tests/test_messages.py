"""Every command reports the same fault with the same message."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from .support import build
from .support.build import Compression, Layer, Member, archive

DATA = random.Random(1).randbytes(3_000_000)
WHOLE = {b"GNU.sparse.size": b"4000000", b"GNU.sparse.map": b"0,3000000"}
# Layers that end inside their second entry, at offset 1024: after its headers, or in them.
CUT = {
    "plain": build.tar([Member(b"a", data=b"x"), Member(b"b", data=DATA)])[:1_000_000],
    "a long name": build.tar([Member(b"a", data=b"x"), Member(b"b" * 200, data=DATA)])[:1_000_000],
    "attributes": build.tar(
        [Member(b"a", data=b"x"), Member(b"b", data=DATA, xattrs={b"user.a": b"1"})]
    )[:1_000_000],
    "sparse": build.tar([Member(b"a", data=b"x"), Member(b"b", data=DATA, pax=WHOLE)])[:1_000_000],
    "small": build.tar([Member(b"a", data=b"x"), Member(b"b" * 200, data=b"y" * 9999)])[:9000],
    "GNU": build.tar([Member(b"a", data=b"x"), Member(b"b" * 200, data=DATA)], "gnu")[:99_999],
}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("cut", CUT)
def test_the_offset_of_a_fault(tmp_path: Path, cut: str, compression: Compression) -> None:
    path = archive(tmp_path / "image", [Layer(CUT[cut], compression)])
    messages = {}
    for command in ("extract", "verify", "tree"):
        words = [command, str(path), *([str(tmp_path / "root")] if command == "extract" else [])]
        done = subprocess.run(
            [sys.executable, "-m", "ociroot", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 3
        messages[command] = done.stderr
    assert len(set(messages.values())) == 1, messages
    assert ", offset 1024: the archive is truncated" in messages["verify"]
