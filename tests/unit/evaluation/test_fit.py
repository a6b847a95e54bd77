import numpy as np
import pytest
from features import WIDTH, drawn, several

from vitral.errors import WeightsError
from vitral.evaluation import fit
from vitral.evaluation.fit import Fitted


def test_everything_goes_and_comes_back() -> None:
    held_out = drawn(50, 2)
    fitted = fit.fit("single_label", held_out.logits, held_out.labels)
    assert fitted.calibration is not None and fitted.foreign is None
    assert fitted.arrays() == {}
    fitted = fit.with_foreign(fitted, "single_label", drawn(60, 1), held_out)
    assert {name.partition(".")[0] for name in fitted.arrays()} == {"foreign"}
    back = Fitted.read(fitted.calibration, fitted.arrays(), WIDTH)
    assert back.calibration == fitted.calibration
    assert back.to_dict() == fitted.to_dict()
    assert Fitted.read(None, {}, WIDTH) == Fitted()


def test_several_labels_have_no_calibration() -> None:
    held_out = several(drawn(50, 2))
    fitted = fit.fit("multi_label", held_out.logits, held_out.labels)
    assert fitted == Fitted()
    fitted = fit.with_foreign(fitted, "multi_label", several(drawn(60, 1)), held_out)
    assert fitted.foreign is not None
    best = 1 / (1 + np.exp(-held_out.logits.max(axis=1)))
    assert np.allclose(np.sort(fitted.foreign.confidences), np.sort(best), atol=1e-6)


def test_what_another_version_wrote_and_another_model_had_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"has later, which this version .* vitral fit"):
        Fitted.read(None, {"later.thing": np.ones(2)}, WIDTH)
    fitted = fit.with_foreign(Fitted(), "single_label", drawn(60, 1), drawn(50, 2))
    with pytest.raises(WeightsError, match=r"does not fit the model: .* width than 7\. .* vitral"):
        Fitted.read(None, fitted.arrays(), 7)
