"""Every decoder that bench/jpeg.py compares; imported with the packages of its environment.

Each returns the pixels of a photo, u8[h,w,3] RGB, at 1/factor of its size where its library can
reduce a JPEG while decoding, otherwise at its full size.
"""

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path

import ajpegli
import av
import cv2
import imagecodecs
import numpy as np
import pyvips
import simplejpeg
from kornia_rs import io as kornia
from PIL import Image
from turbojpeg import TJPF_RGB, TurboJPEG

from bench.jpeg import Jpeg
from service.vision.image import Pixels


def decoders(turbojpeg: Path) -> Mapping[str, Callable[[Jpeg], Pixels]]:
    """By name; `turbojpeg` is the library that PyTurboJPEG loads."""
    cv2.setNumThreads(1)
    turbo = TurboJPEG(str(turbojpeg))
    return {
        "simplejpeg": _simplejpeg(),
        "simplejpeg, into one buffer": _simplejpeg_into_buffer(),
        "simplejpeg, fast DCT": _simplejpeg(fastdct=True),
        "simplejpeg, fast DCT and upsampling": _simplejpeg(fastdct=True, fastupsample=True),
        "simplejpeg, by eighths (3/8)": _by_eighths,
        "simplejpeg, never reduced": lambda jpeg: simplejpeg.decode_jpeg(jpeg.data, "RGB"),
        "PyTurboJPEG": lambda jpeg: turbo.decode(
            jpeg.data, TJPF_RGB, scaling_factor=(1, jpeg.factor)
        ),
        "PyTurboJPEG, planes resized, then RGB": _planes(turbo),
        "Pillow": _pillow,
        "OpenCV": _opencv,
        "libvips": _libvips,
        "FFmpeg": _ffmpeg,
        "imagecodecs": lambda jpeg: imagecodecs.jpeg8_decode(jpeg.data, outcolorspace="RGB"),
        "kornia-rs, libjpeg-turbo": lambda jpeg: kornia.decode_image_jpegturbo(jpeg.data, "rgb"),
        "kornia-rs, zune-jpeg": lambda jpeg: kornia.decode_image_jpeg(jpeg.data),
        "ajpegli, jpegli": lambda jpeg: ajpegli.imdecode(jpeg.data, mode="RGB"),
    }


def _simplejpeg(**options: bool) -> Callable[[Jpeg], Pixels]:
    def decode(jpeg: Jpeg) -> Pixels:
        height, width = jpeg.reduced
        return simplejpeg.decode_jpeg(
            jpeg.data, "RGB", min_factor=1, min_height=height, min_width=width, **options
        )

    return decode


def _simplejpeg_into_buffer() -> Callable[[Jpeg], Pixels]:
    memory = np.empty(0, np.uint8)

    def decode(jpeg: Jpeg) -> Pixels:
        nonlocal memory
        height, width = jpeg.reduced
        if memory.size < 3 * height * width:
            memory = np.empty(3 * height * width, np.uint8)
        buffer = memory[: 3 * height * width].reshape(height, width, 3)
        return simplejpeg.decode_jpeg(
            jpeg.data, "RGB", min_factor=1, min_height=height, min_width=width, buffer=buffer
        )

    return decode


def _by_eighths(jpeg: Jpeg) -> Pixels:
    """At the least M/8 of the size that has the pixels of the letterboxed copy."""
    eighths = min(8, ceil(8 / jpeg.target.shrink(jpeg.width, jpeg.height)))
    height, width = (-(-side * eighths // 8) for side in (jpeg.height, jpeg.width))
    return simplejpeg.decode_jpeg(
        jpeg.data, "RGB", min_factor=1, min_height=height, min_width=width
    )


def _planes(turbo: TurboJPEG) -> Callable[[Jpeg], Pixels]:
    """Resizes luma and chroma to the size inside the letterbox; OpenCV converts the result."""

    def decode(jpeg: Jpeg) -> Pixels:
        planes = turbo.decode_to_yuv_planes(jpeg.data, scaling_factor=(1, jpeg.factor))
        size = jpeg.fitted
        resized = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes]
        if len(resized) == 1:
            return cv2.cvtColor(resized[0], cv2.COLOR_GRAY2RGB)
        luma, blue, red = resized
        return cv2.cvtColor(cv2.merge((luma, red, blue)), cv2.COLOR_YCrCb2RGB)

    return decode


def _pillow(jpeg: Jpeg) -> Pixels:
    with Image.open(jpeg.file()) as image:
        image.draft("RGB", jpeg.reduced[::-1])
        return np.asarray(image.convert("RGB"))


def _opencv(jpeg: Jpeg) -> Pixels:
    reduced = {  # with COLOR_RGB they are not grey
        1: cv2.IMREAD_GRAYSCALE,
        2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
        4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
        8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    }[jpeg.factor]
    flags = reduced | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), flags)


def _libvips(jpeg: Jpeg) -> Pixels:
    image = pyvips.Image.new_from_buffer(jpeg.data, "", shrink=jpeg.factor, access="sequential")
    return image.colourspace("srgb").numpy()


def _ffmpeg(jpeg: Jpeg) -> Pixels:
    context = av.CodecContext.create("mjpeg", "r")
    context.thread_count = 1
    context.options = {"lowres": str(jpeg.factor.bit_length() - 1)}
    packet = av.Packet(jpeg.data)
    frames = context.decode(packet) or context.decode(None)
    return frames[0].to_ndarray(format="rgb24")
