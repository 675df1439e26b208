"""Owners for unprivileged containers: as PVE makes them, by users with subordinate ids, for LXC."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import ExtractOptions, OutputPolicy, OwnerMap
from ociroot.api import extraction as extracting

from .support.build import Member, archive, directory, file, link, symlink
from .support.command import run
from .support.namespace import in_namespace
from .support.needs import need_tools
from .support.oddities import add_oddities
from .support.snapshot import Snapshot, differences, snapshot
from .support.subordinate import GID, UID, as_user, run_as_user, run_with_ranges
from .support.user import workshop
from .test_shapes import ACL, CAPABILITY

pytestmark = pytest.mark.root

MAP = "0:100000:65536"
# What PVE::LXC::Create gives tar, beside the map.
PVE_FLAGS = (
    *("-p", "--sparse", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=user.*"),
    "--xattrs-include=security.capability",
)
MEMBERS = [
    directory(b"etc", uid=7, gid=8, mode=0o2750, xattrs={b"system.posix_acl_default": ACL}),
    file(b"etc/acl", b"x", uid=5, gid=5, xattrs={b"system.posix_acl_access": ACL}),
    file(b"bin/ping", b"x", uid=0, gid=0, mode=0o755, xattrs={b"security.capability": CAPABILITY}),
    file(b"bin/su", b"x", uid=0, gid=0, mode=0o4755, xattrs={b"user.t": b"\0\1"}),
    link(b"bin/su2", b"bin/su"),
    symlink(b"lib", b"usr/lib", uid=9, gid=9),
    file(b"home/u", b"x", uid=65535, gid=1000),
    Member(b"dev/pipe", "fifo", uid=1, gid=1, mode=0o600),
]


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        archive(where / "image", [MEMBERS])
        (where / "image").chmod(0o644)
        yield where


def by_pve(place: Path, **source: Any) -> subprocess.CompletedProcess[bytes]:
    """Unpack an archive as PVE does it: `lxc-usernsexec -m u:… -m g:… -- tar -xpf - …`."""
    need_tools("lxc-usernsexec", "tar")
    place.mkdir()
    os.chown(place, 100000, 100000)
    maps = [word for kind in "ug" for word in ("-m", f"{kind}:{MAP}")]
    unpack = ["tar", "-xf", "-", *PVE_FLAGS, "-C", str(place)]
    return run_with_ranges("lxc-usernsexec", *maps, "--", *unpack, **source)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_mapped_tree_is_that_of_pve(
    place: Path, monkeypatch: pytest.MonkeyPatch, odd: bool, processes: int
) -> None:
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 0 if processes == 2 else 1 << 60)
    with ociroot.open(place / "image") as source:
        source.image().extract(place / "plain")
    if odd:
        (place / "plain/etc/debian_version").write_text("13")
        (place / "plain/bin/busy").write_text("x")
        add_oddities(place / "plain")
    pack = ["tar", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "--sparse"]
    subprocess.run([*pack, "-cf", place / "layer.tar", "-C", place / "plain", "."], check=True)
    layer = (place / "layer.tar").read_bytes()
    archive(place / "again", [layer])
    with ociroot.open(place / "again") as source:
        used = OutputPolicy(owners=OwnerMap.parse(MAP, MAP, "65534:65534"))
        options = ExtractOptions(policy=used, writer_process=True)
        source.image().extract(place / "ours", options)
    done = by_pve(place / "theirs", input=layer)
    ours, theirs = snapshot(place / "ours"), snapshot(place / "theirs")
    if not odd:
        assert done.returncode == 0, done.stderr
        assert differences(theirs, ours) == []
        return
    # In a namespace tar makes no devices, sets no trusted.* attributes, keeps an owner that is not
    # in the map as root's, and so on; everything else is the same.
    lines = differences(theirs, ours, different_in_a_namespace(theirs, ours))
    assert lines == []
    assert len(theirs) > 50


def different_in_a_namespace(theirs: Snapshot, ours: Snapshot) -> Callable[[bytes, str], bool]:
    """What tar cannot set in a user namespace, or sets in another way."""

    def differs(path: bytes, attribute: str) -> bool:
        one, other = theirs.get(path), ours[path]
        if one is None:
            return other.kind in ("char", "block")
        if attribute == "xattrs":
            kept = {
                name: value
                for name, value in other.xattrs.items()
                if name.startswith((b"user.", b"system.", b"security.capability"))
            }
            return one.xattrs == kept
        if attribute == "links":
            return other.kind == "fifo"  # GNU tar writes each of its names as one of its own
        if attribute in ("uid", "gid", "mode"):
            return 65534 in (other.uid, other.gid)  # squashed
        return False

    return differs


_INIT = r"""
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **paths) {
    printf("uid %d\n", getuid());
    for (int n = 1; n < count; n++) {
        struct stat it;
        if (stat(paths[n], &it)) return 1;
        printf("%s %d:%d %o\n", paths[n], it.st_uid, it.st_gid, it.st_mode & 07777);
    }
    FILE *made = fopen("/new", "w");
    return made == NULL || fclose(made);
}
"""


def test_lxc_starts_what_is_mapped_for_it(place: Path) -> None:
    need_tools("lxc-execute", "gcc")
    (place / "init.c").write_text(_INIT)
    subprocess.run(["gcc", "-static", "-o", place / "init", place / "init.c"], check=True)
    layers = [[
        *map(directory, (b"proc", b"dev", b"sys", b"run")),
        file(b"bin/look", (place / "init").read_bytes(), mode=0o755, uid=0, gid=0),
        file(b"secret", b"s", uid=7, gid=8, mode=0o600),
    ]]  # fmt: skip
    archive(place / "image", layers)
    root = place / "rootfs"
    done = run("extract", "--map", MAP, place / "image", root)
    assert done.returncode == 0, done.stderr
    (place / "config").write_text(
        f"lxc.rootfs.path = dir:{root}\nlxc.uts.name = x\nlxc.net.0.type = empty\n"
        "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"
        "lxc.apparmor.profile = unconfined\n"
    )
    place.chmod(0o755)
    config = str(place / "config")
    command = ["lxc-execute", "-n", f"ociroot-{os.getpid()}", "-P", str(place), "-f", config]
    look = ["/bin/look", "/secret", "/bin/look", "/"]
    started = run_with_ranges(*command, "-o", str(place / "log"), "--", *look, timeout=60)
    log = (place / "log").read_text()
    assert started.stdout.split(b"\n")[:4] == [
        *(b"uid 0", b"/secret 7:8 600", b"/bin/look 0:0 755", b"/ 0:0 755"),
    ], log
    assert (root / "new").stat().st_uid == 100000


# An ordinary user with subordinate ids.


@pytest.fixture
def theirs(place: Path) -> Path:
    """A directory of the user's own."""
    (place / "theirs").mkdir(0o700)
    os.chown(place / "theirs", UID, GID)
    return place / "theirs"


