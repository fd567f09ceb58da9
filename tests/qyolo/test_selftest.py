import json
from dataclasses import replace

import pytest

from quantizer.config import BuildConfig
from qyolo import selftest as module
from qyolo.selftest import Check, selftest
from tests.qyolo.commands import inline
from tests.tiny_models import SIZE, save_tiny
from zoo import bundle


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


def test_boxes_that_differ_from_those_of_the_cpu_fail(config, monkeypatch):
    def blind(detector, pictures):
        found = see(detector, pictures)
        return [each.take([]) for each in found] if len(calls) else calls.append(1) or found

    calls: list[int] = []
    see = module._boxes
    monkeypatch.setattr(module, "_boxes", blind)  # all but the first, the reference, detect nothing
    result = selftest(config, lambda _: None)
    assert not result.passed
    assert not by_name(result.checks)["fp32 finds the boxes of float32 on the CPU"].passed


@pytest.mark.parametrize("passed", [True, False])
def test_the_command_writes_the_report_and_its_exit_code_is_the_result(
    passed, result, tmp_path, monkeypatch
):
    """The bundled detector takes long to build: the result is that of the tiny one."""
    checks = tuple(replace(check, passed=passed) for check in result.checks)
    wanted: list[tuple[BuildConfig, bool]] = []

    def ready(config, progress, paper):
        wanted.append((config, paper))
        return replace(result, checks=checks)

    monkeypatch.setattr(module, "selftest", ready)
    options = ["--paper"] if passed else []
    ran = inline("selftest", "--device", "cpu", "--out", "report.json", *options, cwd=tmp_path)
    assert (ran.code, ran.err) == (0 if passed else 1, "qyolo: wrote report.json\n")
    ((config, paper),) = wanted
    assert (config.model, config.device, paper) == (bundle.model(), "cpu", passed)
    assert json.loads((tmp_path / "report.json").read_text())["passed"] == passed
    for check in checks:
        assert check.name in ran.out
    assert f"openvino: {'passed' if passed else 'FAILED'}" in ran.out
