"""Folders, files and queries that are broken: one sentence that names file and field, and never a crash of the process."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dse_kernels import xmc, xmc_npz
from dse_kernels.xmc_model import Fault, column_fault
from dse_kernels.xmc_pecos import read_pecos
from dse_kernels.xmc_reference import column_fault_reference
from scipy import sparse

from .xmc_models import PECOS_SMALL, bits, random_queries, random_ranker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PECOS_SMALL, tmp_path / "model"))


def _rewrite(path: Path, **changes: object) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name, change in changes.items():
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays[name]) if callable(change) else np.asarray(change)
    np.savez(path, **arrays)


def _json(path: Path, **changes: object) -> None:
    settings = json.loads(path.read_text())
    settings.update(changes)
    path.write_text(json.dumps(settings))


def _set(value: object, at: int = 5) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        out = array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array.copy()
        out[at] = value
        return out

    return change


W, C, PARAM = "ranker/1.model/W.npz", "ranker/2.model/C.npz", "ranker/1.model/param.json"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing weights": (lambda f: (f / W).unlink(), r"1\.model/W\.npz: is missing"),
    "missing levels": (lambda f: shutil.rmtree(f / "ranker/2.model"), r"2\.model/param\.json: is missing"),
    "truncated": (lambda f: (f / W).write_bytes((f / W).read_bytes()[:3000]), r"W\.npz: cannot be read"),
    "empty": (lambda f: (f / W).write_bytes(b""), r"W\.npz: cannot be read"),
    "text": (lambda f: (f / W).write_text("no archive"), r"W\.npz: "),
    "no data": (lambda f: _rewrite(f / W, data=None), r"W\.npz: data is missing"),
    "nan": (lambda f: _rewrite(f / W, data=_set(np.nan)), r"W\.npz: data holds a number that is not finite"),
    "infinite": (lambda f: _rewrite(f / W, data=_set(np.inf)), r"W\.npz: data holds a number that is not finite"),
    "overflow": (lambda f: _rewrite(f / W, data=lambda d: d.astype(np.float64) * 1e300), r"W\.npz: data holds a number"),
    "row beyond": (lambda f: _rewrite(f / W, indices=_set(501)), r"W\.npz: indices .* are not all in 0\.\.500"),
    "row negative": (lambda f: _rewrite(f / W, indices=_set(-1)), r"W\.npz: indices -1\.\."),
    "unsorted": (
        lambda f: _rewrite(f / W, indices=lambda i: np.r_[i[1], i[0], i[2:]]),
        r"W\.npz: row indices of column 0 are unsorted or duplicated",
    ),
    "duplicated": (
        lambda f: _rewrite(f / W, indices=lambda i: np.r_[i[1], i[1:]]),
        r"W\.npz: row indices of column 0 are unsorted or duplicated",
    ),
    "indptr falls": (lambda f: _rewrite(f / W, indptr=_set(0)), r"W\.npz: indptr .* does not rise"),
    "indptr short": (lambda f: _rewrite(f / W, indptr=lambda p: p[:-1]), r"W\.npz: indptr "),
    "strings": (lambda f: _rewrite(f / W, data=lambda d: d.astype("U8")), r"W\.npz: data of type"),
    "coo": (lambda f: _rewrite(f / W, format=b"coo"), r"W\.npz: format 'coo' is not csc or csr"),
    "huge shape": (lambda f: _rewrite(f / W, shape=[2**40, 16]), r"W\.npz: shape"),
    "other features": (lambda f: _rewrite(f / W, shape=[700, 16]), r"1\.model: W has 699 features .* level 0 has 500"),
    "two parents": (lambda f: _rewrite(f / C, indices=_set(0, -1)), r"2\.model: C gives node \d+ two parents"),
    "label beyond": (lambda f: _rewrite(f / C, indices=_set(240)), r"C\.npz: indices .* are not all in 0\.\.239"),
    "depth": (lambda f: _json(f / "ranker/param.json", depth="3"), r"param\.json: depth '3' is not an integer"),
    "levels left out": (lambda f: _json(f / "ranker/param.json", depth=2), r"param\.json: nr_labels is 240, the matrices have"),
    "not json": (lambda f: (f / PARAM).write_text("{"), r"param\.json: is not JSON"),
    "deep json": (lambda f: (f / PARAM).write_text("[" * 100000), r"param\.json: is not JSON"),
    "a list": (lambda f: (f / PARAM).write_text("[]"), r"param\.json: is not a JSON object"),
    "no bias": (lambda f: _json(f / PARAM, bias=None), r"param\.json: bias None is not a number"),
    "other bias": (lambda f: _json(f / PARAM, bias=-1.0), r"1\.model: W has 501 features"),
    "post-processor": (
        lambda f: _json(f / PARAM, pred_kwargs={"only_topk": 20, "post_processor": "l3hinge"}),
        r"param\.json: post_processor 'l3hinge' is not known \(did you mean 'l3-hinge'\?\)",
    ),
    "only_topk": (lambda f: _json(f / PARAM, pred_kwargs={"only_topk": 0, "post_processor": "noop"}), r"only_topk 0 is not a positive"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_are_named(folder: Path, case: str) -> None:
    change, message = BROKEN[case]
    change(folder)
    with pytest.raises(xmc.ModelError, match=message) as caught:
        xmc.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither tree\.xmc nor a PECOS ranker"):
        xmc.load(tmp_path)


def test_pickled_arrays_are_refused(folder: Path) -> None:
    np.savez(folder / W, **{n: np.array([{}], dtype=object) for n in ("data", "indices", "indptr", "shape", "format")})
    with pytest.raises(xmc.ModelError, match=r"W\.npz: cannot be read"):
        xmc.load(folder)


def test_forms_that_are_read_too(folder: Path) -> None:
    """CSR weights, a compressed archive, a root without C, the ranker's own folder: the same tree."""
    queries = sparse.load_npz(folder / "queries.npz")
    expected = xmc.load(PECOS_SMALL).predict(queries)
    sparse.save_npz(folder / W, sparse.load_npz(folder / W).tocsr(), compressed=True)
    (folder / "ranker/0.model/C.npz").unlink()
    for path in (folder, folder / "ranker"):
        got = xmc.load(path).predict(queries)
        assert np.array_equal(got[0], expected[0]) and np.array_equal(bits(got[1]), bits(expected[1]))


