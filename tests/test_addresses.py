"""Addresses as they are named, listed, fetched and sent; fsspec's disk and memory stand for distant places."""

import os
import tempfile
from pathlib import Path

import pytest

from priorlens import addresses
from priorlens.addresses import Address, content_at, fetch, listing, names_in, place, remove, send, stamp_at
from priorlens.errors import InputError, OutputError, WeightsError
from priorlens.ledger import Stamp
from priorlens.remote_cases import find_cases_anywhere, on_disk

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a/b.png", Path("a/b.png")),
        ("s3:/a", Path("s3:/a")),
        ("s3://bucket/a b/[1].png", Address("s3://bucket/a b/[1].png")),
        ("s3://bucket/night//", Address("s3://bucket/night")),
        ("hdfs://host:8020/a@b.png", Address("hdfs://host:8020/a@b.png")),
        ("abfs://box@account.dfs.core.windows.net/a", Address("abfs://box@account.dfs.core.windows.net/a")),
        ("s3://bucket/me:x@y.png", Address("s3://bucket/me:x@y.png")),
        ("file:///", Address("file:///")),
    ],
)
def test_what_a_user_names(text, found):
    assert place(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("s3://me:secret@bucket/x", "sftp://me:se/secret@host/x", "s3://me:@bucket", "https://h/x?sig=secret"),
        *("s3://bucket/../x", "a://b://c@d", "simplecache::s3://me:secret@bucket/x", "://x", "s3://a::file:///secret"),
    ],
)
def test_what_is_refused(text):
    with pytest.raises(InputError) as refused:
        place(text)
    assert "me:se" not in str(refused.value) and "sig" not in str(refused.value)


def test_paths_of_an_address():
    folder = place("s3://bucket/night/")
    assert str(folder / "a/1.png") == "s3://bucket/night/a/1.png"
    assert folder.leads_to("../day/./1.png") == Address("s3://bucket/day/1.png")
    assert (folder.name, folder.parent) == ("night", Address("s3://bucket"))
    assert (folder / "x").is_within(folder) and folder.is_within(folder)
    assert not Address("s3://bucket/nights").is_within(folder)


def test_a_listing_has_what_is_not_hidden(memory):
    for name in ("a/10.png", "a/2.png", ".a/1.png", "a/.1.png", "b::file:///etc/3.png", "a/../4.png"):
        memory.store["/night/" + name] = fsspec.implementations.memory.MemoryFile(memory, "/night/" + name, b"12345")
        memory.store["/night/" + name].close = lambda: None
    found = {one.relative: one for one in listing(Address("memory://night"))}
    assert {"a/10.png", "a/2.png"} <= found.keys()
    assert not any(part in (".a", ".1.png", "..") for name in found for part in name.split("/"))
    assert found["a/2.png"].address == Address("memory://night/a/2.png") and found["a/2.png"].stamp.size == 5
    with pytest.raises(InputError, match="has :: in its name"):
        fetch(Address("memory://night/b::file:///etc/3.png"), Path("unused"))


def test_a_stamp_is_of_the_version_and_the_same_in_a_listing(memory, tmp_path, monkeypatch):
    memory.pipe("/night/1.png", b"one")
    address = Address("memory://night/1.png")
    first = stamp_at(address)
    assert first == listing(Address("memory://night"))[0].stamp == listing(address)[0].stamp and first.modified > 0
    memory.pipe("/night/1.png", b"two")
    assert stamp_at(address) != first and stamp_at(Address("memory://night/2.png")) == Stamp()
    (tmp_path / "x").write_bytes(b"abc")
    assert abs(stamp_at(Address(f"file://{tmp_path}/x")).modified - (tmp_path / "x").stat().st_mtime_ns) < 2000
    assert addresses._stamp({"size": 3, "ETag": '"a"', "LastModified": 5}) == addresses._stamp(
        {"size": 3, "ETag": '"a"', "LastModified": 6}
    )
    assert addresses._stamp({"size": 3, "ETag": '"a"'}) != addresses._stamp({"size": 3, "ETag": '"b"'})
    assert addresses._stamp({"size": None, "updated": "2026-01-02T03:04:05.678Z"}).modified == 1767323045678000000


