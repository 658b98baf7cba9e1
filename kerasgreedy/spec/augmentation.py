"""What is done to training images at random."""

from typing import Annotated

from pydantic import Field, model_validator

from kerasgreedy.spec.strict import Strict, fault, faults


class RandAugment(Strict):
    """Operations drawn for each image (Cubuk et al. 2019, RandAugment), one after the other.

    Each is one of: nothing, autocontrast, equalize, rotate, solarize, colour, posterize, contrast, brightness, sharpness, shear
    and translate along either axis; all are as likely. What moves the image fills up with grey (128).
    """

    operations: Annotated[int, Field(ge=1, le=14)] = Field(2, description="how many, N in the paper")
    magnitude: float = Field(
        9,
        ge=0,
        le=10,
        description="how strong, M in the paper: at 10 turns of 30 degrees, shears of 0.3, shifts of 0.45 of the side, factors "
        "of 1.9 or 0.1, 4 bits kept, all levels inverted; at 0 nothing of these, and linear between",
    )


class Augment(Strict):
    """Random changes of training images, drawn anew for each image and epoch."""

    pad_crop: Annotated[int, Field(ge=0, le=65536)] = Field(
        0, description="pad by n zeros on each side, cut a random window of the old size"
    )
    random_resized_crop: bool = Field(False, description="cut 8-100 % of the area at a ratio of 3:4 to 4:3 and resize it")
    horizontal_flip: bool = Field(False, description="mirror half of the images")
    rotate: float = Field(0, ge=0, le=180, description="turn by up to so many degrees either way; edges are reflected")
    scale: float = Field(
        0, ge=0, lt=1, description="magnify by a factor from 1 - s to 1 + s, about the centre; edges are reflected"
    )
    colour: float = Field(
        0,
        ge=0,
        le=1,
        description="brightness, contrast and saturation, each by a factor from 1 - c to 1 + c; the image's own mean grey is the "
        "pole of contrast, each pixel's grey that of saturation",
    )
    cutout: int = Field(
        0,
        ge=0,
        le=65536,
        description="a square of so many pixels a side, its centre anywhere in the image, gets the mean colour (DeVries, "
        "Taylor 2017; black with `normalize: unit`)",
    )

    rand_augment: RandAugment | None = Field(
        None, description="a few operations out of fourteen, drawn anew for each image (Cubuk et al. 2019), see below"
    )
    mixup: float = Field(
        0,
        ge=0,
        le=100,
        description="mix each image with the next one of its batch, x = l * x_i + (1 - l) * x_j, and the losses of both labels "
        "alike; l is drawn for each image from Beta(mixup, mixup) (Zhang et al. 2018: 0.1 to 0.4). Not with `augment_views`",
    )

    @property
    def changes(self) -> bool:
        """Whether anything is done to the images."""
        return bool(self.pad_crop or self.random_resized_crop or self.horizontal_flip or self.draws_more)

    @property
    def draws_more(self) -> bool:
        """Whether more random numbers are needed than for crops and flips."""
        return bool(self.rotate or self.scale or self.colour or self.cutout or self.rand_augment or self.mixup)

    @model_validator(mode="after")
    def _one_crop(self) -> "Augment":
        if self.pad_crop and self.random_resized_crop:
            raise faults("Augment", [fault("'pad_crop' and 'random_resized_crop' exclude each other", at=("pad_crop",))])
        return self
