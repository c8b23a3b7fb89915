"""Files at URLs: s3://, gs://, file://, memory:// and whatever else fsspec knows."""

from __future__ import annotations

from pathlib import Path


def is_url(place: str | Path) -> bool:
    """Whether a place that a user named is a URL, not a folder or a file."""
    return "://" in str(place)
