import pytest

from service.http.negotiation import choose

OFFERS = ("application/json", "image/jpeg", "image/png")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/jpeg"),
        ("image/*, image/jpeg;q=0.5", "image/png"),
        ("application/json;q=0.2, image/png;q=0.3", "image/png"),
        ("application/json; charset=utf-8; q=0.9, image/png ;q=0.8", "application/json"),
        ("image/png, application/json", "application/json"),
        ("*/*, application/json;q=0, image/jpeg;q=0.0", "image/png"),
        ("image/avif,image/webp,image/*,*/*;q=0.8", "image/jpeg"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;q=high", None),
        ("application/json;q=2", None),
        (",;,", None),
    ],
)
def test_the_best_accepted_offer_is_chosen(accept, chosen):
    assert choose(accept, OFFERS) == chosen
