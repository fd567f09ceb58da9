"""The study on a tiny model, and its graphs against those of a real build."""

import numpy as np
import onnx
import pytest

from quantizer.build import build
from quantizer.calibration.images import find_images, hold_out
from quantizer.calibration.ranges import RANGE_RULES
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadAnnotations, NoCalibrationImages
from quantizer.model.execution import open_session
from quantizer.model.graph import Graph
from quantizer.model.layout import read_detector
from quantizer.study.calibrated import Calibrated, calibrate, first_and_last
from quantizer.study.settings import BETTER_WEIGHTS, Setting, WeightMethod, settings
from quantizer.study.study import study
from tests.tiny_models import INPUT, SIZE, TINY, save_tiny

SOME = [
    Setting(),
    Setting(8, 8),
    Setting(4, 4),
    Setting(4, None),
    Setting(4, None, method=WeightMethod("mse")),
    Setting(4, None, method=BETTER_WEIGHTS[-1]),
    Setting(None, 4),
    Setting(4, 4, "minmax", symmetric=True),
]


@pytest.fixture(scope="module")
def measured(photos, annotations, tmp_path_factory):
    model = save_tiny(tmp_path_factory.mktemp("study"), "yolov5")
    annotated = AnnotatedDataset(photos, annotations)
    return study(model, photos, annotated, INPUT, 1, SOME, lambda _: None)


@pytest.fixture(scope="module")
def calibrated(photos, tmp_path_factory) -> Calibrated:
    """On the images that a build calibrates on."""
    home = tmp_path_factory.mktemp("calibrated")
    for path in hold_out(find_images(photos))[0]:
        (home / path.name).symlink_to(path)
    detector = read_detector(save_tiny(home, "yolov5"), INPUT)
    return calibrate(detector, home, photos, 1, adaptive=True, progress=lambda _: None)


def values_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_every_setting_is_measured_in_the_given_order(measured):
    assert [result.setting for result in measured.results] == SOME
    assert (measured.model, measured.images, measured.calibration_images) == ("yolov5", 4, 20)
    for result in measured.results:
        assert 0 <= result.accuracy.ap <= 1


def test_the_float_model_is_the_best_and_four_bits_the_worst(measured):
    ap = {bits: measured.of(weights=bits, activations=bits).accuracy.ap for bits in (8, 4)}
    ap["float"] = measured.of().accuracy.ap
    assert ap["float"] > 0.95
    assert ap["float"] >= ap[8] > ap[4]


def test_the_first_and_last_convolutions_stay_float(measured):
    assert set(measured.kept_float) == {"stem", "detect8", "detect16", "detect32"}


@pytest.mark.parametrize("name", TINY)
def test_every_family_has_a_first_and_a_last_convolution(name):
    graph = Graph.of(TINY[name]())
    kept = first_and_last(graph)
    assert {"first convolution", "last convolution"} == set(kept.values())
    assert 2 <= len(kept) < sum(node.op_type == "Conv" for node in graph.nodes)


def test_at_eight_bits_the_simulation_is_the_graph_that_is_built(calibrated, photos, tmp_path):
    folder = tmp_path / "built"
    folder.mkdir()
    config = BuildConfig(
        save_tiny(tmp_path, "yolov5"),
        photos,
        size=SIZE,
        threads=1,
        bias_correction=False,
        keep_float=("stem", "detect*"),
        min_sqnr=0.0,
        runtime="onnxruntime",  # which takes weights of 8 bits on every processor
    )
    build(config, folder, lambda _: None)
    made = onnx.load(folder / "model.qdq.onnx")
    again = calibrated.model(Setting(8, 8))
    assert again.SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_no_weight_exceeds_the_steps_of_its_bits(calibrated, bits):
    steps = values_of(calibrated.model(Setting(bits, bits)))
    whole = calibrated.placement
    for site in whole.weights:
        assert np.abs(steps[f"{site.tensor}/quantized"]).max() <= 2 ** (bits - 1) - 1
    first = steps[f"{whole.weights[0].tensor}/quantized"]
    assert np.abs(first).max() == 2 ** (bits - 1) - 1


