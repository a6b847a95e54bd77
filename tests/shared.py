"""Recordings and photographs that are too large for the repository lie beside it, or nowhere."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = SHARED / "golden"