def mapped(place: Path, uids: str, gids: str) -> Path:
    """The tree as root writes it with a map."""
    with ociroot.open(place / "image") as source:
        used = OutputPolicy(owners=OwnerMap.parse(uids, gids))
        source.image().extract(place / "mapped", ExtractOptions(policy=used))
    return place / "mapped"


def test_a_user_gives_files_to_subordinate_ids(place: Path, theirs: Path) -> None:
    need_tools("newuidmap", "newgidmap")
    done = run_as_user("extract", "--userns", place / "image", theirs / "tree")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    want = mapped(place, f"0:{UID}:1,1:300000:65535", f"0:{GID}:1,1:300000:65535")
    assert differences(snapshot(want), snapshot(theirs / "tree")) == []


def test_a_user_gives_everything_to_subordinate_ids(place: Path, theirs: Path) -> None:
    need_tools("newuidmap", "newgidmap")
    done = run_as_user("extract", "--userns", "--map-auto", place / "image", theirs / "tree")
    assert done.returncode == 0, done.stderr
    want = mapped(place, "0:300000:65536", "0:300000:65536")
    assert differences(snapshot(want), snapshot(theirs / "tree")) == []
    # It is replaced, although nothing in it belongs to the user any more.
    arguments = ("extract", "--userns", "--replace", place / "image", theirs / "tree")
    done = run_as_user(*arguments)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in theirs.iterdir()] == ["tree"]
    assert (theirs / "tree").stat().st_uid == UID


