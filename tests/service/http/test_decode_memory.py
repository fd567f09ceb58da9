from concurrent.futures import ThreadPoolExecutor

from service.vision.image import EncodedImage
from tests.service.live import assert_problem, post, serving
from tests.service.pictures import png


def test_images_wait_for_memory_and_one_that_never_fits_is_refused():
    data, large = png(400, 300), png(600, 600)
    budget = EncodedImage(data, 10**6).cost(drawn=True)
    with serving(decode_memory=budget) as live:
        assert_problem(post(live.client, large), 413, "image-too-large")
        with ThreadPoolExecutor(8) as pool:
            accepts = ("application/json", "image/png") * 8
            sent = [
                pool.submit(post, live.client, data, headers={"Accept": accept})
                for accept in accepts
            ]
            assert {each.result().status_code for each in sent} == {200}
        assert_problem(post(live.client, png(6000, 10)), 422, "image-too-narrow")
