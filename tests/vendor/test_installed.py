"""Within it, our modules see the fakes; around it, nothing is changed."""

import sys

import pytest


@pytest.fixture
def speakers(tmp_path, monkeypatch):
    """A module of ours, in a package of ours, that imports both."""
    package = tmp_path / "quantizer_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    source = "import tensorrt as trt\nfrom cuda.bindings import runtime as cudart\n"
    (package / "tensorrt_thing.py").write_text(source)
    (package / "cuda_thing.py").write_text("import cuda.bindings.runtime as cudart\n")
    monkeypatch.syspath_prepend(tmp_path)
    return package.name


def test_our_modules_import_the_fakes_anew(speakers, tensorrt_10, tensorrt_11, cuda_inventory):
    from importlib import import_module

    from tests.vendor.nvidia import nvidia_box

    before = dict(sys.modules)
    for inventory in (tensorrt_10, tensorrt_11):
        with nvidia_box(inventory, cuda_inventory) as box:
            thing = import_module(f"{speakers}.tensorrt_thing")
            assert thing.trt is box.tensorrt
            assert thing.trt.__version__ == inventory.version
            assert thing.cudart is box.cudart
            assert import_module(f"{speakers}.cuda_thing").cudart is box.cudart
        package = import_module(speakers)
        assert not {"tensorrt_thing", "cuda_thing"} & vars(package).keys()
    assert {f"{speakers}.tensorrt_thing", f"{speakers}.cuda_thing"}.isdisjoint(sys.modules)
    for name in ("tensorrt", "cuda", "cuda.bindings", "cuda.bindings.runtime"):
        assert sys.modules.get(name) is before.get(name)


def test_what_was_imported_before_is_back_afterwards(speakers, tensorrt_11, cuda_inventory):
    from importlib import import_module

    from tests.vendor.nvidia import nvidia_box

    earlier = import_module(f"{speakers}.cuda_thing")
    with nvidia_box(tensorrt_11, cuda_inventory) as box:
        within = import_module(f"{speakers}.cuda_thing")
        assert within is not earlier
        assert within.cudart is box.cudart
    assert import_module(f"{speakers}.cuda_thing") is earlier
    assert import_module(speakers).cuda_thing is earlier
    sys.modules.pop(f"{speakers}.cuda_thing")
