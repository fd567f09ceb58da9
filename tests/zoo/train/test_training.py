"""The training code; needs PyTorch and OpenCV, which only training installs."""

import copy

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="the packages for training are not installed")
pytest.importorskip("cv2", reason="the packages for training are not installed")

from zoo.train.augment import Composer, _moved_boxes, _recolour, draw_weights  # noqa: E402
from zoo.train.export import export  # noqa: E402
from zoo.train.load_onnx import load_onnx  # noqa: E402
from zoo.train.losses import distillation, supervision  # noqa: E402
from zoo.train.muon import orthogonalise  # noqa: E402
from zoo.train.network import Detector, Predictions, cells, decode  # noqa: E402
from zoo.train.pack import Pack  # noqa: E402
from zoo.train.teacher import TeacherOutput  # noqa: E402

# PyTorch's other exporter needs another package, and writes another graph.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIZE = 64
ANCHORS = 8 * 8 + 4 * 4 + 2 * 2


@pytest.fixture(scope="module")
def grid():
    return cells(SIZE)


def made_up(seed: int) -> Predictions:
    random = torch.Generator().manual_seed(seed)
    shapes = ((1, ANCHORS, 4), (1, ANCHORS), (1, ANCHORS, 80))
    return Predictions(*(torch.randn(shape, generator=random) for shape in shapes))


def as_teacher(student: Predictions) -> TeacherOutput:
    return TeacherOutput(student.boxes, student.objectness.sigmoid(), student.classes.sigmoid(), ())


def test_the_network_has_one_anchor_for_each_cell():
    student, features = Detector().eval()(torch.zeros(1, 3, SIZE, SIZE))
    assert student.boxes.shape == (1, ANCHORS, 4)
    assert student.classes.shape == (1, ANCHORS, 80)
    assert [m.shape[-1] for m in (*features.backbone, *features.neck)] == [8, 4, 2, 8, 4, 2]


def test_the_network_has_fewer_than_1_5_million_weights():
    assert sum(weight.numel() for weight in Detector().parameters()) < 1.5e6


def test_boxes_are_decoded_from_their_cell(grid):
    boxes = torch.zeros(1, ANCHORS, 4)
    boxes[0, 9] = torch.tensor([0.5, 0.25, np.log(2.0), np.log(4.0)])  # stride 8, column 1, row 1
    assert decode(boxes, *grid)[0, 9].tolist() == pytest.approx([4.0, -6.0, 20.0, 26.0])


def test_distillation_is_lowest_where_the_student_equals_the_teacher(grid):
    teacher = made_up(1)
    student = Predictions(*(part.clone().requires_grad_() for part in teacher))
    agreed = distillation(student, as_teacher(teacher), *grid)
    agreed.backward()
    for part in student:
        assert part.grad.abs().max() < 1e-4
    for field in range(3):
        parts = list(copy.deepcopy([part.detach() for part in student]))
        parts[field] = parts[field] + 0.3
        assert distillation(Predictions(*parts), as_teacher(teacher), *grid) > agreed


def test_a_teacher_without_detections_lowers_the_objectness(grid):
    teacher = made_up(1)._replace(objectness=torch.full((1, ANCHORS), -12.0))
    quiet = made_up(2)._replace(objectness=torch.full((1, ANCHORS), -9.0))
    loud = made_up(2)._replace(objectness=torch.full((1, ANCHORS), 2.0))
    assert distillation(quiet, as_teacher(teacher), *grid) < 0.1
    assert distillation(loud, as_teacher(teacher), *grid) > 10


