"""Variants of MNIST, made when they are opened.

They follow Larochelle, Erhan, Courville, Bergstra and Bengio, *An Empirical Evaluation of Deep Architectures on Problems with
Many Factors of Variation* (ICML 2007): 12,000 training images (their 10,000 and 2,000 for validation) and 50,000 test images,
digits turned by an angle drawn from [0, 2 pi), and backgrounds of noise or of photographs. They are not the files that the
authors published: which digits fall into which split, the angles and the noise are drawn anew, and the photographs are the two
that come with scikit-learn, where the authors used 20 pictures from the internet.
"""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Examples: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int32]]

SEED = 2007  # of its own: a variant is one data set, whatever the recipe's seed
# A patch of a photograph whose shades deviate less than this (of 255) has no texture, and is drawn again, as in the paper.
TEXTURE = 10.0
# Streams of random numbers: both variants with rotation turn the same digit by the same angle.
_ORDER, _ANGLE, _NOISE, _PATCH = 1, 2, 3, 4


def make_variant(
    name: str, images: "NDArray[np.uint8]", labels: "NDArray[np.integer]", train: int, test: int
) -> "tuple[Examples, Examples]":
    """The training and the test split of a variant.

    Args:
        name: `mnist_basic`, `mnist_rotated`, `mnist_random_background`, `mnist_image_background` or
            `mnist_rotated_image_background`.
        images: (n, height, width) all of MNIST, training and test images together, in any order.
        labels: (n,).
        train, test: wanted images; `train + test` must not exceed n.

    Returns:
        Two pairs (images (count, height, width, 1), labels (count,)).
    """
    order = draw_order(images, labels)[: train + test]
    images, classes = images[order], labels[order].astype(np.int32)
    if "rotated" in name:
        images = rotate(images, draw_angles(len(images)))
    if name.endswith("_background"):
        background = draw_noise(images.shape) if "random" in name else draw_patches(images.shape)
        images = np.maximum(images, background)
    images = images[..., None]
    return (images[:train], classes[:train]), (images[train:], classes[train:])


def draw_order(images: "NDArray[np.uint8]", labels: "NDArray[np.integer]") -> "NDArray[np.int64]":
    """A fixed random order of the images that does not depend on the order in which they came.

    The idx files and TFDS hold the same images in different orders; sorted by content first, both give one variant.
    """
    rows = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(len(images), -1)], axis=1)
    by_content = np.argsort(np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0], kind="stable")
    return by_content[_stream(_ORDER).permutation(len(images))]


def draw_angles(count: int) -> "NDArray[np.float64]":
    """An angle for each image, in radians, uniform in [0, 2 pi)."""
    return _stream(_ANGLE).uniform(0.0, 2 * np.pi, count)


def draw_noise(shape: tuple[int, ...]) -> "NDArray[np.uint8]":
    """A shade for each pixel, uniform in 0..255."""
    return _stream(_NOISE).integers(0, 256, shape, dtype=np.uint8)


def rotate(images: "NDArray[np.uint8]", angles: "NDArray[np.float64]") -> "NDArray[np.uint8]":
    """Turns each image about its centre, with bilinear interpolation; what comes from outside is 0.

    The output at y (from the centre) is the input at R y, where R = [[cos a, sin a], [-sin a, cos a]] in (row, column): a
    positive angle turns the picture counter-clockwise as it is seen, with the rows going down.

    Args:
        images: (n, height, width).
        angles: (n,) in radians.
    """
    from scipy import ndimage

    centre = (np.array(images.shape[1:]) - 1) / 2
    turned = np.empty_like(images)
    for index, (image, angle) in enumerate(zip(images, angles, strict=True)):
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]])
        value = ndimage.affine_transform(image.astype(np.float32), matrix, centre - matrix @ centre, order=1)
        turned[index] = np.round(value)
    return turned


def draw_patches(shape: tuple[int, int, int]) -> "NDArray[np.uint8]":
    """(n, height, width) random windows of the photographs, in grey, with texture (see `TEXTURE`)."""
    count, height, width = shape
    photographs = load_photographs()
    rng = _stream(_PATCH)
    patches = np.empty(shape, np.uint8)
    missing = np.arange(count)
    while len(missing):
        which = rng.integers(len(photographs), size=len(missing))
        places = rng.random((len(missing), 2))
        for position, photograph, (down, right) in zip(missing, which, places, strict=True):
            picture = photographs[photograph]
            top, left = int(down * (picture.shape[0] - height + 1)), int(right * (picture.shape[1] - width + 1))
            patches[position] = picture[top : top + height, left : left + width]
        flat = [part for part in np.array_split(missing, len(missing) // 4096 + 1) if len(part)]
        missing = np.concatenate([part[patches[part].std((1, 2)) < TEXTURE] for part in flat])
    return patches


def load_photographs() -> "list[NDArray[np.uint8]]":
    """The two photographs that come with scikit-learn (china.jpg, flower.jpg), each (height, width), as luminance."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    return [np.asarray(Image.fromarray(image).convert("L")) for image in load_sample_images().images]


def _stream(purpose: int) -> np.random.Generator:
    return np.random.default_rng((SEED, purpose))