@pytest.mark.parametrize("symmetric", [False, True])
def test_no_activation_has_more_values_than_its_bits_allow(calibrated, symmetric):
    whole = calibrated.placement
    quantized = calibrated.model(Setting(None, 4, symmetric=symmetric))
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    model.graph.ClearField("output")
    names = [f"{site.tensor}/dequantized" for site in whole.activations]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = open_session(model, 1)
    image = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32) * 3  # beyond the ranges
    for name, values in zip(names, session.run(names, {"images": image}), strict=True):
        assert len(np.unique(values)) <= 16, name


def test_weights_or_activations_alone(calibrated):
    def counted(setting: Setting) -> list[int]:
        kinds = [node.op_type for node in calibrated.model(setting).graph.node]
        return [kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")]

    plan = calibrated.placement
    assert counted(Setting(4, None)) == [0, len(plan.weights)]
    assert counted(Setting(None, 8)) == [len(plan.activations)] * 2


def test_clipping_at_the_least_error_is_closer_to_the_weights(calibrated):
    graph, whole = calibrated.graph, calibrated.placement
    errors = {}
    for rule in ("minmax", "mse"):
        values = values_of(calibrated.model(Setting(4, None, method=WeightMethod(rule))))
        errors[rule] = sum(
            np.square(
                values[f"{site.tensor}/quantized"].astype(np.float32)
                * values[f"{site.tensor}/scale"].reshape(-1, 1, 1, 1)
                - graph.constant(site.tensor)
            ).sum()
            for site in whole.weights
        )
    assert errors["mse"] < 0.95 * errors["minmax"]


def test_better_weights_bring_the_outputs_closer(calibrated):
    better = [
        calibrated.sqnr(calibrated.model(Setting(4, None, method=method)))
        for method in BETTER_WEIGHTS
    ]
    assert max(better) == better[-1] or max(better) == better[-2]  # those rounded adaptively
    assert better[-1] > calibrated.sqnr(calibrated.model(Setting(4, None))) + 2


def test_more_bits_are_closer_and_the_float_model_is_exact(calibrated):
    found = [calibrated.sqnr(calibrated.model(Setting(bits, bits))) for bits in (4, 6, 8)]
    assert found == sorted(found)
    assert calibrated.sqnr(calibrated.model(Setting())) == 120


def test_the_whole_study_has_every_rule_at_every_width():
    wanted = list(settings())
    assert (
        len(wanted)
        == len(set(wanted))
        == 1 + 3 * (4 * len(RANGE_RULES) + 1 + len(BETTER_WEIGHTS) + 2)
    )
    for bits in (8, 6, 4):
        for rule in RANGE_RULES:
            for symmetric in (False, True):
                assert Setting(bits, bits, rule, symmetric) in wanted
                assert Setting(None, bits, rule, symmetric) in wanted
        assert Setting(bits, None) in wanted


def test_a_folder_without_images_and_missing_annotations_are_errors(photos, tmp_path):
    model = save_tiny(tmp_path, "yolov5")
    (tmp_path / "none").mkdir()
    absent = AnnotatedDataset(photos, tmp_path / "absent.json")
    with pytest.raises(NoCalibrationImages):
        study(model, tmp_path / "none", absent, INPUT, 1, SOME[:1], lambda _: None)
    with pytest.raises(BadAnnotations):
        study(model, photos, absent, INPUT, 1, SOME[:1], lambda _: None)


def test_images_that_cannot_be_decoded_are_named(photos, tmp_path):
    broken = tmp_path / "broken"
    (broken / "deep").mkdir(parents=True)
    (broken / "deep" / "a.jpg").write_bytes(b"not a picture")
    annotated = AnnotatedDataset(photos, tmp_path / "absent.json")
    with pytest.raises(
        NoCalibrationImages,
        match=r"none of the 1 calibration images can be decoded, .*broken/deep/a\.jpg",
    ):
        study(save_tiny(tmp_path, "yolov5"), broken, annotated, INPUT, 1, SOME[:1], lambda _: None)
