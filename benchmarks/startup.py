"""How long `vitral --help` takes, beside an empty Python and beside importing torch.

    python benchmarks/startup.py

Target: at most 0.4 s, and torch not imported.
"""

import subprocess
import sys
import time
from pathlib import Path

from record import spread, write

ROUNDS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "vitral --help": [str(Path(sys.executable).with_name("vitral")), "--help"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if round_:  # the first warms the disk cache
                seconds[name].append(time.perf_counter() - started)
    figures = {name: spread(values) for name, values in seconds.items()}
    for name, figure in figures.items():
        print(f"{name:26} {figure['median']:.3f} s  ({figure['min']:.3f} to {figure['max']:.3f})")
    code = "import sys, vitral.cli; sys.exit('torch' in sys.modules)"
    without_torch = subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    print(f"torch imported: {'no' if without_torch else 'YES'}")
    print(write("startup", {"seconds": figures, "without_torch": without_torch}))


if __name__ == "__main__":
    main()
