"""Small files with random content in the layouts in which CIFAR-10 and Fashion-MNIST are published."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cifar10_files(rng: np.random.Generator, records: int) -> dict[str, bytes]:
    """Six files of 3,073-byte records: a label, then three planes of 32x32."""
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    rows = {name: rng.integers(0, 256, (records, 3073), dtype=np.uint8) for name in names}
    for array in rows.values():
        array[:, 0] %= 10
        array[:, 1:1025] //= 2  # a darker red plane: the channels need statistics of their own
    return {name: array.tobytes() for name, array in rows.items()}


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    """The files in the archive's folder, beside a text as in the published one."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"batches.meta.txt": b"airplane\n", **files}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def idx(array: NDArray[Any]) -> bytes:
    """An idx file of unsigned bytes: 0, 0, type 8, number of dimensions, big-endian sizes, values."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_fashion_mnist(folder: Path, train: int = 90, test: int = 30, gz: bool = False) -> None:
    """The four files, with random pictures and labels that cycle through 0 to 9."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", train), ("t10k", test)):
        files = {"images-idx3": rng.integers(0, 200, (n, 28, 28)), "labels-idx1": np.arange(n) % 10}
        for kind, array in files.items():
            name = f"{prefix}-{kind}-ubyte"
            if gz:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
