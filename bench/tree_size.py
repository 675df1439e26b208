"""Print how many bytes of memory an image's merged tree takes, and how many entries it has.

python tree_size.py ARCHIVE
"""

from __future__ import annotations

import gc
import sys
import tracemalloc

import ociroot


def main() -> None:
    """Build the tree of the only image of an archive, with no writer behind it."""
    with ociroot.open(sys.argv[1]) as source:
        image = source.image()
        gc.collect()
        tracemalloc.start()
        merged = image.merged()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(size, sum(1 for _ in merged.tree.root.walk()))


if __name__ == "__main__":
    main()
