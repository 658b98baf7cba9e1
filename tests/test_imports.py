"""The direction of imports, and what the light commands must not load."""

import ast
import subprocess
import sys
import time

import pytest
from conftest import ROOT

PACKAGE = ROOT / "kerasgreedy"
# From the bottom up. A module may import its own layer and the layers below.
LAYERS = [
    {"errors", "files", "pictures"},
    {"nn", "spec"},
    {"pruning", "build", "walk", "data"},
    {"train", "export", "analysis", "reports"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports_of(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kerasgreedy."):
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.module == "kerasgreedy":
            yield from (f"kerasgreedy.{alias.name}" for alias in node.names if (PACKAGE / alias.name).exists())
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("kerasgreedy."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward_only(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for module in imports_of(path):
        other = module.split(".")[1]
        assert RANK[other] <= RANK[own], f"{path.name} imports {module} upward"
        assert not (own == "nn" and other == "spec"), "nn takes plain arguments, not spec objects"
        assert not (own == "reports" and other in ("data", "build", "train")), "reports reads files only"


LIGHT = [
    ["--help"],
    ["train", "--help"],
    ["validate", "model_specs/vgg11_k3.yaml", "recipes/quickstart.yaml"],
    ["schema", "recipe"],
    ["plan", "model_specs/vgg11_k3.yaml"],
    ["summary", "model_specs/vgg11_k3.yaml", "--json"],
    ["summary", "model_specs/vgg16.yaml", "model_specs/vgg11_k3.yaml"],
    ["data", "list"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_do_not_load_tensorflow(arguments):
    program = (
        "import sys, atexit\n"
        "heavy = ('tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib', 'tensorflow_datasets')\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules]))\n"
        f"sys.argv = ['kerasgreedy', *{arguments!r}]\n"
        "from kerasgreedy.cli.main import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("HEAVY []")


def test_light_commands_answer_quickly():
    """The best of five: other work on the machine must not decide a test. Generous against the 0.5 s that are promised."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kerasgreedy", "plan", "vgg11_k3"], capture_output=True, check=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.5


def test_importing_the_package_is_light():
    program = "import sys, kerasgreedy; kerasgreedy.load_spec('vgg16'); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)
