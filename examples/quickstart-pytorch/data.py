"""CIFAR-10 and Fashion-MNIST as normalised tensors, one share a learner: found on disk or downloaded, without pickle.

CIFAR-10 (A. Krizhevsky, 2009) is read from its binary version, Fashion-MNIST (H. Xiao, K. Rasul and R. Vollgraf,
2017) from its four idx files. Only a download needs torchvision.
"""

import fcntl
import gzip
import importlib
import math
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from services.partition import iid_partition

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_ARCHIVE, CIFAR10_FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
CIFAR10_TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]
CIFAR10_TEST = ["test_batch.bin"]
CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane

FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FASHION_MNIST_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
IDX_IMAGES, IDX_LABELS = 0x00000803, 0x00000801  # unsigned bytes in three dimensions, in one


class Images(NamedTuple):
    """Labelled pictures."""

    x: NDArray[np.uint8]  # (n, channels, height, width), 0 to 255
    y: NDArray[np.int64]  # (n,), 0 to 9


class Share(NamedTuple):
    """What one learner trains or evaluates on."""

    x: torch.Tensor  # (n, channels, height, width) float32, about mean 0 and deviation 1 per channel
    y: torch.Tensor  # (n,) int64


def load_share(
    dataset: str, index: int, num_learners: int, data_dir: str | None = None, rows: int | None = None, seed: int = 1990
) -> tuple[Share, Share]:
    """The training and the test share of learner `index` (from 0) of `dataset`, `cifar10` or `fashion-mnist`.

    `rows` limits the training rows of all learners together, drawn by the seed. Channels are normalised by the
    statistics of the whole training set, which all learners must agree on. Raises FileNotFoundError when the data are
    neither there nor to be had, ValueError for a file that is not what it should be.
    """
    home = Path(data_dir or os.environ.get("METIS_DATA") or "~/.cache/metis").expanduser()
    train, test = {"cifar10": cifar10, "fashion-mnist": fashion_mnist}[dataset](home)
    mean, std = channel_statistics(train.x)
    if rows is not None:
        drawn = np.random.default_rng(seed).permutation(len(train.y))[:rows]
        train = Images(train.x[drawn], train.y[drawn])
    shares = [iid_partition(part.x, num_learners, part.y, seed) for part in (train, test)]
    ours = [Share(normalised(x[index], mean, std), torch.from_numpy(y[index])) for x, y in shares]
    return ours[0], ours[1]


def cifar10(home: Path) -> tuple[Images, Images]:
    """CIFAR-10's training and test pictures, (n, 3, 32, 32), from the archive or the unpacked folder in `home`."""
    folder, archive = home / CIFAR10_FOLDER, home / CIFAR10_ARCHIVE
    if not folder.is_dir() and not archive.is_file():
        with one_at_a_time(home):
            if not archive.is_file():
                download_cifar10(archive)
    if folder.is_dir():
        files = {name: (folder / name).read_bytes() for name in CIFAR10_TRAIN + CIFAR10_TEST}
    else:
        files = read_archive(archive)
    missing = [name for name in CIFAR10_TRAIN + CIFAR10_TEST if name not in files]
    if missing:
        raise ValueError(f"{archive}: holds no {', '.join(missing)}: delete it, then it is downloaded again")
    return parse_cifar10(files, CIFAR10_TRAIN), parse_cifar10(files, CIFAR10_TEST)


