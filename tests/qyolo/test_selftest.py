import json

import pytest

from quantizer.config import BuildConfig
from qyolo import selftest as module
from qyolo.cli.tables import show_selftest
from qyolo.selftest import Check, selftest
from tests.qyolo.commands import qyolo
from tests.tiny_models import SIZE, save_tiny


@pytest.fixture(scope="module")
def config(photos, tmp_path_factory) -> BuildConfig:
    model = save_tiny(tmp_path_factory.mktemp("model"), "yolov5")
    return BuildConfig(model, photos, size=SIZE, threads=1, runtime="openvino")


@pytest.fixture(scope="module")
def result(config):
    return selftest(config, lambda _: None)


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_every_variant_is_compared_with_float32_and_with_itself(result):
    checks = by_name(result.checks)
    for variant in result.report.ms:
        assert f"{variant} finds the boxes of float32 on the CPU" in checks
        assert checks[f"{variant} repeats its output"].passed
    assert checks["fp32 finds the boxes of float32 on the CPU"].passed
    assert checks["int8 runs on int8 kernels"].passed


def test_the_report_holds_the_hardware_the_checks_and_the_build(result):
    report = json.loads(result.to_json())
    assert report["passed"] == all(check["passed"] for check in report["checks"])
    assert report["runtime"] == "openvino"
    assert report["hardware"]["cpu"]["model"]
    assert report["report"]["ms"].keys() == result.report.ms.keys()


def test_boxes_that_differ_from_those_of_the_cpu_fail(config, monkeypatch, capsys):
    def blind(detector, pictures):
        found = see(detector, pictures)
        return [each.take([]) for each in found] if len(calls) else calls.append(1) or found

    calls: list[int] = []
    see = module._boxes
    monkeypatch.setattr(module, "_boxes", blind)  # all but the first, the reference, see nothing
    result = selftest(config, lambda _: None)
    assert not result.passed
    assert not by_name(result.checks)["fp32 finds the boxes of float32 on the CPU"].passed
    show_selftest(result)
    assert "FAILED" in capsys.readouterr().out


def test_without_the_device_nothing_is_written(tmp_path):
    ran = qyolo("selftest", "--device", "gpu", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert ran.code == 2
    assert "--device gpu" in ran.err
    assert list(tmp_path.iterdir()) == []