def test_supervision_moves_the_boxes_onto_the_labels(grid):
    student = Predictions(
        torch.zeros(1, ANCHORS, 4, requires_grad=True),
        torch.full((1, ANCHORS), -2.0, requires_grad=True),
        torch.full((1, ANCHORS, 80), -2.0, requires_grad=True),
    )
    labels = [torch.tensor([[16.0, 20.0, 20.0, 44.0, 44.0]])]
    optimizer = torch.optim.Adam(student, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        supervision(student, labels, *grid).backward()
        optimizer.step()
    best = int((student.objectness.sigmoid() * student.classes.sigmoid()[..., 16]).argmax())
    assert decode(student.boxes, *grid)[0, best].tolist() == pytest.approx([20, 20, 44, 44], abs=2)
    assert student.objectness[0, best].sigmoid() > 0.8
    assert student.classes[0, best].sigmoid().argmax() == 16
    outside = grid[0][:, 0] > 48
    assert student.objectness[0, outside].sigmoid().max() < 0.05


def test_an_image_without_objects_lowers_the_objectness(grid):
    student = made_up(3)
    student.objectness.requires_grad_()
    supervision(student, [torch.zeros(0, 5)], *grid).backward()
    assert (student.objectness.grad > 0).all()


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_orthogonalised_updates_are_nearly_orthogonal(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.fixture
def board(tmp_path):
    """A pack of one photo: a red box from (0.25, 0.5) to (0.75, 1.0) on blue, and its label."""
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[..., 2] = 200
    picture[100:, 75:225] = (220, 20, 20)
    half = picture[::2, ::2]
    pixels = np.concatenate([picture.ravel(), half.ravel()])
    places = np.array([[[0, 200, 300], [picture.size, 100, 150]]])
    return Pack(pixels, places, {0: np.array([[3, 0.25, 0.5, 0.75, 1.0]], np.float32)})


def test_labels_move_with_their_photo(board):
    composer, seen = Composer(board), 0
    for seed in range(40):
        sample = composer.labelled_sample(np.random.default_rng(seed), SIZE)
        assert sample.image.shape == (SIZE, SIZE, 3)
        for label, left, top, right, bottom in sample.boxes:
            inner = sample.image[
                round(top) + 2 : round(bottom) - 2, round(left) + 2 : round(right) - 2
            ]
            if inner.size:
                seen += 1
                assert label == 3
                red = (inner[..., 0].astype(int) > inner[..., 2]).mean()
                assert red > 0.9
    assert seen > 40


def test_samples_are_the_same_for_the_same_seed_and_vary_otherwise(board):
    composer = Composer(board)
    first, again, other = (
        composer.sample(np.random.default_rng(seed), SIZE).image for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_change_of_colour_keeps_greys_grey_and_the_order_of_brightness():
    greys = np.repeat(np.arange(0, 100, 10, np.uint8), 3).reshape(1, -1, 3)
    made = [_recolour(np.random.default_rng(seed), greys)[0].astype(int) for seed in range(9)]
    for changed in made:
        assert np.ptp(changed, axis=1).max() <= 1
        assert (np.diff(changed[:, 0]) > 0).all()
    assert not np.array_equal(made[0], made[1])


def test_photos_of_rare_classes_are_drawn_more_often_and_empty_ones_less():
    seen = np.zeros((1000, 80), np.float16)
    seen[:400, 0] = 0.9  # frequent
    seen[400:410, 4] = 0.9  # in 1 % of the photos
    seen[0, 4] = 0.9
    made = draw_weights(Pack(np.zeros(0, np.uint8), np.zeros((1000, 2, 3), np.int64), {}, seen))
    assert made[1] == 1
    assert made[405] == pytest.approx((0.05 / 0.011) ** 0.5)
    assert made[0] == made[405]
    assert made[999] == 0.5


def test_without_class_scores_all_photos_have_equal_weights(board):
    assert draw_weights(board).tolist() == [1]


def test_a_box_that_is_mostly_outside_is_dropped():
    labels = np.array([[1, 0.0, 0.0, 0.5, 1.0], [2, 0.4, 0.0, 1.0, 1.0]], np.float32)
    matrix = np.array([[100.0, 0, -45], [0, 100, 0]])  # the photo's left 45 pixels are cut off
    moved = _moved_boxes(labels, matrix, (0, 0, 64, 64))
    assert moved[:, 0].tolist() == [2]


def test_the_exported_model_gives_the_networks_output_for_bgr_bytes(tmp_path):
    torch.manual_seed(0)
    detector = Detector().eval()
    torch.save({"average": detector.state_dict()}, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "made.onnx")
    session = ort.InferenceSession(tmp_path / "made.onnx", providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    bgr = image[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    (answer,) = session.run(None, {"images": bgr})
    with torch.no_grad():
        student, _ = detector(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float() / 255)
    expected = torch.cat(
        (student.boxes, student.objectness.sigmoid()[..., None], student.classes.sigmoid()), dim=2
    )
    assert answer.shape == (1, 8400, 85)
    assert np.allclose(answer, expected.numpy(), atol=1e-3)


def test_an_exported_file_is_loaded_as_the_same_network(tmp_path):
    torch.manual_seed(0)
    trained = Detector()
    with torch.no_grad():
        for _ in range(3):  # so that the batch norms are not the initial ones
            trained(torch.rand(4, 3, SIZE, SIZE))
    torch.save({"average": trained.state_dict()}, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "model.onnx")
    samples = torch.rand(8, 3, SIZE, SIZE)
    again = load_onnx(tmp_path / "model.onnx", samples)
    with torch.no_grad():
        wanted = trained.eval()(samples)[0]
        for mode in (again.eval(), again.train()):  # running and batch statistics agree
            for part, other in zip(mode(samples)[0], wanted, strict=True):
                assert (part - other).abs().max() < 0.02


def test_a_file_of_another_network_is_not_loaded(tmp_path):
    convolution = torch.nn.Conv2d(3, 32, 6, 4)
    other = str(tmp_path / "other.onnx")
    torch.onnx.export(convolution, (torch.rand(1, 3, SIZE, SIZE),), other, dynamo=False)
    with pytest.raises(ValueError, match="1 convolutions"):
        load_onnx(tmp_path / "other.onnx", torch.rand(1, 3, SIZE, SIZE))
