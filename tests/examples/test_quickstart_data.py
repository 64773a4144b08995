"""The PyTorch quickstart's data: read from files of the published layout, normalised, and shared among learners."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.examples.layouts import cifar10_files, idx, write_archive, write_fashion_mnist

torch = pytest.importorskip("torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart-pytorch"
FAKE_TORCHVISION = '''
"""A torchvision that downloads from a folder, slowly, and keeps count."""
import os, shutil, time
def download_url(url, root, filename, md5):
    with open(os.environ["FAKE_SOURCE"] + "/count", "a") as count:
        count.write("x")
    with open(root + "/" + filename, "wb") as half:
        half.write(b"half a file")
        time.sleep(0.5)
    shutil.copy(os.environ["FAKE_SOURCE"] + "/" + filename, root)
'''


def example_module(name: str) -> ModuleType:
    """A file of the example as a module of its own name, since the folder is no package."""
    spec = importlib.util.spec_from_file_location(f"quickstart_pytorch_{name}", EXAMPLE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


data = example_module("data")


@pytest.fixture(autouse=True)
def _no_other_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data of this machine's own take part."""
    monkeypatch.setattr(data, "FASHION_MNIST_DEBIAN", tmp_path / "no-debian")
    monkeypatch.delenv("METIS_DATA", raising=False)


def test_cifar10_planes_and_labels_are_in_their_places(tmp_path: Path) -> None:
    """Byte 0 of a record is the label, bytes 1, 1025 and 2049 begin red, green and blue, rows run left to right."""
    record = bytearray(3073)
    record[0], record[1], record[2], record[1025], record[2049 + 32] = 7, 10, 20, 30, 40
    for name in ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"):
        (tmp_path / "cifar-10-batches-bin").mkdir(exist_ok=True)
        (tmp_path / "cifar-10-batches-bin" / name).write_bytes(record)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(record * 2)
    train, test = data.cifar10(tmp_path)
    assert train.x.shape == (5, 3, 32, 32)
    assert test.x.shape == (2, 3, 32, 32)
    assert train.y.tolist() == [7] * 5
    assert (train.x[0, 0, 0, 0], train.x[0, 0, 0, 1], train.x[0, 1, 0, 0], train.x[0, 2, 1, 0]) == (10, 20, 30, 40)


def test_cifar10_is_read_from_the_archive_as_published(tmp_path: Path) -> None:
    """The archive gives the same pictures as the unpacked folder, and nothing is unpacked to disk."""
    files = cifar10_files(np.random.default_rng(0), records=4)
    write_archive(tmp_path / "cifar-10-binary.tar.gz", files)
    train, test = data.cifar10(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]
    assert train.x.shape == (20, 3, 32, 32)
    assert train.x[4].tobytes() == files["data_batch_2.bin"][1:3073]
    assert test.y.tolist() == [files["test_batch.bin"][3073 * i] for i in range(4)]


