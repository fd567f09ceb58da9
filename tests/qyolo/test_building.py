import pytest

from quantizer.errors import BadOption
from qyolo.building import check_target
from service.manifest import write_manifest
from tests.fakes import manifest_of


def test_an_absent_an_empty_and_a_model_folder_may_be_replaced(tmp_path):
    check_target(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    (tmp_path / "empty" / "fp32").mkdir()
    (tmp_path / "empty" / "fp32" / "model.onnx").write_text("engine")
    write_manifest(tmp_path / "empty", manifest_of("fp32"))
    check_target(tmp_path / "empty")


def test_a_folder_with_other_things_may_not(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadOption, match="holds other things"):
        check_target(tmp_path)
    with pytest.raises(BadOption, match="is a file"):
        check_target(tmp_path / "thesis.tex")
