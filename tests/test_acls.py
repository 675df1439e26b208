"""ACLs that an archive has as text (``SCHILY.acl.*``) are restored, as GNU tar and bsdtar do."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import ociroot

from .support.build import Layer, Member, archive, directory, file, link
from .support.needs import need_tools
from .support.snapshot import snapshot

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
TEXT = b"user::rw-,user:7:r--,group::r--,mask::rwx,other::---"
NAMES = b"user::rw-\nuser:lisa:r--\ngroup::r--\nmask::rwx\nother::---\n"
BOTH = b"user::rw-,user:lisa:r--:7,group::r--,mask::rwx,other::---"


def value(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)


ACL = value((1, 6, 2**32 - 1), (2, 4, 7), (4, 4, 2**32 - 1), (16, 7, 2**32 - 1), (32, 0, 2**32 - 1))
OTHER = value((1, 6, 2**32 - 1), (4, 0, 2**32 - 1), (32, 0, 2**32 - 1))


def xattrs_of(tmp_path: Path, *members: Member) -> dict[str, dict[bytes, bytes] | None]:
    with ociroot.open(str(archive(tmp_path / "image.tar", [list(members)]))) as source:
        merged = source.image().merged()
        assert merged.warnings == ()
        return {name.decode(): node.xattrs for _, name, node in merged.tree.root.walk()}


@pytest.mark.parametrize("text", [TEXT, BOTH, TEXT.replace(b",", b"\n") + b"\n"])
def test_text_becomes_what_the_kernel_has(tmp_path: Path, text: bytes) -> None:
    found = xattrs_of(
        tmp_path,
        file(b"f", pax={b"SCHILY.acl.access": text}, xattrs={b"user.a": b"1"}),
        directory(b"d", pax={b"SCHILY.acl.access": text, b"SCHILY.acl.default": text}),
        link(b"g", b"f", pax={b"SCHILY.acl.access": b"user::rwx,group::rwx,other::rwx"}),
        file(b"e", pax={b"SCHILY.acl.access": b""}),
    )
    assert found == {
        "f": {b"user.a": b"1", ACCESS: ACL},
        "d": {ACCESS: ACL, DEFAULT: ACL},
        "g": {b"user.a": b"1", ACCESS: ACL},
        "e": None,
    }


def test_of_both_forms_the_attribute_counts(tmp_path: Path) -> None:
    xattrs = {ACCESS: OTHER}
    found = xattrs_of(
        tmp_path,
        file(b"f", pax={b"SCHILY.acl.access": TEXT}, xattrs=xattrs),
        # Nobody who applies the attribute reads the text, so there is nothing to refuse or omit.
        file(b"g", pax={b"SCHILY.acl.access": NAMES}, xattrs=xattrs),
        file(b"h", pax={b"SCHILY.acl.access": b"none"}, xattrs=xattrs),
    )
    assert found == {"f": xattrs, "g": xattrs, "h": xattrs}


def test_names_without_numbers_are_left_out_with_a_warning(tmp_path: Path) -> None:
    members = [
        file(b"f", mode=0o670, pax={b"SCHILY.acl.access": NAMES}, xattrs={b"user.a": b"1"}),
        directory(b"d", pax={b"SCHILY.acl.access": TEXT, b"SCHILY.acl.default": NAMES}),
        file(b"g", mode=0o670, pax={b"SCHILY.acl.access": NAMES}),
    ]
    path = archive(tmp_path / "image.tar", [members])
    with ociroot.open(str(path)) as source:
        merged = source.image().merged(strict=True)
        (entry, *_) = source.image().layers[0].entries()
    assert entry.xattrs == {b"user.a": b"1", b"SCHILY.acl.access": NAMES}
    modes = {name: node.mode for _, name, node in merged.tree.root.walk()}
    # The group bits were the mask, which would give the owning group more than the ACL does.
    assert modes == {b"f": 0o640, b"d": 0o755, b"g": 0o640}
    found = {name: node.xattrs for _, name, node in merged.tree.root.walk()}
    assert found == {b"f": {b"user.a": b"1"}, b"d": {ACCESS: ACL}, b"g": None}
    (warning,) = merged.warnings
    assert (warning.code, warning.count, warning.breach) == ("acl-names", 3, False)
    assert warning.message.endswith("without numeric IDs were left out: f")


REFUSED = {
    "malformed": (b"user::rw-,nobody", "not an ACL entry: nobody"),
    "two numbers": (b"user:7:r--:8", "an ACL entry with two IDs: user:7:r--:8"),
    "no mask": (b"user::rw-,user:7:r--,group::r--,other::---", "a value that Linux rejects"),
    "no owner": (b"group::r--,other::---", "a value that Linux rejects"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_verify_refuses_what_extract_does(tmp_path: Path, text: bytes, message: str) -> None:
    members = [file(b"a"), file(b"dir/f", pax={b"SCHILY.acl.access": text})]
    path = archive(tmp_path / "image.tar", [members])
    with ociroot.open(str(path)) as source:
        image = source.image()
        for use in (image.merged, image.tree, lambda: image.extract(tmp_path / "rootfs")):
            with pytest.raises(ociroot.MalformedImage, match=message) as caught:
                use()
            assert caught.value.member == b"dir/f"
            assert caught.value.exit_code == 3
    assert not (tmp_path / "rootfs").exists()


def test_the_limit_on_attributes_holds_for_text(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", [[file(b"f", pax={b"SCHILY.acl.access": TEXT})]])
    with (
        ociroot.open(
            str(path), ociroot.SourceOptions(limits=ociroot.Limits(xattr_size=43))
        ) as source,
        pytest.raises(ociroot.LimitExceeded),
    ):
        source.image().merged()
    with ociroot.open(
        str(path), ociroot.SourceOptions(limits=ociroot.Limits(xattr_size=44))
    ) as source:
        source.image().merged()


WRITERS: dict[str, Sequence[str]] = {
    "tar": ("tar", "--format=posix", "--acls", "--numeric-owner"),
    "bsdtar": ("bsdtar", "--format=pax", "--acls"),
}


@pytest.mark.root
@pytest.mark.parametrize("tool", WRITERS)
def test_what_archivers_write_comes_back(tmp_path: Path, tool: str) -> None:
    need_tools(tool, "setfacl")
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "f").write_text("x")
    # Numbers that no user of this machine has: GNU tar would write the names of others.
    for options in ("-m u:654321:rwx,g:654322:r,m::rx f", "-m u:654321:rwx d", "-dm g:9876543:r d"):
        subprocess.run(["setfacl", *options.split()], cwd=tree, check=True)
    made = subprocess.run(
        [*WRITERS[tool], "-cf", "-", "-C", tree, "."], check=True, capture_output=True
    ).stdout
    path = archive(tmp_path / "image.tar", [Layer(made)])
    with ociroot.open(str(path)) as source:
        report = source.image().extract(tmp_path / "rootfs")
    assert report.warnings == ()
    wanted, found = snapshot(tree), snapshot(tmp_path / "rootfs")
    assert [record.xattrs for record in found.values()] == [
        record.xattrs for record in wanted.values()
    ]
    assert [record.mode for record in found.values()] == [record.mode for record in wanted.values()]
    assert sum(map(len, (record.xattrs for record in found.values()))) == 3
