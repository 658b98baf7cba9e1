"""The door of files beside the SavedModel: what each format is called, and what writes it. Imports no TensorFlow."""

from kerasgreedy.spec.doors import Choice, Names

_HOME = "kerasgreedy.export.formats"
FORMATS = Names(
    "formats",
    {
        "keras": Choice(f"{_HOME}:KerasFile"),
        "tflite": Choice(f"{_HOME}:LiteFloat"),
        "tflite_float16": Choice(f"{_HOME}:LiteFloat16"),
        "tflite_int8": Choice(f"{_HOME}:LiteInt8"),
        "onnx": Choice(f"{_HOME}:OnnxFile"),
    },
)
