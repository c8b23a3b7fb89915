"""Files at URLs: s3://, gs://, file://, memory:// and whatever else fsspec knows."""

from __future__ import annotations

from pathlib import Path


def is_url(place: str | Path) -> bool:
    """Whether a place that a user named is a URL, not a folder or a file."""
    return "://" in str(place)


def is_relative(url: str | Path) -> bool:
    """Whether a URL of a file begins nowhere: `file://runs/demo` is another place in each folder that it is used in."""
    kind, _, rest = str(url).partition("://")
    return kind in ("file", "local") and not rest.startswith("/")