def read_archive(archive: Path) -> dict[str, bytes]:
    """The .bin files of the archive by name, without unpacking it to disk."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = [(Path(member.name).name, tar.extractfile(member)) for member in tar if member.isfile()]
            return {name: file.read() for name, file in members if file and name.endswith(".bin")}
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{archive}: damaged ({error}): delete it, then it is downloaded again") from error


def parse_cifar10(files: dict[str, bytes], names: list[str]) -> Images:
    """Records of 3,073 bytes as pictures and labels."""
    for name in names:
        if not files[name] or len(files[name]) % CIFAR10_RECORD:
            raise ValueError(f"{name}: {len(files[name])} bytes are no whole records of {CIFAR10_RECORD}")
    records = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(-1, CIFAR10_RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"{names[0]} and on: label {labels.max()}, CIFAR-10 has 0 to 9 (this may be CIFAR-100)")
    return Images(records[:, 1:].reshape(-1, 3, 32, 32), labels.astype(np.int64))


def fashion_mnist(home: Path) -> tuple[Images, Images]:
    """Fashion-MNIST's training and test pictures, (n, 1, 28, 28), from `home`, torchvision's folder in it, or Debian's.

    The four files may be gunzipped or not.
    """
    torchvision_folder = home / "FashionMNIST" / "raw"
    folders = (home, torchvision_folder, FASHION_MNIST_DEBIAN)
    paths = find_idx_files(*folders)
    if not paths:
        with one_at_a_time(home):
            paths = find_idx_files(*folders)
            if not paths:
                download_fashion_mnist(torchvision_folder)
                paths = find_idx_files(torchvision_folder)
    train_x, train_y, test_x, test_y = paths
    return parse_idx_pair(train_x, train_y), parse_idx_pair(test_x, test_y)


def find_idx_files(*folders: Path) -> list[Path]:
    """The four files in the first folder that has them all, or nothing."""
    for folder in folders:
        either = [(folder / name, folder / f"{name}.gz") for name in FASHION_MNIST_FILES]
        found = [path for pair in either for path in pair if path.is_file()]
        names = {path.name.removesuffix(".gz"): path for path in reversed(found)}  # gunzipped ones before the others
        if len(names) == len(FASHION_MNIST_FILES):
            return [names[name] for name in FASHION_MNIST_FILES]
    return []


def parse_idx_pair(images: Path, labels: Path) -> Images:
    """A file of pictures and the file of their labels."""
    x, y = read_idx(images, IDX_IMAGES), read_idx(labels, IDX_LABELS)
    if len(x) != len(y):
        raise ValueError(f"{images} holds {len(x)} pictures, {labels} {len(y)} labels: they do not belong together")
    return Images(x[:, None], y.astype(np.int64))


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """The array of an idx file, whose first four bytes must be `magic` (its last byte is the number of dimensions)."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error}): delete it and fetch it again") from error
    got, dimensions = int.from_bytes(raw[:4], "big"), magic & 0xFF
    start = 4 + 4 * dimensions
    if got != magic or len(raw) < start:
        raise ValueError(f"{path}: magic number 0x{got:08x} in {len(raw)} bytes, expected 0x{magic:08x}")
    shape = np.frombuffer(raw, ">u4", dimensions, offset=4).tolist()
    if len(raw) - start != math.prod(shape):
        raise ValueError(f"{path}: the header promises {shape} bytes, {len(raw) - start} follow")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def channel_statistics(x: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel, (channels,), of (n, channels, height, width) bytes scaled to 0-1."""
    values = np.arange(256) / 255
    counts = np.stack([np.bincount(x[:, c].ravel(), minlength=256) for c in range(x.shape[1])])  # (channels, 256)
    mean = counts @ values / counts.sum(axis=1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return mean, np.sqrt(variance)


def normalised(x: NDArray[np.uint8], mean: NDArray[np.float64], std: NDArray[np.float64]) -> torch.Tensor:
    """(n, channels, height, width) float32: scaled to 0-1, less the channel's mean, over its deviation."""
    per_channel = (1, -1, 1, 1)
    scaled = torch.from_numpy(x).float().div_(255)
    return scaled.sub_(torch.tensor(mean).view(per_channel)).div_(torch.tensor(std).clamp(min=1e-6).view(per_channel))


@contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Of several learners that start on an empty folder one downloads, the others wait; a killed one leaves no lock."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def download_cifar10(archive: Path) -> None:
    """Fetch the archive, checked by its md5, into place in one step."""
    hint = f"put {archive.name} from {CIFAR10_URL.rsplit('/', 1)[0]}/cifar.html into {archive.parent}"
    with torchvision_for("CIFAR-10", hint) as torchvision, scratch(archive.parent) as folder:
        torchvision.datasets.utils.download_url(CIFAR10_URL, str(folder), archive.name, CIFAR10_MD5)
        (folder / archive.name).replace(archive)


def download_fashion_mnist(target: Path) -> None:
    """Let torchvision fetch and check the four files, then put them into place."""
    home = target.parents[1]
    hint = f"put the four idx files (or .gz) of github.com/zalandoresearch/fashion-mnist into {home}"
    with torchvision_for("Fashion-MNIST", hint) as torchvision, scratch(home) as folder:
        torchvision.datasets.FashionMNIST(str(folder), download=True)
        target.mkdir(parents=True, exist_ok=True)
        for name in FASHION_MNIST_FILES:
            (folder / "FashionMNIST" / "raw" / name).replace(target / name)


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A folder of one's own on the same file system, gone afterwards: from it a rename is atomic."""
    with tempfile.TemporaryDirectory(dir=home, prefix=".download-") as folder:
        yield Path(folder)


@contextmanager
def torchvision_for(dataset: str, hint: str) -> Iterator[Any]:
    """torchvision, imported here and nowhere else; what keeps it from helping becomes a message with a way out."""
    try:
        torchvision = importlib.import_module("torchvision")
        importlib.import_module("torchvision.datasets.utils")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise FileNotFoundError(
            f"{dataset} is not here and torchvision, which would download it, cannot be imported ({error}): "
            f"`pip install torchvision`, or {hint}"
        ) from error
    try:
        yield torchvision
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"{dataset} could not be downloaded ({error}): {hint}") from error
