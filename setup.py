"""Packaging of satkeras. Tool settings are in pyproject.toml, the versions that CI installs in requirements.lock."""

import pathlib

import setuptools

README = pathlib.Path(__file__).parent / "README.md"

EXAMPLES = ["ipykernel>=6.29", "jinja2>=3.1", "jupytext>=1.16", "matplotlib>=3.8", "mlxtend>=0.23", "nbclient>=0.10"]
DATASETS = ["tensorflow-datasets>=4.9.4"]
# In an environment of their own, `make docs`: their pins are in requirements-docs.lock.
DOCS = ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=1.0,<2", "ruff>=0.8"]
DEV = [
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "pyright[nodejs]>=1.1.390",
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "ruff>=0.8",
]

setuptools.setup(
    name="satkeras",
    version="0.1.0",
    description="Low-bit Keras models, trained inside TensorFlow Model Optimization, that ship as full-integer TFLite",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["satkeras*", "tflite_export*"]),
    package_data={"satkeras": ["py.typed"], "tflite_export": ["py.typed"]},
    python_requires=">=3.10",
    # The bounds are versions that were run; tf_keras pins the TensorFlow of its own minor version.
    install_requires=[
        "absl-py>=1.4",
        # Before 2.1 an interpreter cannot be imported beside every TensorFlow of the range (2.20 aborts).
        "ai-edge-litert>=2.1,<3",
        "flatbuffers>=24.3.25",
        "numpy>=1.26",
        "scikit-learn>=1.4,<2",
        "tensorflow>=2.18,<2.22",
        "tensorflow-model-optimization>=0.8,<0.9",
        "tf_keras>=2.18,<2.22",
    ],
    entry_points={"console_scripts": ["satkeras = tflite_export.__main__:run"]},
    extras_require={"examples": EXAMPLES, "datasets": DATASETS, "docs": DOCS, "dev": DEV},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
