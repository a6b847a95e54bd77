from pathlib import Path

from vitral.catalog.checkpoints import labels
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats import google


def test_an_npz_file_says_nothing_of_itself():
    assert google.format.facts({}) == {}
    assert google.format.classes({}, 1000) == labels("imagenet-1k")
    assert google.format.classes({}, 21843) is None
    images = google.format.preprocessing(Source(path=Path("B_16.npz"), tensors={}), (224, 384))
    assert images.size == (224, 384)
    assert (images.fit, images.mean, images.std) == ("squash", (0.5,) * 3, (0.5,) * 3)
    assert google.format.config_files(None, None) == {}
