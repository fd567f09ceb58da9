import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantizer.errors import BadAnnotations
from quantizer.evaluation.accuracy import Evaluation, evaluate
from service.errors import BadModelFolder, ServiceError
from service.progress import Progress

Coco = dict[str, Any]


@pytest.fixture(scope="module")
def coco(annotations) -> Coco:
    """Annotations of four photos, the best boxes of fp32 itself."""
    return json.loads(annotations.read_text())


@pytest.fixture
def measure(tiny_folder, photos, tmp_path):
    """Evaluates the tiny model on the photos with this content of the annotation file."""

    def run(content: object, images: Path = photos, folder: Path = tiny_folder) -> Evaluation:
        path = tmp_path / "annotations.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return evaluate(folder, images, path, 1, lambda _: None)

    return run


def without(coco: Coco, field: str) -> Coco:
    boxes = [{k: v for k, v in box.items() if k != field} for box in coco["annotations"]]
    return coco | {"annotations": boxes}


def test_an_engine_that_ranks_the_annotated_boxes_first_has_an_ap_of_one(measure, coco, capsys):
    result = measure(coco)
    assert (result.model, result.images) == ("yolov5", 4)
    fp32 = result.variants["fp32"]
    assert (fp32.ap, fp32.ap50) == pytest.approx((1.0, 1.0), abs=0.02)
    assert 0 < result.variants["int8"].ap50 <= 1
    assert result.agreement_with_fp32.keys() == result.variants.keys() - {"fp32"}
    assert result.agreement_with_fp32["int8"].images == 4
    assert capsys.readouterr() == ("", "")  # pycocotools prints


def test_every_annotated_class_has_its_own_accuracy(measure, coco):
    classes = measure(coco).variants["fp32"].classes
    names = {category["id"]: category["name"] for category in coco["categories"]}
    counts = Counter(names[box["category_id"]] for box in coco["annotations"])
    assert {name: found.objects for name, found in classes.items()} == counts
    for found in classes.values():
        assert (found.ap, found.ap50) == pytest.approx((1.0, 1.0), abs=0.05)


def test_boxes_that_are_not_annotated_have_an_ap_of_zero(measure, coco):
    elsewhere = [box | {"bbox": [0, 0, 1, 1]} for box in coco["annotations"]]
    for boxes in (elsewhere, []):
        assert measure(coco | {"annotations": boxes}).variants["fp32"].ap == 0


def test_classes_that_are_no_category_do_not_count(measure, coco):
    known = [category for category in coco["categories"] if category["name"] != "bird"]
    kept = [box for box in coco["annotations"] if box["category_id"] != 30]
    result = measure(coco | {"categories": known, "annotations": kept})
    assert result.variants["fp32"].ap == pytest.approx(1.0, abs=0.02)


def test_progress_counts_the_images(tiny_folder, photos, annotations):
    steps: list[Progress] = []
    evaluate(tiny_folder, photos, annotations, 1, steps.append)
    assert [(step.done, step.total) for step in steps] == [(done, 4) for done in range(5)]


EMPTY = {"images": [], "categories": [], "annotations": []}
BAD: dict[str, Callable[[Coco], object]] = {
    "no JSON": lambda _: "{",
    "not an object": lambda _: "[1, 2]",
    "an empty object": lambda _: {},
    "no images": lambda _: {"categories": [], "annotations": []},
    "images that are no list": lambda _: EMPTY | {"images": 5},
    "images without names": lambda _: EMPTY | {"images": [{"id": 1}]},
    "an annotation without fields": lambda _: EMPTY | {"annotations": [{"id": 1}]},
    "no bbox": lambda coco: without(coco, "bbox"),
    "no category_id": lambda coco: without(coco, "category_id"),
    "no image_id": lambda coco: without(coco, "image_id"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_file_that_is_not_coco_json_is_refused(content, measure, coco):
    with pytest.raises(BadAnnotations):
        measure(content(coco))


def test_a_missing_file_and_missing_images_are_named(tiny_folder, photos, measure, coco, tmp_path):
    with pytest.raises(BadAnnotations, match=r"absent\.json"):
        evaluate(tiny_folder, photos, tmp_path / "absent.json", 1, lambda _: None)
    records = [*coco["images"], {"id": 99, "file_name": "absent.jpg", "height": 1, "width": 1}]
    with pytest.raises(BadAnnotations, match=r"1 of 5 .* absent\.jpg"):
        measure(coco | {"images": records})


def test_categories_without_a_class_of_the_model_are_refused(measure, coco):
    strange = [category | {"name": f"strange {category['id']}"} for category in coco["categories"]]
    with pytest.raises(BadAnnotations, match=r"cat, dog, bird.*strange 10"):
        measure(coco | {"categories": strange})


def test_an_undecodable_image_and_a_folder_without_a_model_are_errors(measure, coco, tmp_path):
    for record in coco["images"]:
        (tmp_path / record["file_name"]).write_bytes(b"no image")
    with pytest.raises(ServiceError):
        measure(coco, images=tmp_path)
    with pytest.raises(BadModelFolder):
        measure(coco, folder=tmp_path)
