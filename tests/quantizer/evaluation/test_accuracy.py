import json
from collections import Counter
from pathlib import Path

import pytest

from quantizer.errors import BadAnnotations
from quantizer.evaluation.accuracy import Evaluation, evaluate
from service.errors import BadModelFolder, ServiceError
from service.progress import Progress


def measured(folder: Path, images: Path, annotations: Path) -> Evaluation:
    return evaluate(folder, images, annotations, 1, lambda _: None)


def written(folder: Path, content: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_engine_that_finds_the_annotated_boxes_first_has_an_ap_of_one(
    tiny_folder, photos, truth, tmp_path
):
    result = measured(tiny_folder, photos, written(tmp_path, truth))
    assert (result.model, result.images) == ("yolov5", 4)
    assert result.variants["fp32"].ap == pytest.approx(1.0, abs=0.02)
    assert result.variants["fp32"].ap50 == pytest.approx(1.0, abs=0.02)
    assert 0 < result.variants["int8"].ap50 <= 1
    assert result.agreement_with_fp32.keys() == result.variants.keys() - {"fp32"}
    assert result.agreement_with_fp32["int8"].images == 4


def test_every_annotated_class_is_judged_on_its_own(tiny_folder, photos, truth, tmp_path):
    classes = measured(tiny_folder, photos, written(tmp_path, truth)).variants["fp32"].classes
    names = {category["id"]: category["name"] for category in truth["categories"]}
    counts = Counter(names[box["category_id"]] for box in truth["annotations"])
    assert {name: found.objects for name, found in classes.items()} == counts
    for found in classes.values():
        assert found.ap == pytest.approx(1.0, abs=0.05)
        assert found.ap50 == pytest.approx(1.0, abs=0.05)


def test_boxes_that_nobody_annotated_have_an_ap_of_zero(tiny_folder, photos, truth, tmp_path):
    elsewhere = [box | {"bbox": [0, 0, 1, 1], "area": 1} for box in truth["annotations"]]
    result = measured(tiny_folder, photos, written(tmp_path, truth | {"annotations": elsewhere}))
    assert result.variants["fp32"].ap == 0


def test_images_without_any_annotation_count_as_zero(tiny_folder, photos, truth, tmp_path):
    result = measured(tiny_folder, photos, written(tmp_path, truth | {"annotations": []}))
    assert result.variants["fp32"].ap == 0


def test_only_the_classes_that_the_annotations_know_are_judged(
    tiny_folder, photos, truth, tmp_path
):
    known = [category for category in truth["categories"] if category["name"] != "bird"]
    kept = [box for box in truth["annotations"] if box["category_id"] != 30]
    content = truth | {"categories": known, "annotations": kept}
    result = measured(tiny_folder, photos, written(tmp_path, content))
    assert result.variants["fp32"].ap == pytest.approx(1.0, abs=0.02)


def test_progress_counts_the_images(tiny_folder, photos, truth, tmp_path):
    steps: list[Progress] = []
    evaluate(tiny_folder, photos, written(tmp_path, truth), 1, steps.append)
    assert [(step.done, step.total) for step in steps] == [(done, 4) for done in range(5)]


def test_nothing_is_printed(tiny_folder, photos, truth, tmp_path, capsys):
    measured(tiny_folder, photos, written(tmp_path, truth))
    assert capsys.readouterr() == ("", "")


BAD = {
    "no JSON": "{",
    "not an object": "[1, 2]",
    "no images": {"categories": [], "annotations": []},
    "an annotation of nothing": {"images": [], "categories": [], "annotations": [{"id": 1}]},
    "images without names": {"images": [{"id": 1}], "categories": [], "annotations": []},
    "images that are no list": {"images": 5, "categories": [], "annotations": []},
    "nothing": {},
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_coco_json_is_refused(content, tiny_folder, photos, tmp_path):
    with pytest.raises(BadAnnotations):
        measured(tiny_folder, photos, written(tmp_path, content))


@pytest.mark.parametrize("field", ["bbox", "category_id", "image_id"])
def test_annotations_that_lack_a_field_are_refused(field, tiny_folder, photos, truth, tmp_path):
    boxes = [{k: v for k, v in box.items() if k != field} for box in truth["annotations"]]
    with pytest.raises(BadAnnotations):
        measured(tiny_folder, photos, written(tmp_path, truth | {"annotations": boxes}))


@pytest.mark.parametrize("field", ["iscrowd", "area"])
def test_fields_that_many_tools_leave_out_are_filled_in(
    field, tiny_folder, photos, truth, tmp_path
):
    boxes = [{k: v for k, v in box.items() if k != field} for box in truth["annotations"]]
    result = measured(tiny_folder, photos, written(tmp_path, truth | {"annotations": boxes}))
    assert result.variants["fp32"].ap == pytest.approx(1.0, abs=0.02)


def test_a_missing_file_is_refused(tiny_folder, photos, tmp_path):
    with pytest.raises(BadAnnotations, match=r"absent\.json"):
        measured(tiny_folder, photos, tmp_path / "absent.json")


def test_missing_images_are_counted_and_one_is_named(tiny_folder, photos, truth, tmp_path):
    records = [*truth["images"], {"id": 99, "file_name": "absent.jpg", "height": 1, "width": 1}]
    with pytest.raises(BadAnnotations, match=r"1 of 5 .* absent\.jpg"):
        measured(tiny_folder, photos, written(tmp_path, truth | {"images": records}))


def test_categories_of_which_the_model_knows_none_are_refused(tiny_folder, photos, truth, tmp_path):
    strange = [category | {"name": f"strange {category['id']}"} for category in truth["categories"]]
    with pytest.raises(BadAnnotations, match=r"cat, dog, bird.*strange 10"):
        measured(tiny_folder, photos, written(tmp_path, truth | {"categories": strange}))


def test_an_image_that_cannot_be_decoded_is_an_error(tiny_folder, truth, tmp_path):
    for record in truth["images"]:
        (tmp_path / record["file_name"]).write_bytes(b"no image")
    with pytest.raises(ServiceError):
        measured(tiny_folder, tmp_path, written(tmp_path, truth))


def test_a_folder_that_is_no_model_is_an_error(photos, truth, tmp_path):
    with pytest.raises(BadModelFolder):
        measured(tmp_path, photos, written(tmp_path, truth))
