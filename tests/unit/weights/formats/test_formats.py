import subprocess
import sys

import pytest

from checkpoints import HELD
from vitral.catalog.checkpoints import checkpoints
from vitral.errors import UsageError
from vitral.weights import formats
from vitral.weights.formats.base import Format, NotComparableError
from vitral.weights.rename import tables


def test_a_format_is_the_file_of_its_name():
    assert {"google", "timm", "torchvision", "transformers"} <= set(formats.names())
    assert "base" not in formats.names()
    for name in formats.names():
        assert isinstance(formats.named(name), Format)
    with pytest.raises(UsageError, match=r"no format 'base'; --to is vitral, dino, google"):
        formats.named("base")


def test_tables_rows_and_cases_are_of_known_formats():
    known = set(formats.names())
    assert {table.format for table in tables().values()} == {*known, formats.OWN}
    assert known == set(HELD)
    assert {row.format for row in checkpoints()} <= known


def test_every_table_is_written_by_its_format():
    written = {
        formats.named(name).table_for(spec) for name, held in HELD.items() for spec in held.values()
    }
    written |= {formats.named(formats.OWN).table_for(spec) for spec in HELD["google"].values()}
    assert written == set(tables())


def test_a_config_is_of_one_format():
    configs = ({"model_type": "vit"}, {"architecture": "x"}, {"model_type": "x", "architecture": 1})
    for config in configs:
        kinds = [*formats.names(), formats.OWN]
        assert sum(formats.named(name).detect(config) for name in kinds) == 1


def test_a_format_without_configuration_says_so():
    plain = Format()
    assert plain.facts({}) == {} and plain.config_files(None, None) == {}
    assert not plain.detect({"model_type": "vit"})
    assert plain.classes({}, 1000)[0] == "tench" and plain.classes({}, 7) is None
    with pytest.raises(NotComparableError, match="no library"):
        plain.oracle(None, {}, {})


def test_the_list_of_formats_needs_no_torch():
    code = "import sys; from vitral.weights import formats; formats.names(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
