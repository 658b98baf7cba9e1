"""Data sets as files that tests write."""

import io
import math
import struct

import numpy as np
from command_line import Files
from PIL import Image


def picture(kind: str) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((16, 16), 90).convert("RGB").save(content, kind)
    return content.getvalue()


JPG = picture("jpeg")


FOLDER: Files = {f"d/{split}/{name}/{i}.jpg": JPG for split in ("train", "test") for name in "ab" for i in range(4)}


def idx(*shape: int, fill: int = 0) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes([fill]) * math.prod(shape)


SPLIT = {"shardLengths": ["9"], "numBytes": "9", "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}
SPLITS = [{"name": "train", **SPLIT}, {"name": "test", **SPLIT}]


INFO = {"name": "mnist", "version": "3.0.1", "fileFormat": "tfrecord", "splits": SPLITS}


CORE = "tensorflow_datasets.core.features."


PIXELS = {"shape": {"dimensions": ["28", "28", "1"]}, "dtype": "uint8", "encodingFormat": "png"}


LABEL = {"pythonClassName": f"{CORE}class_label_feature.ClassLabel", "classLabel": {"numClasses": "10"}}


COLUMNS = {"image": {"pythonClassName": f"{CORE}image_feature.Image", "image": PIXELS}, "label": LABEL}


FEATURES = {"pythonClassName": f"{CORE}features_dict.FeaturesDict", "featuresDict": {"features": COLUMNS}}


RNG = np.random.default_rng(3)


def make_folder(root, sizes=((6, 6),)):
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = sizes[i % len(sizes)]
                Image.fromarray(RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


SPLIT = {"shardLengths": ["9"], "numBytes": "9", "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}