def test_written_folders_read_back(tmp_path: Path) -> None:
    ranker = xmc.read_pecos(PECOS_SMALL)
    xmc.write_pecos(ranker, tmp_path)
    again = xmc.read_pecos(tmp_path)
    for a, b in zip(ranker.levels, again.levels, strict=True):
        assert (a.weights != b.weights).nnz == 0 and a.parents.indices.tolist() == b.parents.indices.tolist()
        assert (a.bias, a.post_processor, a.only_topk) == (b.bias, b.post_processor, b.only_topk)
    for name in ("param.json", "ranker/param.json", "ranker/2.model/param.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((PECOS_SMALL / name).read_text())


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_mapped_file_answers_like_memory(tmp_path: Path, weights: str) -> None:
    ranker = xmc.read_pecos(PECOS_SMALL)
    queries = sparse.load_npz(PECOS_SMALL / "queries.npz")
    file = xmc.save(ranker, tmp_path, weights)
    assert [p.name for p in tmp_path.iterdir()] == ["tree.xmc"]
    mapped, built = xmc.load(tmp_path), xmc.build(ranker, weights)
    assert mapped.weights == weights and mapped.nbytes == file.stat().st_size
    for a, b in zip(mapped.predict(queries), built.predict(queries), strict=True):
        assert np.array_equal(a, b)
    if weights != "int8":
        with pytest.raises(xmc.ModelError, match="not int8"):
            xmc.load(file, "int8")


KEPT = """
import ctypes, resource, sys
from dse_kernels import xmc
c = ctypes.CDLL(None)
if not hasattr(c, "malloc_trim"):
    sys.exit(77)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
c.mallopt(-1, 1 << 30), c.mallopt(-3, 1 << 30)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: what is freed stays
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
held = [c.malloc(100_000) for _ in range(400)]
for block in held:
    ctypes.memset(block, 1, 100_000)
for block in held:
    c.free(block)
before = resident()
tree = xmc.load(sys.argv[1])
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_a_folder_gives_freed_memory_back(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KEPT, str(folder)], check=False, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("the C library keeps no freed memory that it could be asked for")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30_000_000  # of the 40 MB that were freed before


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(xmc.ModelError, match="'float64' is not one of float32, float16, int8"):
        xmc.save(xmc.read_pecos(PECOS_SMALL), tmp_path, "float64")
    assert list(tmp_path.iterdir()) == []


def test_broken_files_are_named(tmp_path: Path) -> None:
    file = xmc.save(xmc.read_pecos(PECOS_SMALL), tmp_path)
    whole = file.read_bytes()
    for cut in (0, 50, 127, 128, 400, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(xmc.ModelError, match=r"tree\.xmc: (header|bytes)"):
            xmc.load(tmp_path)
    file.write_bytes(b"X" + whole[1:])
    with pytest.raises(xmc.ModelError, match="magic"):
        xmc.load(tmp_path)


def test_every_byte_of_the_headers_may_be_wrong(tmp_path: Path) -> None:
    file = xmc.save(xmc.read_pecos(PECOS_SMALL), tmp_path)
    whole = np.fromfile(file, np.uint8)
    queries = sparse.load_npz(PECOS_SMALL / "queries.npz")[:3]
    rng = np.random.default_rng(0)
    refused = 0
    for at in range(128 + 3 * 112):
        changed = np.empty(whole.size + 64, np.uint8)[-0:]
        room = np.empty(whole.size + 64, np.uint8)
        changed = room[-room.ctypes.data % 64 :][: whole.size]
        changed[:] = whole
        changed[at] ^= np.uint8(rng.integers(1, 256))
        try:
            tree = xmc.Tree(changed, "tree.xmc")
            if tree.features == 500:
                tree.predict(queries)
                tree.count(queries)
        except (xmc.ModelError, UnicodeDecodeError):
            refused += 1
    assert refused > 200


def test_faults_of_columns_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(6)
    seen = set()
    for _ in range(300):
        w = sparse.random(9, 6, 0.5, "csc", np.float32, rng=rng)
        w.sort_indices()
        for _ in range(int(rng.integers(0, 3))):
            at = int(rng.integers(0, w.nnz))
            what = int(rng.integers(0, 4))
            if what < 2:
                w.indices[at] = (-1, 9)[what] if rng.random() < 0.5 else rng.integers(0, 9)
            else:
                w.data[at] = (np.nan, np.inf)[what - 2]
        for ordered in (True, False):
            fault, column = column_fault(w.indptr, w.indices, w.data, 9, ordered=ordered)
            assert (fault.name, column) == column_fault_reference(w.indptr, w.indices, w.data, 9, ordered)
            seen.add(fault)
    assert seen == set(Fault)


def test_a_member_that_lies_about_its_size_is_named(folder: Path) -> None:
    """A header that promises more than the member holds: told before room is made for it."""
    with zipfile.ZipFile(folder / W) as file:
        members = {name: file.read(name) for name in file.namelist()}
    shape = members["data.npy"].split(b"'shape': (")[1].split(b",")[0]
    lie = b"9" * 15  # terabytes
    members["data.npy"] = members["data.npy"].replace(b"(" + shape + b",), }" + b" " * (len(lie) - len(shape)), b"(" + lie + b",), }", 1)
    with zipfile.ZipFile(folder / W, "w") as file:
        for name, held in members.items():
            file.writestr(name, held)
    with pytest.raises(xmc.ModelError, match=r"W\.npz: cannot be read as npz \(ValueError: data: .* is not what the member holds"):
        xmc.load(folder)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_of_a_weight_is_seen(folder: Path, compression: int) -> None:
    with zipfile.ZipFile(folder / W) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(folder / W, "w", compression) as file:
        for name, held in members.items():
            file.writestr(name, held)
        info = file.getinfo("data.npy")
    whole = bytearray((folder / W).read_bytes())
    whole[info.header_offset + 30 + len("data.npy") + info.compress_size - 2] ^= 1
    (folder / W).write_bytes(whole)
    with pytest.raises(xmc.ModelError, match=r"W\.npz: cannot be read as npz"):
        xmc.load(folder)


@pytest.mark.parametrize("dtypes", [("<i4", "<f4"), ("<i8", "<f8"), (">i4", ">f4"), ("<u2", "<f2")])
def test_mapped_weights_are_those_that_are_read(folder: Path, dtypes: tuple[str, str]) -> None:
    """Whatever types and addresses they have in the archive; and they are not written to."""
    _rewrite(folder / W, indices=lambda i: i.astype(dtypes[0]), data=lambda d: d.astype(dtypes[1]))
    _rewrite(folder / "ranker/0.model/W.npz")  # uncompressed, with the types of the kernel
    read, mapped = xmc.read_pecos(folder), read_pecos(folder, mapped=True)
    for a, b in zip(read.levels, mapped.levels, strict=True):
        assert np.array_equal(a.weights.data, b.weights.data) and np.array_equal(a.weights.indices, b.weights.indices)
        assert a.weights.data.flags.writeable and a.weights.data.flags.aligned
    kept = mapped.levels[0].weights
    assert not (kept.data.flags.writeable or kept.indices.flags.writeable)
    assert not (kept.data.flags.aligned and kept.indices.flags.aligned)  # nothing pads members: the case is met
    built, queries = xmc.build(read), sparse.load_npz(folder / "queries.npz")
    for one, other in zip(xmc.load(folder).predict(queries), built.predict(queries), strict=True):
        assert np.array_equal(one, other)


def test_a_system_without_maps_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> object:
        raise OSError(19, "No such device")

    _rewrite(folder / W)
    expected = xmc.read_pecos(folder)
    monkeypatch.setattr(xmc_npz.mmap, "mmap", refuse)
    for a, b in zip(expected.levels, read_pecos(folder, mapped=True).levels, strict=True):
        assert np.array_equal(a.weights.data, b.weights.data) and b.weights.data.flags.writeable


def test_archives_with_any_byte_changed_or_cut_anywhere(folder: Path) -> None:
    """One sentence, or the tree as it was (dates and the like mean nothing): never other weights, never the end of the process."""
    _rewrite(folder / W)
    whole = (folder / W).read_bytes()
    queries = sparse.load_npz(folder / "queries.npz")[:20]
    expected = xmc.load(folder).predict(queries)
    directory = whole.rindex(b"PK\x01\x02", 0, whole.index(b"PK\x01\x02") + 4)
    locals_ = [i for i in range(directory) if whole.startswith(b"PK\x03\x04", i)]
    headers = np.concatenate([np.arange(i, i + 200) for i in locals_] + [np.arange(directory, len(whole))])
    rng = np.random.default_rng(11)
    told = []
    for at in (*rng.choice(headers, 250, replace=False), *rng.integers(0, len(whole), 50)):
        changed = bytearray(whole)
        changed[at] ^= int(rng.integers(1, 256))
        if rng.random() < 0.1:
            del changed[at:]
        (folder / W).write_bytes(changed)
        try:
            found = xmc.load(folder).predict(queries)
        except xmc.ModelError as error:
            told.append(str(error))
        else:
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(told) > 150
    assert all("1.model" in text and "\n" not in text for text in told)


@pytest.mark.parametrize("field", ["file_size", "compress_size"])
def test_a_directory_that_promises_more_than_the_file_is_named(folder: Path, field: str) -> None:
    _rewrite(folder / W)
    with zipfile.ZipFile(folder / W) as archive, (folder / W).open("rb") as raw:
        info = archive.getinfo("data.npy")
        held = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
        setattr(info, field, getattr(info, field) + len(held))
        with pytest.raises(EOFError, match=r"data\.npy: \d+ bytes leave the file"):
            xmc_npz._view(held, info, 128, (1,), np.dtype(np.float32))


QUERIES: dict[str, tuple[Callable[[sparse.csr_matrix], object], str]] = {
    "nan": (lambda x: x.data.__setitem__(3, np.nan), r"value of feature \d+ in row \d+ is not a finite number"),
    "infinite": (lambda x: x.data.__setitem__(3, np.inf), r"is not a finite number"),
    "beyond": (lambda x: x.indices.__setitem__(int(x.indptr[2]) - 1, 90), r"feature 90 in row 1 is not in 0\.\.89"),
    "negative": (lambda x: x.indices.__setitem__(int(x.indptr[1]), -4), r"feature -4 in row 1"),
    "duplicated": (lambda x: x.indices.__setitem__(1, int(x.indices[0])), r"features of row 1 are duplicated"),
    "unsorted": (lambda x: x.indices.__setitem__(slice(0, 2), x.indices[1::-1].copy()), r"features of row 1 are unsorted"),
    "indptr": (lambda x: x.indptr.__setitem__(2, int(x.indptr[3]) + 1), r"indptr decreases at row 2"),
    "span": (lambda x: x.indptr.__setitem__(-1, int(x.indptr[-1]) - 1), r"indptr (does not span|decreases)"),
}


@pytest.mark.parametrize("case", QUERIES)
def test_broken_queries_are_named(case: str) -> None:
    rng = np.random.default_rng(1)
    tree = xmc.build(random_ranker(rng, (3, 30), 90, 0.3))
    queries = random_queries(rng, 5, 90, 0.2)
    change, message = QUERIES[case]
    change(queries)
    for call in (tree.predict, tree.count):
        with pytest.raises(xmc.ModelError, match=message):
            call(queries)


def test_wrong_arguments_are_named() -> None:
    rng = np.random.default_rng(1)
    tree = xmc.build(random_ranker(rng, (3, 30), 90, 0.3))
    queries = random_queries(rng, 2, 90, 0.2)
    with pytest.raises(xmc.ModelError, match="89 features, the tree has 90"):
        tree.predict(queries[:, :89])
    with pytest.raises(xmc.ModelError, match="a CSR matrix is needed, got csc"):
        tree.predict(queries.tocsc())
    with pytest.raises(xmc.ModelError, match="a CSR matrix is needed, got ndarray"):
        tree.predict(queries.toarray())
    for wrong in ({"beam": 0}, {"topk": 0}, {"topk": 2**21}, {"threads": 0}):
        with pytest.raises(xmc.ModelError, match=next(iter(wrong))):
            tree.predict(queries, **wrong)
    with pytest.raises(xmc.ModelError, match="post_processor 'l3' is not known"):
        tree.predict(queries, post_processor="l3")
    assert tree.predict(queries[:0])[0].shape == (0, 100)
    with pytest.raises(xmc.ModelError, match="feature 90"):
        tree.predict_one(np.array([90], np.int32), np.ones(1, np.float32))
    with pytest.raises(xmc.ModelError, match="feature 4294967296"):
        tree.predict_one(np.array([2**32]), np.ones(1, np.float32))
    with pytest.raises(xmc.ModelError, match="not a finite number"):
        tree.predict_one(np.array([3], np.int32), np.array([np.nan], np.float32))
    with pytest.raises(xmc.ModelError, match="as many values as indices"):
        tree.predict_one(np.array([3, 4], np.int32), np.ones(1, np.float32))
    with pytest.raises(xmc.ModelError, match="one-dimensional arrays of integers"):
        tree.predict_one(np.array(["a"]), np.ones(1, np.float32))


@pytest.mark.skipif(shutil.which("g++") is None or not sys.platform.startswith("linux"), reason="needs g++ with its sanitizers")
def test_fuzzed_under_address_and_undefined_behaviour_sanitizers(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = root / "kernels" / "src"
    program = tmp_path / "fuzz"
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-ffp-contract=off", f"-I{source}"]
    files = [str(source / f"xmc_{name}.cpp") for name in ("format", "build", "score", "search")]
    built = subprocess.run(
        ["g++", *flags, str(Path(__file__).with_name("xmc_fuzz.cpp")), *files, "-o", str(program)],
        check=False,
        capture_output=True,
        text=True,
    )
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("the sanitizers' libraries are not installed")
    assert built.returncode == 0, built.stderr
    for weights in ("float32", "float16", "int8"):
        file = xmc.save(random_ranker(np.random.default_rng(4), (3, 20, 300), 120, 0.2), tmp_path / f"{weights}.xmc", weights)
        run = subprocess.run(
            [str(program), str(file), "400"],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "ASAN_OPTIONS": "abort_on_error=0"},
        )
        assert run.returncode == 0, run.stdout + run.stderr
        opened, answered, refused = (int(n) for n in run.stdout.split())
        assert opened > 80 and answered > 80 and refused > 80  # each way out was taken
