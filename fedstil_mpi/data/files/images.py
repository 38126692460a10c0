"""One image file: its bytes, decoded and resized."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedstil_mpi.data.files import matlab
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import regular_file

LARGEST = 1_000_000_000
"""Bytes of a file."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""By content, whatever the name says: Pillow knows rarer ones, whose decoders nobody looks after."""
BROKEN = OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error, Image.DecompressionBombError
"""By any of these its decoders report broken content."""
MEAN_COLOUR = (124, 116, 104)
"""What stands behind transparent pixels: ImageNet's mean colour, which is 0 where images are normalised."""


def read(path: Path, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3], RGB, as a viewer shows the file: whatever its mode, turned as its EXIF orientation says.

    Of 16 bits the upper 8 are kept; transparent pixels show MEAN_COLOUR. Resized bilinearly with antialiasing, whatever the
    aspect ratio.

    Raises InputError naming the file if it cannot be opened or decoded to its end.
    """
    return decode(contents(path), path, height, width)


def contents(path: Path) -> bytes:
    """The bytes of an image file, or of an image in a MATLAB file. Raises InputError naming it if it cannot be read."""
    try:
        if path.parent.parent.suffix == matlab.SUFFIX and not path.parent.is_dir():
            return matlab.content(path)
        return regular_file(path, "image file", LARGEST, "replace it or move it elsewhere").read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def decode(content: bytes, path: Path, height: int, width: int) -> np.ndarray:
    """What `read` makes of a file's `contents`; `path` is for its message."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            rgb = _as_shown(image)
    except BROKEN as error:
        raise _unreadable(path, error) from error
    return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR))


def _as_shown(image: Image.Image) -> Image.Image:
    """In mode RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey, all but the darkest of which `convert` makes white
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, MEAN_COLOUR), image)
    return image.convert("RGB")


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return InputError(
        f"{path} cannot be read as an image ({reason}): expected a complete image file; replace it or move it elsewhere"
    )
