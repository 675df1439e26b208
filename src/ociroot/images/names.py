"""Short and full names of images."""

from __future__ import annotations

__all__ = ["full_name", "short_names"]

# The prefixes that Docker and podman omit from the names they show.
_HOSTS = ("docker.io/library/", "docker.io/", "localhost/")


def short_names(name: str) -> list[str]:
    """Return a name and its short forms, such as ``alpine`` for ``docker.io/library/alpine``."""
    names = [name] + [name.removeprefix(host) for host in _HOSTS if name.startswith(host)]
    last = names[-1].rpartition("/")[2].partition("@")[0]
    names += [last] if last not in names else []
    return names + [n.removesuffix(":latest") for n in names if n.endswith(":latest")]


def full_name(name: str) -> str:
    """Return the full name of a short one: ``docker.io/library/alpine:latest`` for ``alpine``."""
    host, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in host or ":" in host or host == "localhost"):
        name = f"docker.io/{name}"
    elif host == "docker.io" and "/" not in rest:
        name = f"docker.io/library/{rest}"
    last = name.rpartition("/")[2]
    return name if ":" in last or "@" in last else f"{name}:latest"
