"""One image file: its bytes, decoded and resized."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fedstil_mpi.util.errors import InputError


def read(path: Path, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3], RGB, resized bilinearly with antialiasing, whatever the file's mode and aspect ratio.

    Raises InputError naming the file if it cannot be opened or decoded to its end.
    """
    return decode(contents(path), path, height, width)


def contents(path: Path) -> bytes:
    """The bytes of an image file. Raises InputError naming the file if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def decode(content: bytes, path: Path, height: int, width: int) -> np.ndarray:
    """What `read` makes of a file's `contents`; `path` is for its message."""
    try:
        with Image.open(BytesIO(content)) as image:
            rgb = image.convert("RGB")
    # Pillow's decoders report broken content by any of these.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR))


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return InputError(
        f"{path} cannot be read as an image ({reason}): expected a complete image file; replace or remove it"
    )
