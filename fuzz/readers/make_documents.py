"""Random images whose documents or archive readers may interpret differently."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.support.build import (
    CONFIG,
    HOST_ARCHITECTURE,
    INDEX,
    LAYER,
    MANIFEST,
    Member,
    describe,
    digest,
    entry,
    file,
    tar,
)

from ..images import LAYOUT

__all__ = ["FORMS", "LAYERS", "make_documents"]

#: The forms of an image; the first byte of an input selects one.
FORMS = ("oci-layout", "oci-archive", "docker-archive", "hybrid")
LAYERS = [tar([file(b"f", b"%d" % number), file(b"%d" % number)])[:2560] for number in range(3)]
_DOCKER = ("application/vnd.docker.distribution.manifest.v2+json",)
_TYPES: tuple[str, ...] = (
    INDEX,
    MANIFEST,
    CONFIG,
    LAYER,
    LAYER + "+gzip",
    LAYER + "+zstd",
    *_DOCKER,
)
_TYPES += ("application/vnd.docker.distribution.manifest.list.v2+json", "", "x/y")
_TYPES += ("application/vnd.docker.container.image.v1+json",)
_TYPES += ("application/vnd.docker.image.rootfs.diff.tar.gzip",)
_SCALARS: tuple[Any, ...] = (None, True, 0, 1, 2, -1, "", "linux", "x", [], {}, 2.0, "2", [None])


class Object:
    """A JSON object as a list, which can have duplicate names."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs

    def text(self, random: Random) -> str:
        """Encode it, rarely with escapes in its names."""
        return (
            "{" + ", ".join(f"{_name(k, random)}: {_text(v, random)}" for k, v in self.pairs) + "}"
        )


def _text(value: Any, random: Random) -> str:
    if isinstance(value, Object):
        return value.text(random)
    if isinstance(value, list):
        return "[" + ", ".join(_text(each, random) for each in value) + "]"
    return json.dumps(value, ensure_ascii=random.random() < 0.5)


def _name(name: str, random: Random) -> str:
    if name and random.random() < 0.02:
        at = random.randrange(len(name))
        if ord(name[at]) < 0x10000:
            return (
                json.dumps(name[:at])[:-1]
                + f"\\u{ord(name[at]):04x}"
                + json.dumps(name[at + 1 :])[1:]
            )
    return json.dumps(name, ensure_ascii=random.random() < 0.5)


def _object(document: Any) -> Any:
    """Turn plain dicts into objects."""
    if isinstance(document, dict):
        return Object([(name, _object(value)) for name, value in document.items()])
    if isinstance(document, list):
        return [_object(each) for each in document]
    return document


# -- Changes --------------------------------------------------------------------------------------


def _objects(value: Any) -> list[Object]:
    found = [value] if isinstance(value, Object) else []
    children = [each for _, each in value.pairs] if isinstance(value, Object) else value
    for each in children if isinstance(children, list) else ():
        found += _objects(each)
    return found


def _folded(name: str, random: Random) -> str:
    """Return a name that Go treats as the same."""
    return random.choice(
        (
            name.upper(),
            name.lower(),
            name[:1].swapcase() + name[1:],
            name.replace("s", "ſ"),
            name.replace("k", "K"),
            name.replace("_", "-"),
            name + " ",
            name.replace("e", "é"),
        )
    )


def _change(document: Any, others: dict[str, list[Any]], random: Random) -> None:
    """Replace one value of a document with another plausible one."""
    target = random.choice(_objects(document))
    if not target.pairs:
        return
    at = random.randrange(len(target.pairs))
    name, value = target.pairs[at]
    other = random.choice([*others.get(name, []), *_SCALARS[: 3 if name in others else None]])
    where = random.randrange(len(target.pairs) + 1)
    match random.randrange(9):
        case 0 | 1:
            target.pairs.insert(where, (name, other))
        case 2:
            target.pairs.insert(where, (_folded(name, random), other))
        case 3:
            target.pairs[at] = (_folded(name, random), value)
        case 4:
            target.pairs[at] = (name, other)
        case 5:
            target.pairs[at] = (name, None)
        case 6:
            del target.pairs[at]
        case 7:
            more = random.choice(list(others))
            target.pairs.insert(where, (more, random.choice(others[more])))
        case _:
            target.pairs.insert(where, (name, value))


def _written(document: Any, others: dict[str, list[Any]], random: Random, chance: float) -> bytes:
    document = _object(document)
    while random.random() < chance:
        _change(document, others, random)
    text = _text(document, random)
    if random.random() < 0.02:
        text = random.choice((text + "{}", text + " ", "\ufeff" + text, text[:-1], text + "x", ""))
    return text.encode("utf-8", "surrogatepass")


# -- Images ---------------------------------------------------------------------------------------


def make_documents(random: Random) -> bytes:
    """Return an input for :func:`fuzz.readers.documents.compare_documents`."""
    form = random.choice(FORMS)
    files: dict[str, bytes] = {}
    if form != "docker-archive":
        files |= _layout(random)
    if form in ("docker-archive", "hybrid"):
        files |= _docker(random, files if form == "hybrid" else None)
    members = [Member(name.encode(), data=data) for name, data in files.items()]
    if form != "oci-layout":
        while random.random() < 0.2:
            _change_members(members, random)
    archive = b"".join(entry(member, "gnu") for member in members) + bytes(1024)
    return bytes([FORMS.index(form)]) + archive