def test_several_ranges_follow_each_other(place: Path, theirs: Path) -> None:
    need_tools("newuidmap", "newgidmap")
    ranges = "games:300000:10\nother:1:1\n5:400000:70000\n"
    arguments = ("extract", "--userns", "--map-auto", place / "image", theirs / "tree")
    done = run_as_user(*arguments, subuid=ranges)
    assert done.returncode == 0, done.stderr
    used = "0:300000:10,10:400000:65526"
    assert differences(snapshot(mapped(place, used, used)), snapshot(theirs / "tree")) == []


def test_what_the_namespace_does_not_cover_is_refused(place: Path, theirs: Path) -> None:
    need_tools("newuidmap", "newgidmap")
    arguments = ("extract", "--userns", place / "image", theirs / "tree")
    done = run_as_user(*arguments, subuid="games:300000:100\n")
    assert done.returncode == 5
    assert done.stderr.endswith(
        "home/u: the owner is 65535, which the map 0:5:1,1:300000:100 does not cover "
        "(--squash-unmapped UID:GID gives it to another owner)\n"
    )
    assert list(theirs.iterdir()) == []
    done = run_as_user(
        *arguments, "--squash-unmapped", "300007:300008", subuid="games:300000:100\n"
    )
    assert done.returncode == 0, done.stderr
    status = (theirs / "tree/home/u").stat()
    assert (status.st_uid, status.st_gid) == (300007, 300008)


@pytest.mark.parametrize(
    ("arguments", "subuid", "message", "code"),
    [
        (["--userns"], "other:1:1\n", "/etc/subuid has no ids for the user games", 2),
        (["--userns", "--map", "0:0:10"], "games:300000:10\n", "/etc/subuid does not give", 2),
        (["--userns", "--no-owner"], "games:300000:10\n", "--userns sets owners", 2),
        (["--userns", "--record-owners=mtree"], "games:300000:10\n", "--userns sets owners", 2),
        (["--map-auto"], "games:300000:10\n", "as an ordinary user --userns does it", 2),
        (["--userns", "--squash-unmapped=1:1"], "games:300000:10\n", "is not covered, either", 2),
    ],
)
def test_what_a_user_may_not_is_said(
    place: Path, theirs: Path, arguments: list[str], subuid: str, message: str, code: int
) -> None:
    done = run_as_user("extract", *arguments, place / "image", theirs / "tree", subuid=subuid)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("ociroot:") == 1
    assert list(theirs.iterdir()) == []


def test_standard_input_and_output_are_as_before(place: Path, theirs: Path) -> None:
    need_tools("newuidmap", "newgidmap")
    with (place / "image").open("rb") as image:
        arguments = ("extract", "--userns", "--json", "-q", "-", theirs / "tree")
        done = run_as_user(*arguments, stdin=image)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"destination": ' in done.stdout


