"""Whatever comes from outside ends in one line and an exit code: streams, settings of other programs, devices, clusters."""

import errno
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from kerasgreedy.cli import options, outermost, output, workers
from kerasgreedy.errors import Diverged, InputError, printable
from kerasgreedy.files import open_regular
from kerasgreedy.nn import backend
from kerasgreedy.runs import cluster
from kerasgreedy.runs.devices import _names

RUN = [sys.executable, "-m", "kerasgreedy"]


def started(arguments, **more):
    return subprocess.run([*RUN, *arguments], text=True, cwd=ROOT, timeout=120, **{"capture_output": True, **more})


# Streams.


@pytest.mark.parametrize("arguments", [["summary", "vgg11_k3"], ["summary", "vgg11_k3", "--json"], ["--help"]])
def test_a_full_standard_output_is_said(arguments):
    with open("/dev/full", "w") as full:
        done = started(arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and done.stderr.splitlines() == ["error: standard output, or a file: No space left on device"]


def test_a_full_standard_error_ends_nothing():
    with open("/dev/full", "w") as full:
        done = started(["summary", "vgg11_k3", "--json"], capture_output=False, stdout=subprocess.PIPE, stderr=full)
        wrong = started(["summary", "vgg99"], capture_output=False, stdout=subprocess.PIPE, stderr=full)
    assert done.returncode == 0 and json.loads(done.stdout)["name"] == "vgg11_k3"
    assert wrong.returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    """A file that is opened later must not become standard output or error: what is printed would stand in it."""
    command = f"{' '.join(map(str, RUN))} validate vgg11_k3 {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "fault" not in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_goes_away():
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(RUN)} schema recipe | head -1; echo ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[0] == "{" and done.stdout.split()[1] == "0" and done.stderr == ""


def test_names_that_a_terminal_would_obey_are_spelled_out():
    done = started(["summary", "a\x1b[31m\u202eb.yaml"])
    assert done.returncode == 2 and "\x1b" not in done.stderr and "\\x1b[31m\\u202eb" in done.stderr
    done = started(["no\x1bsuch"])
    assert done.returncode == 2 and "\x1b" not in done.stderr
    assert printable("é漢\u200cx\n\u2066") == "é漢\u200cx\n\\u2066"


def test_nothing_but_the_printers_prints():
    """`errors.tell`, `cli/output` and the progress bar know what a terminal may be given."""
    found = [
        f"{path.name}:{number}"
        for path in (ROOT / "kerasgreedy").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if ("print(" in line.replace("console.print(", "") or "sys.stderr.write" in line) and "def " not in line
    ]
    assert {place.partition(":")[0] for place in found} == {"errors.py", "output.py", "__init__.py"}
    assert len(found) == 4  # the last in the docstring of the package


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("what"), 2, "error: what"),
        (Diverged("what"), 4, "error: what"),
        (OSError(errno.EFBIG, "File too large", "x.json"), 2, "error: x.json: File too large"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: standard output, or a file: No space left on device"),
        (MemoryError(), 2, "error: out of memory"),
        (type("ResourceExhaustedError", (Exception,), {})("OOM"), 2, "error: out of memory"),
        (ImportError("x.so: failed to map segment from shared object"), 2, "error: out of memory"),
        (RuntimeError("write: No space left on device; x"), 2, "error: No space left on device"),
        (RuntimeError("write: File too large; x"), 2, "error: File too large"),
        ("\ud800", 2, "error: a text or a name is not UTF-8"),
        (KeyError("x"), 1, "fault of the program: KeyError: 'x'"),
    ],
)
def test_errors_in_words(error, code, text):
    if isinstance(error, str):
        with pytest.raises(UnicodeError) as found:
            error.encode()
        error = found.value
    said, given = outermost.in_words(error)
    assert given == code and said.startswith(text) and (code == 1 or "\n" not in said)


@pytest.mark.parametrize(("limit", "refused"), [(2_999_999_999, True), (3_000_000_000, False), (resource.RLIM_INFINITY, False)])
def test_a_limit_of_addresses_is_said_before_tensorflow_ends_the_process(limit, refused, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, resource.RLIM_INFINITY))
    if not refused:
        return options.quiet_tensorflow()
    with pytest.raises(InputError, match=r"out of memory: a limit \(ulimit -v\) leaves 3.00 GB .* TensorFlow needs at least 3,"):
        options.quiet_tensorflow()