def _config(layers: list[bytes], number: int) -> dict[str, Any]:
    return {
        "created": f"2024-01-0{1 + number}T00:00:00Z",
        "architecture": HOST_ARCHITECTURE,
        "os": "linux",
        "config": {
            "User": str(number),
            "Env": [f"A={number}"],
            "Entrypoint": [f"/{number}"],
            "Cmd": [f"-{number}"],
            "WorkingDir": f"/w{number}",
            "Labels": {"l": str(number)},
            "ExposedPorts": {f"{number}/tcp": {}},
            "Volumes": {f"/v{number}": {}},
            "StopSignal": f"SIG{number}",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [{"created_by": str(number)} for _ in layers],
    }


def _layout(random: Random) -> dict[str, bytes]:
    """Return the files of a layout of two images, one of them named ``t``."""
    stacks = [LAYERS[:2], LAYERS[2:]]
    plain = [_config(stack, number) for number, stack in enumerate(stacks)]
    others: dict[str, list[Any]] = {name: [value] for name, value in plain[1].items()}
    others |= {name: [value] for name, value in plain[1]["config"].items()}
    others |= {"diff_ids": [[digest(LAYERS[2])], [digest(LAYERS[0])], []], "type": ["x"]}
    which = random.randrange(4)  # the document with the most changes
    chances = [0.6 if which == each else 0.05 for each in range(4)]
    configs = [_written(plain[0], others, random, chances[0]), json.dumps(plain[1]).encode()]
    manifests = []
    for number, config in enumerate(configs):
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe(CONFIG, config),
            "layers": [describe(LAYER, layer) for layer in stacks[number]],
        }
        others = _described([LAYERS[0], LAYERS[2], configs[-1]])
        others |= {"config": [describe(CONFIG, configs[-1])], "schemaVersion": [1, 2]}
        others |= {"layers": [[describe(LAYER, each)] for each in LAYERS], "manifests": [[]]}
        chance = chances[1] if number == 0 else 0.0
        manifests.append(_written(manifest, others, random, chance))
    described = [describe(MANIFEST, each) for each in manifests]
    platform = {"architecture": HOST_ARCHITECTURE, "os": "linux"}
    named = {"org.opencontainers.image.ref.name": "t"}
    first: dict[str, Any] = {**described[0], "platform": platform, "annotations": named}
    second: dict[str, Any] = {**described[1], "platform": platform}
    others = _described(manifests) | {"manifests": [[first], [{**second, "annotations": named}]]}
    others |= {"config": [describe(CONFIG, configs[0])], "layers": [[describe(LAYER, LAYERS[0])]]}
    others |= {"annotations": [named, {}], "schemaVersion": [1, 2], "os": ["windows"]}
    others |= {
        "platform": [platform, {"architecture": "arm", "os": "linux"}],
        "architecture": ["arm"],
    }
    others |= {"org.opencontainers.image.ref.name": ["t", "u"]}
    nested: dict[str, bytes] = {}
    if random.random() < 0.3:
        below = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**first}, second]}
        del below["manifests"][0]["annotations"]  # type: ignore[index]
        text = _written(below, others, random, chances[2])
        nested[_place(text)] = text
        listed = [{**describe(INDEX, text), "annotations": named}]
    else:
        listed = random.choice(([first, second], [first], [second, first]))
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    top = _written({"imageLayoutVersion": "1.0.0"}, {"x": [1]}, random, 0.2)
    return {
        "oci-layout": top if random.random() < 0.2 else LAYOUT,
        "index.json": _written(index, others, random, chances[3]),
        **{_place(blob): blob for blob in (*manifests, *configs, *LAYERS)},
        **nested,
    }


def _described(blobs: list[bytes]) -> dict[str, list[Any]]:
    return {
        "mediaType": list(_TYPES),
        "digest": [digest(blob) for blob in blobs],
        "size": [len(blob) for blob in blobs],
        "artifactType": ["x/y", ""],
    }


def _docker(random: Random, layout: dict[str, bytes] | None) -> dict[str, bytes]:
    """Return the files of a docker-archive of one image, with or without those of a layout."""
    stack = LAYERS[:2]
    names = ["0.tar", "1.tar", "2.tar"]
    plain = _config(stack, 0)
    others: dict[str, list[Any]] = {"diff_ids": [[digest(LAYERS[2])]], "type": ["x"]}
    config = _written(plain, others, random, 0.3) if layout is None else json.dumps(plain).encode()
    second = json.dumps(_config(LAYERS[2:], 1)).encode()
    files = dict(zip(names, LAYERS, strict=True)) | {"c.json": config, "d.json": second}
    if layout is not None:
        names = [_place(layer) for layer in LAYERS]
        files = {}
    first = _place(config) if layout is not None else "c.json"
    item = {"Config": first, "RepoTags": ["t:latest"], "Layers": names[:2]}
    other = _place(second) if layout is not None else "d.json"
    others = {
        "Config": [other],
        "Layers": [names[2:], names[:1], names[1::-1]],
        "RepoTags": [["u:1"]],
    }
    return files | {"manifest.json": _written([item], others, random, 0.4)}


def _change_members(members: list[Member], random: Random) -> None:
    """Change a member of the archive: rename it, duplicate it, or replace it with a link."""
    at = random.randrange(len(members))
    member, other = members[at], random.choice(members)
    where = random.randrange(len(members) + 1)
    match random.randrange(5):
        case 0:
            name = random.choice((b"./", b"/", b"x/../", b"")) + member.name
            members[at] = Member(name, data=member.data)
        case 1:
            prefix = random.choice((b"./", b"/", b"", b""))
            members.insert(where, Member(prefix + member.name, data=other.data))
        case 2:
            members.insert(where, Member(member.name, "symlink", target=other.name))
        case 3:
            members.insert(where, Member(member.name, "link", target=other.name))
        case _:
            members[at], members[where - 1] = members[where - 1], members[at]


def _place(blob: bytes) -> str:
    return f"blobs/{digest(blob).replace(':', '/')}"
