"""The page on the library does what it says: each of its examples prints what stands below it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .support.build import Layer, archive, file

CHECKOUT = Path(__file__).parent.parent
PAGE = (CHECKOUT / "docs/library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)
CSV = "place,value\nKöln,12\n北京,7\n"


def test_each_example_says_what_it_prints() -> None:
    assert len(BLOCKS) == PAGE.count("```python") == 8


@pytest.mark.parametrize(("code", "said"), BLOCKS, ids=[str(n) for n in range(len(BLOCKS))])
def test_an_example(code: str, said: str, tmp_path: Path) -> None:
    example = str(CHECKOUT / "examples/sample_image.py")
    subprocess.run([sys.executable, example, "sample.tar"], cwd=tmp_path, check=True)
    layer = Layer([file(b"data/measured.csv", CSV.encode())], "gzip")
    archive(tmp_path / "data.tar", [layer])
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    # A bar is printed over itself: a terminal shows what comes last.
    printed = [line.rpartition("\r")[2] for line in done.stdout.decode().split("\n")]
    assert "\n".join(printed) == said
