from __future__ import annotations

import hashlib
import json
import struct
import zipfile

import numpy as np
import pytest

from inference.errors import ModelError
from inference.model_file import decode, digest, encode, read_model, write_model
from tests.inference.networks import drawn


def _header(content):
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _file(header, data):
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(("widths", "channels"), [((3, 4, 5), 2), ((8, 16, 32), 1), ((2,), 8)])
def test_a_network_is_read_as_it_was_written(tmp_path, widths, channels):
    network = drawn(widths, channels, grey_zero=128.0)
    path = tmp_path / "net.safetensors"
    name = write_model(path, network)
    assert name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    again = read_model(path, sha256=name)
    assert again.config == network.config
    assert again.weights.keys() == network.weights.keys()
    for key, weight in network.weights.items():
        np.testing.assert_array_equal(again.weights[key], weight)
        assert again.weights[key].dtype == np.float32
    shuffled = type(network)(network.config, dict(reversed(network.weights.items())))
    assert digest(encode(shuffled)) == name


def test_the_format_is_that_of_safetensors():
    """As its page describes it; the package itself read these files when this was written."""
    network = drawn((2, 3))
    header, data = _header(encode(network))
    assert set(header.pop("__metadata__")) == {"config", "format"}
    assert header.keys() == network.weights.keys()
    for name, entry in header.items():
        assert entry["dtype"] == "F32"
        values = np.frombuffer(data[slice(*entry["data_offsets"])], "<f4")
        np.testing.assert_array_equal(values.reshape(entry["shape"]), network.weights[name])


def test_another_digest_is_refused(tmp_path):
    write_model(tmp_path / "net", drawn((2,)))
    with pytest.raises(ModelError, match="has the digest"):
        read_model(tmp_path / "net", sha256="0" * 64)


@pytest.mark.parametrize("position", [0, 3, 9, 100, 700, -1])
def test_no_flipped_bit_is_read_as_something_else(position):
    """Of the header; a digest finds those in the weights."""
    content = bytearray(encode(drawn((2,))))
    content[position] ^= 0x40 if position < 0 else 1
    if position < 0:
        content[-2:] = b"\x80\x7f"  # infinite
    with pytest.raises(ModelError, match="not"):
        decode(bytes(content))


def _swapped(header, data):
    """Two weights of one shape change their places."""
    a, b = header["down0_2/kernel"], header["down0_3/kernel"]
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]
    return header, data


def _object(header, data):
    header["output/bias"]["dtype"] = "O"
    return header, data


def _extra(header, data):
    header["more"] = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    return header, data


def _config(**changes):
    def change(header, data):
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps({**config, **changes})
        return header, data

    return change


@pytest.mark.parametrize(
    "change",
    [
        _swapped, _object, _extra,
        _config(widths=[2, 2]), _config(widths=[1024] * 8), _config(unknown=1),
        lambda header, data: ({**header, "__metadata__": {"format": "other"}}, data),
        lambda header, data: ({**header, "__metadata__": []}, data),
        lambda header, data: (header, data[:-4]),
        lambda header, data: (header, data + bytes(4)),
        lambda header, data: ([], data),
    ],
)  # fmt: skip
def test_a_file_that_is_put_together_otherwise_is_refused(change):
    content = encode(drawn((2,)))
    assert decode(_file(*_header(content))) is not None
    with pytest.raises(ModelError, match=r"not a model of petalign|not all finite"):
        decode(_file(*change(*_header(content))))


def test_other_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY")
    (tmp_path / "empty").touch()
    (tmp_path / "long").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    for path in tmp_path.iterdir():
        with pytest.raises(ModelError, match=str(path)):
            read_model(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net"
    write_model(path, drawn((2,), seed=1))
    before = path.read_bytes()

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_model(path, drawn((2,), seed=2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
