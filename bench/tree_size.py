"""Print the bytes of memory of an image's merged tree, and its number of entries.

python tree_size.py ARCHIVE
"""

from __future__ import annotations

import gc
import sys
import tracemalloc

import ociroot


def main() -> None:
    """Build the tree of the only image of an archive, without a writer."""
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