def test_training_tensor_is_normalised_per_channel(tmp_path: Path) -> None:
    """Each channel has mean 0 and deviation 1 over the shares of all learners, whatever its brightness."""
    write_archive(tmp_path / "cifar-10-binary.tar.gz", cifar10_files(np.random.default_rng(0), records=6))
    shares = [data.load_share("cifar10", index, 3, str(tmp_path)) for index in range(3)]
    x = torch.cat([train.x for train, _ in shares])
    assert x.dtype == torch.float32
    assert x.shape == (30, 3, 32, 32)
    assert x.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert x.std(dim=(0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert all(train.x.mean().abs() < 0.05 and test.x.mean().abs() < 0.1 for train, test in shares)


def test_channel_statistics_by_hand() -> None:
    """Bytes 0 and 255 in equal number have mean 0.5 and deviation 0.5; a constant channel divides by no zero."""
    x = np.zeros((2, 2, 1, 1), np.uint8)
    x[1, 0] = 255
    mean, std = data.channel_statistics(x)
    assert mean.tolist() == [0.5, 0]
    assert std.tolist() == [0.5, 0]
    assert data.normalised(x, mean, std).flatten().tolist() == [-1, 0, 1, 0]


def test_learners_share_the_rows_without_overlap(tmp_path: Path) -> None:
    """90 training rows are 30 a learner, 30 test rows 10, and together they are the whole data set."""
    write_fashion_mnist(tmp_path)
    shares = [data.load_share("fashion-mnist", index, 3, str(tmp_path)) for index in range(3)]
    assert [(len(train.y), len(test.y)) for train, test in shares] == [(30, 10)] * 3
    rows = {tuple(row.flatten().tolist()) for train, _ in shares for row in train.x}
    assert len(rows) == 90
    assert torch.bincount(torch.cat([train.y for train, _ in shares])).tolist() == [9] * 10


def test_rows_limits_the_training_rows_of_all_learners_together(tmp_path: Path) -> None:
    """With rows=12 three learners train on four each; the test rows stay whole."""
    write_fashion_mnist(tmp_path)
    shares = [data.load_share("fashion-mnist", index, 3, str(tmp_path), rows=12) for index in range(3)]
    assert [(len(train.y), len(test.y)) for train, test in shares] == [(4, 10)] * 3


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_gunzipped_or_not(tmp_path: Path, gz: bool, place: str) -> None:
    """The four files may lie in the folder or where torchvision puts them."""
    write_fashion_mnist(tmp_path / place, gz=gz)
    train, test = data.fashion_mnist(tmp_path)
    assert train.x.shape == (90, 1, 28, 28)
    assert test.y.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package is used when the folder has no files."""
    write_fashion_mnist(tmp_path / "debian", gz=True)
    monkeypatch.setattr(data, "FASHION_MNIST_DEBIAN", tmp_path / "debian")
    assert len(data.fashion_mnist(tmp_path / "empty")[0].y) == 90


def test_folder_comes_from_the_environment_when_no_flag_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """METIS_DATA names the folder."""
    write_fashion_mnist(tmp_path)
    monkeypatch.setenv("METIS_DATA", str(tmp_path))
    assert len(data.load_share("fashion-mnist", 0, 3)[0].y) == 30


def test_files_of_the_wrong_kind_are_refused_by_magic_number(tmp_path: Path) -> None:
    """Labels in the place of pictures: the message has both magic numbers and the file."""
    write_fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes((tmp_path / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: magic number 0x00000801 .* expected 0x00000803"):
        data.fashion_mnist(tmp_path)


def test_truncated_and_mismatched_files_are_refused(tmp_path: Path) -> None:
    """Fewer bytes than the header promises, and another number of labels than pictures, are named."""
    write_fashion_mnist(tmp_path)
    images, labels = tmp_path / "t10k-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(29)))
    with pytest.raises(ValueError, match=r"30 pictures, .* 29 labels"):
        data.fashion_mnist(tmp_path)
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"promises \[30, 28, 28\] bytes, 23519 follow"):
        data.fashion_mnist(tmp_path)
    images.write_bytes(b"")
    with pytest.raises(ValueError, match="in 0 bytes"):
        data.fashion_mnist(tmp_path)


def test_a_damaged_gz_is_refused_by_name(tmp_path: Path) -> None:
    """A download that broke off is a message with the file, not a traceback from deep inside."""
    write_fashion_mnist(tmp_path, gz=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: damaged"):
        data.fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: {**files, "data_batch_3.bin": files["data_batch_3.bin"][:-1]}, "data_batch_3.bin: 12291 bytes"),
        (lambda files: {**files, "data_batch_1.bin": b"\x0a" + bytes(3072)}, "label 10"),
        (lambda files: {name: files[name] for name in files if name != "test_batch.bin"}, "holds no test_batch.bin"),
        (lambda files: {**files, "data_batch_5.bin": b""}, "data_batch_5.bin: 0 bytes"),
    ],
)
def test_cifar10_files_of_another_layout_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    """Cut records, labels above 9 and missing files are named."""
    write_archive(tmp_path / "cifar-10-binary.tar.gz", change(cifar10_files(np.random.default_rng(0), records=4)))
    with pytest.raises(ValueError, match=message):
        data.cifar10(tmp_path)


def test_a_damaged_archive_is_refused_by_name(tmp_path: Path) -> None:
    """A cut archive, and a page of HTML in its place, say which file to delete."""
    archive = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(archive, cifar10_files(np.random.default_rng(0), records=4))
    for content in (archive.read_bytes()[:-5000], b"<html>not found</html>"):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz: damaged .* delete it"):
            data.cifar10(tmp_path)


@pytest.mark.parametrize(("dataset", "file"), [("cifar10", "cifar-10-binary.tar.gz"), ("fashion-mnist", "idx files")])
def test_without_torchvision_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, file: str
) -> None:
    """No file and no torchvision: the message says what to install, or what to put where."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(FileNotFoundError, match=f"pip install torchvision`, or put .*{file}.* into {tmp_path}"):
        data.load_share(dataset, 0, 3, str(tmp_path))


def test_three_learners_on_an_empty_folder_download_once(tmp_path: Path) -> None:
    """Three processes that start together all read whole pictures, one download is made, and no half file is left."""
    source, home, fake = tmp_path / "source", tmp_path / "home", tmp_path / "fake"
    source.mkdir()
    write_archive(source / "cifar-10-binary.tar.gz", cifar10_files(np.random.default_rng(0), records=4))
    (fake / "torchvision" / "datasets").mkdir(parents=True)
    (fake / "torchvision" / "__init__.py").write_text("from . import datasets\n")
    (fake / "torchvision" / "datasets" / "__init__.py").write_text("from . import utils\n")
    (fake / "torchvision" / "datasets" / "utils.py").write_text(FAKE_TORCHVISION)
    path = os.pathsep.join([str(fake), str(EXAMPLE), *filter(None, sys.path)])
    code = f"import data, pathlib; print(*[len(part.y) for part in data.cifar10(pathlib.Path({str(home)!r}))])"
    learners = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "FAKE_SOURCE": str(source)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [learner.communicate(timeout=60)[0].strip() for learner in learners] == ["20 4"] * 3
    assert (source / "count").read_text() == "x"
    assert sorted(path.name for path in home.iterdir()) == [".lock", "cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(("shape", "parameters"), [((3, 32), 62006), ((1, 28), 44426)])
def test_model_takes_both_picture_sizes(shape: tuple[int, int], parameters: int) -> None:
    """The tutorial's network gives ten scores for 3x32x32 (62,006 parameters) and for 1x28x28 (44,426)."""
    channels, size = shape
    model = example_module("model").Model(channels, size)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters
