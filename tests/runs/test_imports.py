"""What is imported when, asked of processes of their own."""

import subprocess
import sys

IMPORTS = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")  # filelock's: that it can only lock softly
sys.modules |= {"fcntl": None, "resource": None}
import vitral
for module in pkgutil.walk_packages(vitral.__path__, "vitral."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_every_module_imports_without_what_unix_alone_has() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


TORCHVISION = """
import sys
import numpy as np
from vitral.images.augment import Augment, train_view, transforms
from vitral.specs import ImageSpec

train_view(np.zeros((9, 9, 3), np.uint8), Augment(rotate=5), ImageSpec(size=8), 0)
assert "torchvision" not in sys.modules
try:
    import torchvision  # as a user's own code may have tried
except RuntimeError:
    pass
transforms().RandAugment()
import torchvision
"""


def test_torchvision_comes_late_and_even_where_its_import_failed_before() -> None:
    subprocess.run([sys.executable, "-c", TORCHVISION], check=True)
