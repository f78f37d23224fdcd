# SPDX-License-Identifier: Apache-2.0
"""Installation: with a compiler, without one, and what a source archive holds."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = ("c++", "g++", "clang++")
#: A layer on the CPU twice, and whether a dense convolution gives the same; prints "ok, backend, number of warnings".
SMOKE = """
import sys, warnings
if "hide" in sys.argv:
    sys.modules["vision3d.sparse._native"] = None
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    import torch
    from vision3d import sparse
    from vision3d.sparse.backends import explain
    torch.manual_seed(0)
    dense = torch.nn.Conv3d(3, 5, 3, padding=1)
    values = torch.randn(2, 3, 6, 7, 5) * (torch.rand(2, 1, 6, 7, 5) < 0.3)
    x = sparse.SparseTensor.from_dense(values)
    layer = sparse.convert_sparse(dense)
    for _ in range(2):
        out = layer(x)
    batch, *space = out.coords.long().unbind(1)
    torch.testing.assert_close(out.feats, dense(values)[(batch, slice(None), *space)], rtol=1e-5, atol=1e-5)
    sparse.functional.max_pool(out, 2).feats.sum().backward()
ours = [w for w in found if "vision3d" in str(w.message)]
assert all(w.category is RuntimeWarning for w in ours), ours
print("ok,", explain("cpu"), len(ours), "warnings", *(str(w.message) for w in ours), sparse.__file__, sep="|")
"""


def smoke(python: str, *arguments: str, cwd: Path | None = None) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VISION3D_SPARSE_BACKEND")}
    found = subprocess.run(
        [python, "-c", SMOKE, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip().split("|")


def test_without_the_compiled_module_the_reference_works_after_one_warning() -> None:
    result = smoke(sys.executable, "hide", cwd=ROOT)
    assert result[1:3] == ["reference (the compiled engine is not installed)", "1"]
    assert "installed without its compiled engine; sparse layers use the slow reference backend" in result[4]


def test_without_the_compiled_module_native_cannot_be_asked_for() -> None:
    program = (
        "import sys; sys.modules['vision3d.sparse._native'] = None; "
        "import vision3d.sparse as s; s.backend('native').__enter__()"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 1
    assert re.search(r"(ImportError|ModuleNotFoundError): .*_native", found.stderr)


def test_with_the_compiled_module_there_is_no_warning() -> None:
    pytest.importorskip("vision3d.sparse._native")
    assert smoke(sys.executable, cwd=ROOT)[1:3] == ["native (tensors on the CPU)", "0"]


def test_the_type_stub_has_every_function_and_argument() -> None:
    native = pytest.importorskip("vision3d.sparse._native")
    stub = ast.parse((ROOT / "vision3d/sparse/_native.pyi").read_text())
    written = {f.name: [a.arg for a in f.args.args] for f in stub.body if isinstance(f, ast.FunctionDef)}
    compiled = {}
    for name in dir(native):
        for signature, *_ in getattr(getattr(native, name), "__nb_signature__", ()):
            arguments = re.sub(r"\[[^][]*\]", "", re.sub(r"\[[^][]*\]", "", signature)).partition("->")[0]
            compiled[name] = re.findall(r"(\w+):", arguments)
    assert written == compiled


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
@pytest.mark.skipif(not any(shutil.which(c) for c in COMPILERS), reason="no C++ compiler")
def test_a_checkout_with_a_compiler_has_the_compiled_module() -> None:
    """A build that fails falls back to Python without an error: a mistake in the C++ sources must not pass for that."""
    assert find_spec("vision3d.sparse._native") is not None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, and of nothing else, as git knows them."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        source, target = ROOT / name, folder / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


@pytest.mark.slow
def test_source_archive(checkout: Path, tmp_path: Path) -> None:
    """Everything a build needs and nothing that one leaves behind."""
    tools = tmp_path / "tools"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools), "scikit-build-core>=0.11"]
    subprocess.run(install, check=True)
    for leftover in ("build/x/CMakeCache.txt", "vision3d/sparse/_native.so", "dist/old.whl", "runs/a/log.txt"):
        (checkout / leftover).parent.mkdir(parents=True, exist_ok=True)
        (checkout / leftover).write_text("left over")
    program = "import sys, scikit_build_core.build as b; print(b.build_sdist(sys.argv[1]))"
    found = {**os.environ, "PYTHONPATH": str(tools)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=checkout, check=True, env=found)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    native = {str(path.relative_to(checkout)) for path in (checkout / "vision3d/sparse/native").rglob("*.[ch]*")}
    assert {"CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "PKG-INFO", *native} <= names
    assert [
        n for n in names if n.endswith((".so", ".o", ".pyc", ".whl")) or n.startswith(("build/", "dist/", "runs/"))
    ] == []


def environment(folder: Path, wheel: Path) -> str:
    """A new virtual environment with the wheel and, through a .pth file, this environment's torch; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def wheel_of(checkout: Path, folder: Path, **changes: str) -> tuple[Path, float]:
    """Built by pip in isolation, from sources alone; the seconds it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", str(folder), "-v"]
    found = subprocess.run(
        command, cwd=checkout, env={**os.environ, **changes}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    (wheel,) = folder.glob("*.whl")
    return wheel, time.monotonic() - start


@pytest.mark.slow
@pytest.mark.skipif(not any(shutil.which(c) for c in COMPILERS), reason="no C++ compiler")
def test_wheel(checkout: Path, tmp_path: Path) -> None:
    wheel, seconds = wheel_of(checkout, tmp_path / "wheels")
    assert seconds < 180
    names = zipfile.ZipFile(wheel).namelist()
    assert [n for n in names if re.fullmatch(r"vision3d/sparse/_native\..*(so|pyd)", n)]
    assert [n for n in names if n.startswith(("build/", "tests/")) or n.endswith((".cpp", ".h"))] == []
    result = smoke(environment(tmp_path / "venv", wheel), cwd=tmp_path)
    assert result[1:3] == ["native (tensors on the CPU)", "0"]
    assert result[-1].startswith(str(tmp_path / "venv"))


@pytest.mark.slow
def test_wheel_without_compiler_cmake_and_ninja(checkout: Path, tmp_path: Path) -> None:
    """pip fetches CMake and Ninja; without a compiler the wheel is made all the same, and says so when it is used."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "env", "uname", "git"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    (tools / "python3").symlink_to(sys.executable)
    hidden = {"PATH": str(tools), "CXX": "/nonexistent/c++", "CC": "/nonexistent/cc"}
    wheel, _ = wheel_of(checkout, tmp_path / "wheels", **hidden)
    assert [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith((".so", ".pyd"))] == []
    result = smoke(environment(tmp_path / "venv", wheel), cwd=tmp_path)
    assert result[1:3] == ["reference (the compiled engine is not installed)", "1"]
    assert result[-1].startswith(str(tmp_path / "venv"))
