"""``ociroot inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import in_a_line, opened_source, print_json, size
from .options import PATH, image_options

if TYPE_CHECKING:
    from .. import Image, Listing
    from .options import Choice

__all__ = ["inspect"]


@click.command(cls=Command)
@click.argument("image", type=PATH)
@image_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def inspect(image: str, as_json: bool, choice: Choice) -> None:
    """List the images in IMAGE, and show configuration, layers and history of the selected one.

    Only documents are read and verified; nothing is decompressed. If the selection is ambiguous,
    only the list is shown.

    The JSON document has `form`, `images`, `others` (attestations, artifacts, missing items) and
    `image`: null, or the selected one with `config`, `layers`, `history`, `chain_ids`, `image_id`.

    \b
    Examples:
      ociroot inspect app.tar
      ociroot inspect --platform linux/arm64 layout/
      ociroot inspect --json app.tar | jq -r '.image.layers[].diff_id'
    """  # noqa: D301
    from .. import UsageError, printable

    with opened_source(image, choice) as source:
        listing = source.listing()
        chosen: Image | None = None
        try:
            if listing.images or any(other.is_unreadable for other in listing.others):
                chosen = source.image(choice.selector)
        except UsageError as error:
            if choice.is_named or source.ref:
                raise
            click.echo(f"ociroot: {error}", err=True)
        about = _about(chosen) if chosen is not None else None
        form = source.form
    document = {"form": form, **_listed(listing), "image": about}
    if as_json:
        print_json(document)
        return
    click.echo(f"{printable(image)}: {form}")
    for each in document["images"]:
        names = ", ".join(printable(name) for name in each["names"]) or "(no name)"
        click.echo(f"  {each['platform']:16} {each['digest']}  {size(each['size']):>8}  {names}")
    for each in document["others"]:
        of = f" of {printable(each['subject'])}" if each["subject"] else ""
        click.echo(f"  {printable(each['kind'])}{of} {each['digest']}")
    if about is not None:
        _show(about)


def _listed(listing: Listing) -> dict[str, Any]:
    images = [
        {
            "names": list(found.names),
            "platform": str(found.platform),
            "digest": str(found.digest),
            "image_id": str(found.image_id),
            "size": found.size,
        }
        for found in listing.images
    ]
    others = [
        {
            "kind": other.kind,
            "digest": other.digest,
            "size": other.size,
            "subject": other.subject,
            "names": list(other.names),
        }
        for other in listing.others
    ]
    return {"images": images, "others": others}


def _plain(struct: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(struct)


def _about(image: Image) -> dict[str, Any]:
    """Return the JSON object of the selected image."""
    return {
        "digest": str(image.digest),
        "image_id": str(image.image_id),
        "names": list(image.names),
        "platform": str(image.platform),
        "config": _plain(image.config),
        "layers": [
            {
                "layer": layer.number,
                "digest": str(layer.digest) if layer.digest is not None else None,
                "diff_id": str(layer.diff_id),
                "media_type": layer.media_type,
                "compression": layer.compression,
                "size": layer.size,
                # Unknown for a compressed layer before decompression.
                "unpacked_size": layer.size if layer.compression == "none" else None,
            }
            for layer in image.layers
        ],
        "history": (
            {**_plain(item), "layer": number} for item, number in image.config.history_of_layers()
        ),
        "chain_ids": [str(each) for each in image.config.chain_ids],
    }


def _show(about: dict[str, Any]) -> None:
    from .. import Digest, printable

    parameters = about["config"].get("config", {})
    click.echo(f"\n{about['platform']}  image ID {about['image_id']}")
    rows = [("Created", about["config"].get("created", ""))]
    for name, value in parameters.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}={v}" if v else k for k, v in value.items())
        elif isinstance(value, list | tuple):
            value = "\n".join(value) if name == "Env" else " ".join(map(repr, value))
        rows.append((name, str(value)))
    for name, value in rows:
        for number, line in enumerate(value.split("\n") if value else ()):
            click.echo(f"  {'' if number else printable(name):13} {printable(line)}")
    click.echo("\nLayers and history, base first: size, digest, created by; - without a layer")
    # The history may be missing or incomplete.
    history = list(about["history"])
    made = {item["layer"] for item in history}
    unmade = [{"layer": each["layer"]} for each in about["layers"] if each["layer"] not in made]
    for item in [*history, *unmade]:
        made_by = in_a_line(item.get("created_by") or item.get("comment") or "")
        if item["layer"] is None:
            click.echo(f"  - {made_by}".rstrip())
            continue
        layer = about["layers"][item["layer"] - 1]
        packed = f"{size(layer['size'])} {layer['compression']}"
        digest = Digest.parse(layer["digest"] or layer["diff_id"]).short
        click.echo(f"{layer['layer']:3} {packed:>15}  {digest}  {made_by}".rstrip())
    click.echo("\nDigest, diff_id and media type of each layer")
    for layer in about["layers"]:
        place = f"{layer['layer']:3}"
        if layer["digest"] is not None:
            click.echo(f"{place} {layer['digest']}")
            place = "   "
        click.echo(f"{place} {layer['diff_id']}  {printable(layer['media_type'])}".rstrip())
