# SPDX-License-Identifier: Apache-2.0
"""`depth_models`: which networks there are, under which licence, what of them is on disk, and which to take. No ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .models import CUSTOM, CheckpointError, ModelError, locate, rows_of
from .models.catalogue import Entry, advice, entries, verify

_HEAD = ("model", "encoder", "what comes out", "parameters", "file", "licence of the weights", "commercial use")


def main(args: list[str] | None = None) -> int:
    """List, download, verify, or advise."""
    parser = argparse.ArgumentParser(
        prog="depth_models", description="Networks: sizes, licences, what is on disk, which to take."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="all of them (the default)").add_argument(
        "--markdown", action="store_true", help="as docs/models.md has it"
    )
    download = actions.add_parser(
        "download", help="fetch the weights of one; on a robot without a network, set checkpoint instead"
    )
    download.add_argument("model")
    download.add_argument("encoder", nargs="?", default="")
    download.add_argument("--allow-noncommercial", action="store_true", help="accept weights that forbid commercial use")
    check = actions.add_parser("verify", help="check what is on disk, or one file")
    check.add_argument("--file", type=Path, help="a checkpoint of --model, or one that depth_finetune wrote")
    check.add_argument("--model", default=CUSTOM)
    check.add_argument("--encoder", default="")
    which = actions.add_parser("recommend", help="which to take")
    which.add_argument("--use", choices=("indoor", "outdoor"), default="")
    which.add_argument("--computer", choices=("cpu", "jetson", "gpu"), default="")
    which.add_argument("--commercial", action="store_true", help="only what allows commercial use")
    which.add_argument("--markdown", action="store_true", help="as docs/models.md has it")
    options = parser.parse_args(args)
    try:
        if options.action == "download":
            return _download(options)
        if options.action == "verify":
            return _verify(options)
        if options.action == "recommend":
            return _recommend(options)
        return _list(getattr(options, "markdown", False))
    except (ModelError, OSError) as error:
        print(f"depth_models: {error}", file=sys.stderr)
        return 2


def _list(markdown: bool) -> int:
    rows = [_row(entry) for entry in entries()]
    if markdown:
        print(_markdown([*_HEAD, "from"], [[*row, f"`{entry.source}`"] for row, entry in zip(rows, entries())]))
        return 0
    on_disk = ["yes" if entry.on_disk() else "no" for entry in entries()]
    print(_columns([*_HEAD, "on disk"], [[*row, here] for row, here in zip(rows, on_disk)]), end="\n\n")
    for entry in entries():
        if entry.weights and entry.weights.remark:
            print(f"{entry.name}/{entry.encoder}: {entry.weights.remark}")
    print("custom: a network of your own, which depth_finetune wrote; set checkpoint to its file")
    return 0


def _row(entry: Entry) -> list[str]:
    size = f"{entry.weights.size_mb} MB" if entry.weights else "none published"
    commercial = "yes" if entry.commercial else "no"
    return [entry.name, entry.encoder, entry.output, f"{entry.parameters() / 1e6:.1f} M", size, entry.licence, commercial]


def _download(options: argparse.Namespace) -> int:
    path = locate(options.model, options.encoder, allow_noncommercial=options.allow_noncommercial)
    row, _, encoder = rows_of(options.model, options.encoder)
    print(f"{options.model}/{encoder}, licence of the weights: {row.licence(encoder)}\n{path}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    """1 if a file is not what it should be."""
    if not options.file:
        return max(_verified(entry, path) for entry in entries() if (path := entry.on_disk()))
    file = options.file.expanduser()
    if not file.is_file():
        raise CheckpointError(f"checkpoint '{file}' does not exist or is not a file")
    try:
        row, sizes, encoder = rows_of(options.model, options.encoder, str(file))
        locate(options.model, options.encoder, str(file), allow_noncommercial=True)  # a name that says otherwise
    except CheckpointError as error:
        print(f"{options.model}: BAD: {error}")
        return 1
    return _verified(Entry(options.model, encoder, row, sizes, None), file)


def _verified(entry: Entry, path: Path) -> int:
    try:
        print(f"{entry.name}/{entry.encoder}: good: {verify(entry, path)}\n  {path}")
    except CheckpointError as error:
        print(f"{entry.name}/{entry.encoder}: BAD: {error}")
        return 1
    return 0


def _recommend(options: argparse.Namespace) -> int:
    found = advice(options.use, options.computer, options.commercial)
    rows = [
        [
            one.use,
            one.computer,
            "yes" if one.commercial else "no",
            " ".join(f"{k}:={v}" for k, v in one.settings.items()),
            one.why,
        ]
        for one in found
    ]
    head = ["use", "computer", "commercial use", "parameters", "why"]
    if options.markdown:
        print(_markdown(head, [[*row[:3], f"`{row[3]}`", row[4]] for row in rows]))
    else:
        print(_columns(head, rows) if rows else "nothing fits all of that: leave one of the conditions out")
    return 0


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (head, *rows))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
