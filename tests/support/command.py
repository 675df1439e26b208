"""Run the command as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to completion, with its output as text."""
    command = [sys.executable, "-m", "ociroot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