@pytest.mark.parametrize("scheme", ["memory", "file", "local"])
def test_sent_whole_read_and_removed(memory, tmp_path, scheme):
    root = Address(f"{scheme}://{tmp_path}/there")
    names = ["a/[1].png", "a/*?.png", "b.png"]
    for turn in (b"first", b"second"):
        pairs = []
        for name in names:
            source = tmp_path / "here" / name
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(turn + name.encode())
            pairs.append((source, root / name))
        send(pairs)
        assert [content_at(root / name) for name in names] == [turn + name.encode() for name in names]
    assert sorted(names_in(root)) == ["a", "b.png"] and len(listing(root)) == 3, "and nothing half-sent"
    fetch(root / names[0], tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"seconda/[1].png"
    remove([root / "a/[1].png", root / "gone.png"])
    assert content_at(root / "a/[1].png") is None and len(listing(root)) == 2 and names_in(root / "gone") == []


def test_failures_are_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "PAUSE", 0.0)
    there = Address(f"file://{tmp_path}/gone")
    with pytest.raises(InputError, match=r"gone: cannot be fetched \(there is no such file or folder\)") as error:
        fetch(there, tmp_path / "x")
    assert error.value.passing
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        fetch(Address(f"file://{tmp_path}/folder"), tmp_path / "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file/x: cannot be written"):
        send([(tmp_path / "file", Address(f"file://{tmp_path}/file/x"))])
    with pytest.raises(OutputError, match="cannot be copied"), addresses._told(there, "x", "y"):
        raise OSError(28, "secret")
    for error_of, said in ((TimeoutError("secret"), "no answer in time"), (KeyError("secret"), "KeyError")):
        with pytest.raises(InputError) as told, addresses._told(there, "failed", "y"):
            raise error_of
        assert said in str(told.value) and "secret" not in str(told.value) and told.value.__suppress_context__
    with pytest.raises((WeightsError, InputError)):
        listing(Address("nosuch://x"))


def test_a_case_lies_on_this_disk_only_while_it_is_read(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("m/1.cfl", "m/1.hdr", "m/2.png", "m/masks/2.png"):
        memory.pipe("/" + name, name.encode())
    memory.pipe("/m/list.csv", b"file,group,mask\n2.png,p,masks/2.png\n")
    (measured,) = find_cases_anywhere([Address("memory://m/1.cfl")])
    with on_disk(measured) as here:
        assert here.path.read_bytes() == b"m/1.cfl" and here.path.with_suffix(".hdr").read_bytes() == b"m/1.hdr"
    (case,) = find_cases_anywhere([], manifest=Address("memory://m/list.csv"))
    assert (case.name, case.group, case.file) == ("2", "p", "memory://m/2.png")
    with pytest.raises(InputError, match=r"^memory://m/2.png: is bad$"), on_disk(case) as here:
        assert here.mask.read_bytes() == b"m/masks/2.png"
        raise InputError(f"{here.path}: is bad")
    assert os.listdir(tmp_path) == []


def test_names_and_order_are_those_of_local_files(memory, tmp_path):
    names = ["a/10.png", "a/2.png", "B/1.tif", "a/2.tif", "x.npy"]
    for name in names:
        memory.pipe(f"/m/{name}", b"x")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    there = find_cases_anywhere([Address("memory://m")], group=r"^(\w+)")
    here = find_cases_anywhere([tmp_path], group=r"^(\w+)")
    assert [(case.name, case.group) for case in there] == [(case.name, case.group) for case in here]
    with pytest.raises(InputError, match=r"^memory://m/a/2.png: --group '\^q' names no patient in 'a/2.png'"):
        find_cases_anywhere([Address("memory://m")], group="^q")
