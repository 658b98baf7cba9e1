"""Packaging. Tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'^__version__ = "(.+)"', (here / "kerasgreedy/__init__.py").read_text(), re.M).group(1)

TEST = ["pytest>=8", "pytest-xdist>=3.6", "jsonschema>=4", "cvxpy>=1.5"]
EXPORT = ["tf2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.20"]

setup(
    name="kerasgreedy",
    version=version,
    description="Train networks block by block: YAML model specs, layerwise training, readable and resumable runs",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The shipped specs and recipes stand at the top of the checkout and inside the installed package.
    packages=[*find_packages(include=["kerasgreedy", "kerasgreedy.*"]), "kerasgreedy.model_specs", "kerasgreedy.recipes"],
    package_dir={"kerasgreedy.model_specs": "model_specs", "kerasgreedy.recipes": "recipes"},
    package_data={"kerasgreedy.model_specs": ["*.yaml"], "kerasgreedy.recipes": ["*.yaml"]},
    install_requires=[
        "tensorflow>=2.19",
        "keras>=3.13",
        "tensorflow-datasets>=4.9.7",
        "importlib_resources",  # tensorflow-datasets imports it and does not say so
        "numpy>=1.26",
        "pyyaml>=6",
        "pydantic>=2.10",
        "typer>=0.15",
        "rich>=13",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "matplotlib>=3.8",
        "pillow>=10.1",
        "safetensors>=0.4.5",
        "tensorboard>=2.19",
        "tensorflow-model-optimization>=0.8",
        "tf_keras>=2.19",  # the Keras 2 that it works on
    ],
    extras_require={
        "test": [*TEST, *EXPORT],
        "bench": ["torch>=2.5", "openvino>=2025.0"],
        "export": EXPORT,
        "dev": [*TEST, *EXPORT, "ruff==0.17.5", "mypy==2.4.1", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["kerasgreedy=kerasgreedy.cli.main:main"]},
)