@pytest.mark.slow
def test_a_file_size_limit_is_said_in_one_line(tmp_path):
    """`ulimit -f`: the folder that was to be made is not half there."""
    command = f"ulimit -f 1; {' '.join(RUN)} train simcnn_k3_cifar -q --workdir {tmp_path}/run"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr and not list(tmp_path.iterdir())


# Files that are none.


def test_pipes_and_devices_are_not_read(tmp_path):
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    begin = time.monotonic()
    for path in (pipe, "/dev/zero", "/dev/tty"):
        with pytest.raises(OSError, match=r"no ordinary file|No such device"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    for arguments in (["validate", pipe], ["plan", "vgg11_k3", "-r", pipe], ["summary", "/dev/zero"]):
        done = started([str(a) for a in arguments])
        assert done.returncode == 2 and "no ordinary file" in done.stderr
    assert time.monotonic() - begin < 30 and stat.S_ISFIFO(pipe.stat().st_mode)


# Keras's own settings.


@pytest.mark.parametrize(
    ("written", "variable", "message"),
    [
        (
            {"image_data_format": "channels_first"},
            None,
            "keras.json: Keras's image_data_format is 'channels_first'; .* 'channels_last'",
        ),
        ({"floatx": "float16"}, None, "keras.json: Keras's floatx is 'float16'; .* 'float32'"),
        ({"backend": "torch"}, None, "keras.json: Keras's backend is 'torch'"),
        ({"backend": "torch"}, "tensorflow", None),
        ({}, "jax", "KERAS_BACKEND: Keras's backend is 'jax'"),
        ({"epsilon": 1e-3, "unknown": 1}, None, None),
        ("{broken", None, None),
        ([1], None, "keras.json: Keras does not load with these settings"),
        ("null", None, "keras.json: Keras does not load with these settings"),
        ({"epsilon": 1}, None, "keras.json: Keras does not load .* a real number as epsilon"),
        ("[" * 100_000, None, "keras.json: Keras cannot read its settings"),
    ],
)
def test_settings_of_keras(written, variable, message, tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text(written if isinstance(written, str) else json.dumps(written))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    if message is None:
        return backend.check_backend()
    with pytest.raises(InputError, match=message):
        backend.check_backend()


def test_what_keras_would_wait_for_or_not_load_with(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    os.mkfifo(tmp_path / "keras.json")
    with pytest.raises(InputError, match="keras.json: Keras cannot read its settings .*no ordinary file"):
        backend.check_backend()
    (tmp_path / "keras.json").unlink()
    backend.check_backend()
    for value, fine in (("3", True), ("", False), ("x", False), ("9" * 5000, False)):
        monkeypatch.setenv("KERAS_MAX_EPOCHS", value)
        if fine:
            backend.check_backend()
        else:
            with pytest.raises(InputError, match="KERAS_MAX_EPOCHS: Keras does not load with it"):
                backend.check_backend()


def test_settings_of_keras_are_looked_at_before_anything_is_made(tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    place = {**os.environ, "KERAS_HOME": str(tmp_path)}
    done = started(["train", "simcnn_k3_cifar", "--workdir", str(tmp_path / "run")], env=place)
    assert done.returncode == 2 and "channels_first" in done.stderr and not (tmp_path / "run").exists()
    program = "import kerasgreedy as kg\ntry: kg.build_network\nexcept kg.KerasgreedyError as error: print('said', error)"
    done = subprocess.run([sys.executable, "-c", program], env=place, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("said") and "channels_first" in done.stdout


def test_settings_of_a_session(monkeypatch):
    import keras

    backend.check_backend()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(InputError, match="dtype_policy.* is 'mixed_bfloat16'"):
            backend.check_backend()
    finally:
        keras.config.set_dtype_policy("float32")


# Devices and clusters.


@pytest.mark.parametrize("devices", ["0", "65", "999", "9" * 5000, "-1", "CPU:64", "CPU:0,CPU:" + "9" * 5000, "GPU:0", "x", ""])
def test_devices_that_cannot_be(devices):
    with pytest.raises(InputError, match="--devices: ") as error:
        _names(devices)
    assert len(str(error.value)) < 250


def config(workers=("127.0.0.1:29171", "127.0.0.1:29172"), kind="worker", index=0, **more):
    return json.dumps({"cluster": {"worker": list(workers), **more}, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (config(index=True), "received task worker True"),
        (config(index=1.0), "received task worker 1.0"),
        (config(index="0"), "received task worker '0'"),
        (config(index=2), "received task worker 2; its cluster has worker 0 to 1"),
        (config(index=-1), "received task worker -1"),
        (config(index=10**400), "TF_CONFIG: (cannot be used|received task)"),
        ("", "TF_CONFIG: cannot be used"),
        (config(["127.0.0.1:0"]), "received '127.0.0.1:0'; allowed: host:port with a port from 1 to 65535"),
        (config(["127.0.0.1:99999"]), "port from 1 to 65535"),
        (config(["127.0.0.1"]), "port from 1 to 65535"),
        (config([":2222"]), "port from 1 to 65535"),
        (config(["bad host:2222"]), "received 'bad host:2222'"),
        (config(["-:2222"]), "received '-:2222'"),
        (config(["a" * 200 + ":x"]), "received 'aaa"),
        (config(["127.0.0.1:29171", "127.0.0.1:29171"]), "each once"),
        (config([1, 2]), "not lists of texts"),
        (json.dumps({"cluster": {"worker": "127.0.0.1:1"}, "task": {"type": "worker", "index": 0}}), "not lists of texts"),
        (config(ps=["127.0.0.1:5"]), "received 'ps'"),
        (config(chief=["127.0.0.1:5", "127.0.0.1:6"]), "more than one chief"),
        (config(kind=["worker"]), "received task"),
        ("[" * 5000, "cannot be used"),
        ("{}", "cannot be used"),
        ("[]", "cannot be used"),
        ('{"cluster": 1, "task": 2}', "cannot be used"),
    ],
)
def test_clusters_that_cannot_be(text, message):
    with pytest.raises(InputError, match=message) as error:
        cluster.check_tf_config(text)
    assert len(str(error.value)) < 500


def test_a_cluster_on_this_machine(monkeypatch):
    assert cluster.check_tf_config(config()) == ["127.0.0.1:29171", "127.0.0.1:29172"]
    monkeypatch.setattr(cluster, "NAMES_SECONDS", 0)
    with pytest.raises(InputError, match=r"the host 'no.such.host.invalid' is not known"):
        cluster.check_tf_config(config(["127.0.0.1:29171", "no.such.host.invalid:2"]))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of this worker, 127.0.0.1:{port}, is in use"):
            cluster.check_tf_config(config([f"127.0.0.1:{port}", "127.0.0.1:29172"]))


def test_workers_import_nothing_from_the_working_folder(tmp_path):
    """`python -m` would look for modules there first."""
    for name in ("typer", "yaml", "json", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'a').write(__name__)")
    (tmp_path / "evil.pth").write_text("import os; open('ran', 'a').write('pth')")
    command, place = [*workers.WORKER, "--version"], workers.worker_environment("{}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=place)
    assert done.returncode == 0 and done.stdout.startswith("kerasgreedy ") and not (tmp_path / "ran").exists()


def test_git_fetches_nothing_and_runs_nothing(tmp_path):
    """A partial clone asks its remote, by whatever program, for an object that it lacks."""
    from kerasgreedy.runs.environment import _git_state

    git = ["git", "-c", "user.name=a", "-c", "user.email=b", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "file").write_text("x")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "y"], check=True)
    for key, value in (
        ("remote.origin.url", f"ext::sh -c 'touch {tmp_path}/ran'"),
        ("remote.origin.promisor", "true"),
        ("core.sshCommand", f"touch {tmp_path}/ran"),
        ("core.fsmonitor", f"touch {tmp_path}/ran"),
        ("core.pager", f"touch {tmp_path}/ran"),
        ("protocol.ext.allow", "always"),
    ):
        subprocess.run([*git, "config", key, value], check=True)
    for path in (tmp_path / ".git/objects").glob("??/*"):
        path.unlink()
    before = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path)
    try:
        state = _git_state()
    finally:
        os.chdir(before)
    assert not (tmp_path / "ran").exists()
    assert state is None or state["clean"] is None


def test_headers_of_tables_are_printed_like_all_else(capsys):
    """`compare` has names of run folders there."""
    output.put_table(["", "a\x1b[31mb", "c\u202ed"], [["x", "\x1b[0m", "z"]], "t\x07")
    shown = capsys.readouterr().out
    assert not set("\x1b\u202e\x07") & set(shown) and "a\\x1b[31mb" in shown and "c\\u202ed" in shown and "\\x1b[0m" in shown