def test_a_signal_ends_it_as_before(place: Path, theirs: Path) -> None:
    need_tools("newuidmap", "newgidmap")
    archive(place / "image", [[file(b"large", b"x" * (4 << 20))]])
    arguments = ("extract", "--userns", "-", theirs / "tree")
    with (
        as_user(*arguments) as command,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        # More than a pipe holds: the command reads it, and is in the namespace.
        process.stdin.write((place / "image").read_bytes()[: 2 << 20])
        process.send_signal(signal.SIGINT)
        process.wait()
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert list(theirs.iterdir()) == []


def test_an_owner_that_the_namespace_does_not_have_names_the_options(
    place: Path, theirs: Path
) -> None:
    """As root of a namespace that somebody else has made."""
    os.chown(theirs, 300000, 300000)
    used = OwnerMap.parse("0:300000:100", "0:300000:100")

    def extract() -> None:
        refused = pytest.raises(ociroot.DestinationError)
        with ociroot.open(place / "image") as source, refused as caught:
            source.image().extract(theirs / "tree")
        assert caught.value.problem == "the owner 65535:1000 does not exist in this user namespace"
        assert "--userns" in str(caught.value)
        assert "--map-auto" in str(caught.value)

    in_namespace(used.uids, used.gids, extract)
    assert list(theirs.iterdir()) == []


def test_root_maps_to_its_own_ranges(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SUBUID", "SUBGID"):
        path = tmp_path / name
        path.write_text("root:500000:65536\n")
        monkeypatch.setattr(f"ociroot.outputs.userns.{name}", str(path))
    used = ociroot.subordinate_owners()
    assert used.owner(5, 6) == (500005, 500006)
    with pytest.raises(ociroot.UsageError, match="root can give files away"):
        ociroot.enter_user_namespace(used)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", MAP, "--map-auto"], "exclude each other"),
        (["--map-uids", MAP], "--map-uids and --map-gids go together"),
        (["--squash-unmapped", "1:1"], "--squash-unmapped is about a map"),
        (["--map", "0:1"], "'0:1' is not CONTAINER:HOST:SIZE"),
        (["--map", MAP, "--squash-unmapped", "x"], "'x' is not UID:GID"),
        (["--map", MAP, "--no-owner"], "exclude each other"),
        (["--no-xattrs", "--xattrs", "user.*"], "exclude each other"),
        (["--exclude", "!x"], "begins with '!'"),
        (["--map", MAP, "--map", MAP], "--map is given 2 times"),
        (["--userns"], "a user namespace is for ordinary users"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(
    place: Path, arguments: list[str], message: str
) -> None:
    done = run("extract", *arguments, place / "image", place / "tree")
    assert (done.returncode, (place / "tree").exists()) == (2, False)
    assert message in done.stderr


def test_the_options_of_the_command(place: Path) -> None:
    done = run(
        *("extract", "--map-uids", "0:100000:65536", "--map-gids", "0:200000:65536"),
        *("--exclude", "/bin/su2", "--exclude", "dev/", "--include", "/bin", "--include", "etc"),
        *("--xattrs", "user.*", "--devices", "skip", place / "image", place / "tree"),
    )
    assert (done.returncode, done.stderr.count("warning")) == (0, 0), done.stderr
    got = snapshot(place / "tree")
    assert set(got) == {b".", b"etc", b"etc/acl", b"bin", b"bin/ping", b"bin/su"}
    assert (got[b"etc"].uid, got[b"etc"].gid) == (100007, 200008)
    assert (got[b"bin/ping"].xattrs, got[b"bin/su"].xattrs) == ({}, {b"user.t": b"\0\1"})
    done = run(
        "extract", "--no-owner", "--no-xattrs", "--subtree", "/bin/.", place / "image", place / "b"
    )
    assert (done.returncode, "set-id bits" in done.stderr) == (0, False)
    assert {(r.uid, r.gid) for r in snapshot(place / "b").values()} == {(0, 0)}
    assert set(snapshot(place / "b")) == {b".", b"ping", b"su", b"su2"}


def test_the_example_of_the_page_works(place: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/owners.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (place / "image").rename(place / "app.tar")
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True)
    assert snapshot(place / "rootfs")[b"etc"].uid == 100007


def test_a_namespace_is_for_a_process_without_other_threads(theirs: Path) -> None:
    """What the kernel says to the others, with the reason."""
    program = """
import sys, threading, ociroot
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
try:
    ociroot.enter_user_namespace(ociroot.subordinate_owners(own=True))
except ociroot.DestinationError as error:
    print(error)
finally:
    stop.set()
"""
    done = run_as_user("-c", program)
    assert "cannot make a user namespace: Invalid argument EINVAL (a process with" in done.stdout
