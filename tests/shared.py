"""Recordings and photographs that are too large for the repository lie beside it, or nowhere."""

import os
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(os.environ.get("VITRAL_GOLDEN", SHARED / "golden"))
