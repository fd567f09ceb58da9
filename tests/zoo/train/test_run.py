"""A training run: its samples, its phases and checkpoints, and the teacher's graph in PyTorch."""

import pickle

import numpy as np
import onnx
import pytest

from quantizer.model.float_model import read_float_model
from service.vision.input_size import InputSize
from zoo.train.pack import Pack

torch = pytest.importorskip("torch", reason="the packages for training are not installed")
pytest.importorskip("cv2", reason="the packages for training are not installed")

from zoo.train.network import CLASSES, STRIDES  # noqa: E402
from zoo.train.samples import Batch, Samples  # noqa: E402
from zoo.train.teacher import MAPS, TeacherOutput  # noqa: E402
from zoo.train.torch_graph import TorchGraph  # noqa: E402
from zoo.train.train import Phase, Run, train  # noqa: E402

# PyTorch's other exporter needs another package, and writes another graph.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIZE = 64
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pack of two photos, of which the second is labelled."""
    folder = tmp_path_factory.mktemp("pack")
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((80, 60), (60, 80))]
    places, offset = [], 0
    with (folder / "pixels.u8").open("wb") as file:
        for picture in pictures:
            levels = []
            for level in (picture, picture[::2, ::2]):
                file.write(level.tobytes())
                levels.append((offset, *level.shape[:2]))
                offset += level.size
            places.append(levels)
    np.save(folder / "places.npy", np.array(places))
    (folder / "labels.json").write_text('{"1": [[3, 0.2, 0.2, 0.8, 0.8]]}')
    assert len(Pack.open(folder)) == 2
    return folder


def batches(folder, first=0, workers=0):
    return Samples(folder, SIZE).batches(first, batch=4, labelled=1, workers=workers)


def test_a_sample_depends_on_its_number_only(folder):
    there = batches(folder)
    later = [next(there) for _ in range(2)][1]
    (again, other) = (next(batches(folder, first)) for first in (4, 8))
    assert torch.equal(later.images, again.images)
    assert not torch.equal(later.images, other.images)


def test_other_processes_compose_the_same_samples(folder):
    samples = Samples(folder, SIZE)
    here = next(samples.batches(0, batch=4, labelled=1, workers=0))
    there = next(samples.batches(0, batch=4, labelled=1, workers=1))
    assert torch.equal(here.images, there.images)


def test_another_process_opens_the_pack_itself(folder):
    samples = Samples(folder, SIZE)
    next(samples.batches(0, batch=4, labelled=1, workers=0))
    assert len(pickle.dumps(samples)) < 1000


def test_the_first_samples_of_a_batch_are_labelled(folder):
    batch = next(batches(folder))
    assert batch.images.shape == (4, SIZE, SIZE, 3)
    assert batch.images.dtype == torch.uint8
    assert len(batch.boxes) == 1
    assert batch.boxes[0].shape[1] == 5
    assert batch.inputs().shape == (4, 3, SIZE, SIZE)
    assert batch.inputs().max() <= 1


class Uncertain:
    """A teacher that finds the same weak object everywhere."""

    def predict(self, images):
        count, anchors = len(images), sum((SIZE // stride) ** 2 for stride in STRIDES)
        sides = [SIZE // stride for stride in STRIDES * 2]
        return TeacherOutput(
            torch.zeros(count, anchors, 4),
            torch.full((count, anchors), 0.1),
            torch.full((count, anchors, CLASSES), 0.1),
            tuple(torch.rand(count, c, s, s) for c, s in zip(MAPS.values(), sides, strict=True)),
        )


def phase(samples=16, rate=1e-3) -> Phase:
    return Phase(samples, None, SIZE, batch=4, labelled=1, rate=rate, fade=True, plain=False)


def begun(folder, checkpoint) -> Run:
    """A run of half a phase; its checkpoint is written as if it was interrupted then."""
    run = Run(CPU)
    train(run, phase(8), batches(folder), Uncertain(), checkpoint)
    run.phase, run.progress = repr(phase()), 0.5
    run.save(checkpoint)
    return run


def test_an_interrupted_phase_is_continued_to_its_end(folder, tmp_path):
    first = begun(folder, tmp_path / "run.pt")
    again = Run(CPU)
    again.restore(tmp_path / "run.pt")
    for mine, theirs in zip(again.student.parameters(), first.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    train(again, phase(), batches(folder, again.samples), Uncertain(), tmp_path / "run.pt")
    assert (again.step, again.samples) == (4, 16)


@pytest.mark.parametrize("next_phase", [phase(), phase(rate=2e-3)])
def test_after_a_whole_phase_the_next_one_begins(folder, tmp_path, next_phase):
    run = begun(folder, tmp_path / "run.pt")
    train(run, phase(), batches(folder), Uncertain(), tmp_path / "run.pt")
    train(run, next_phase, batches(folder), Uncertain(), tmp_path / "run.pt")
    assert run.samples == 16 + 16


def test_the_rate_falls_to_a_fiftieth_after_a_warm_up():
    run = Run(CPU)

    def rate(step, progress, fade=True):
        run.step, run.progress = step, progress
        run.set_rate(1.0, fade)
        return run.optimizers[0].param_groups[0]["lr"]

    assert rate(0, 0.0) < 0.02
    assert rate(1000, 0.0) == pytest.approx(1)
    assert rate(1000, 0.5) == pytest.approx(0.51)
    assert rate(1000, 1.0) == pytest.approx(0.02)
    assert rate(1000, 1.0, fade=False) == pytest.approx(1)


def test_a_phase_is_as_long_as_its_samples_or_its_time():
    assert phase(16).share(samples=4, seconds=100.0) == 0.25
    timed = Phase(None, 2.0, SIZE, batch=4, labelled=1, rate=1e-3, fade=True, plain=False)
    assert timed.share(samples=4, seconds=30.0) == 0.25


class Yolo(torch.nn.Module):
    """The operators of a YOLO, as PyTorch exports them."""

    def __init__(self):
        super().__init__()
        self.down = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.deep = torch.nn.Conv2d(8, 8, 5, 1, 2, groups=8)
        self.last = torch.nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = torch.nn.functional.silu(self.down(x))
        pooled = torch.nn.functional.max_pool2d(self.deep(x) + x, 2, 2)
        wide = torch.nn.functional.interpolate(pooled, scale_factor=2.0, mode="nearest")
        y = self.last(torch.cat((wide, x), dim=1))
        return y.flatten(2).permute(0, 2, 1)


def exported(module, path) -> onnx.ModelProto:
    torch.onnx.export(
        module, (torch.rand(1, 3, SIZE, SIZE),), str(path), input_names=["images"],
        output_names=["output"], dynamo=False,
    )  # fmt: skip
    return read_float_model(path, InputSize.of(SIZE)).model


def test_a_graph_in_pytorch_gives_what_was_exported_for_a_whole_batch(tmp_path):
    module = Yolo().eval()
    graph = TorchGraph(exported(module, tmp_path / "yolo.onnx"), ["output"], CPU)
    images = torch.rand(3, 3, SIZE, SIZE)
    (answer,) = graph(images)
    expected = torch.cat([module(image[None]) for image in images])
    assert torch.allclose(answer, expected, atol=1e-5)


def test_an_operator_that_is_not_known_is_named(tmp_path):
    other = exported(torch.nn.Softmax(dim=1), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="PyTorch runs no Softmax here"):
        TorchGraph(other, ["output"], CPU)


def test_a_batch_moves_to_a_device(folder):
    moved = next(batches(folder)).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.images.device.type == moved.boxes[0].device.type == "meta"
