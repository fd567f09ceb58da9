"""What comes with the package: a detector, pictures to calibrate on, photos to try it with."""

from pathlib import Path
from typing import Final

from quantizer.versions import sha256_of
from zoo.errors import Distrusted

FOLDER: Final = Path(__file__).parent

NAME: Final = "qyolo-nano"
MODEL: Final = FOLDER / "qyolo_nano" / "qyolo-nano.onnx"
CARD: Final = FOLDER / "qyolo_nano" / "CARD.md"
CHECKSUMS: Final = FOLDER / "qyolo_nano" / "checksums.sha256"
CALIBRATION: Final = FOLDER / "calibration"  # listed with their licences in its README.md
SAMPLES: Final = FOLDER / "samples"  # likewise


def model() -> Path:
    """The detector's file; raises Distrusted when it is not the one that was released."""
    expected = CHECKSUMS.read_text().split()[0]
    if (found := sha256_of(MODEL)) != expected:
        raise Distrusted(
            f"{MODEL} has the SHA-256 {found}, {expected} was expected: reinstall qyolo"
        )
    return MODEL
