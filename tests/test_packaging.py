from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oracles import load

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "streamasr"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

WINGS = {"data", "train", "evaluate", "live", "cli"}
BETWEEN_WINGS = {("train", "data"), ("train", "evaluate"), ("evaluate", "data")}
# search/__init__.py is no stage: it holds what the search hands to the segmenter.
STAGES = {"audio", "resample", "features", "encoder", "search.greedy", "search.beam", "segmenter"}

# Where each foreign package may be imported; what is not listed may be imported nowhere.
FOREIGN = {
    "numpy": ("",),
    "soundfile": ("audio.py",),
    "sounddevice": ("live/microphone.py",),
    "starlette": ("live/server.py",),
    "uvicorn": ("live/server.py", "live/listener.py"),
    "websockets": ("live/client.py",),
    "jiwer": ("evaluate/wer.py",),
    "torch": ("train/",),
    "torchaudio": ("train/",),
    "numba": ("train/", "engine/", "search/kernels.py", "search/choosing.py", "search/stepping.py"),
    "llvmlite": ("train/",),
    "matplotlib": ("train/",),
    "tqdm": ("train/",),
    "threadpoolctl": ("cli/main.py",),
    "tomllib": ("train/",),  # of the standard library from Python 3.11 on
    "tomli": ("train/",),
}
HEAVY = {"torch", "torchaudio", "librosa", "numba", "scipy", "soundfile", "sounddevice", "jiwer", "tqdm"}


@dataclass(frozen=True)
class Import:
    file: str  # relative to the package
    name: str  # absolute, of a module or of a name in one
    running: bool  # when the file itself is imported

    @property
    def inside(self) -> str | None:
        """Dotted name within the package, or None for a foreign module."""
        return self.name.removeprefix("streamasr").removeprefix(".") if self.package == "streamasr" else None

    @property
    def package(self) -> str:
        return self.name.split(".")[0]

    @property
    def wing(self) -> str | None:
        first = (self.inside or "").split(".")[0]
        return first if first in WINGS else None


def imports(path: Path) -> list[Import]:
    """Every import in a file of the package, also those inside functions."""
    file = path.relative_to(PACKAGE).as_posix()
    folder = ["streamasr", *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, running: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, alias.name, running)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield Import(file, ".".join([*module, alias.name]), running)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        only_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, running and not is_function and not only_types)

    return list(visit(ast.parse(path.read_text()), True))


ALL = [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports(path)]


def wing_of(file: str) -> str | None:
    first = file.split("/")[0]
    return first if first in WINGS else None


def test_imports_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "a.py").write_text(
        "import os.path\nfrom ..data import text\nfrom . import main\nfrom .. import audio as sound\n"
        "if TYPE_CHECKING:\n    from ..live.x import Y\ndef f():\n    import streamasr.train.loop\n"
    )
    found = {(i.name, i.wing, i.running) for i in imports(tmp_path / "cli" / "a.py")}
    assert found == {
        ("os.path", None, True),
        ("streamasr.data.text", "data", True),
        ("streamasr.cli.main", "cli", True),
        ("streamasr.audio", None, True),
        ("streamasr.live.x.Y", "live", False),
        ("streamasr.train.loop", "train", False),
    }


def test_the_core_imports_no_wing() -> None:
    core = [i for i in ALL if wing_of(i.file) is None and i.file != "__main__.py"]  # that is the command line
    assert [i for i in core if i.wing] == []


def test_wings_import_only_the_wings_they_may() -> None:
    for found in ALL:
        here, there = wing_of(found.file), found.wing
        if here is None or there is None or here == there or (here, there) in BETWEEN_WINGS:
            continue
        assert here == "cli" and not found.running, found


def test_stages_do_not_import_each_other() -> None:
    for found in ALL:
        here = found.file.removesuffix(".py").replace("/", ".")
        there = next((s for s in STAGES if f"{found.inside}.".startswith(f"{s}.")), None)
        assert here not in STAGES or there in (None, here), found


def test_foreign_packages_stay_where_they_belong() -> None:
    for found in ALL:
        if found.package == "streamasr" or found.package == "__future__":
            continue
        if found.package in FOREIGN:
            assert found.file.startswith(FOREIGN[found.package]), found
        else:
            assert found.package in sys.stdlib_module_names, found


def test_what_is_imported_is_declared() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    declared = {
        re.split(r"[^\w-]", line)[0] for line in project["dependencies"] + extras["train"] + extras["serve"]
    }
    declared |= {"llvmlite", "tomllib"}  # comes with numba; is in Python
    assert {i.package for i in ALL if i.package in FOREIGN} <= declared


def test_importing_the_package_is_light() -> None:
    code = "import sys, streamasr; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert loaded & HEAVY == set()


def test_version_and_changelog_agree() -> None:
    version = PROJECT["project"]["version"]
    assert importlib.metadata.version("streamasr") == version, "pip install -e . again"
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_ranges_keep_torch_small() -> None:
    project = PROJECT["project"]
    assert set(project["optional-dependencies"]) == {"train", "serve", "dev"}
    assert "torch>=2.11,<2.14" in project["dependencies"]
    assert "torchaudio>=2.11,<2.12" in project["dependencies"]
    assert '"torch>=2.11,<2.14"' in (ROOT / "Makefile").read_text()  # installed first, same range
    assert PROJECT["build-system"]["requires"] == ["hatchling"]
    assert "+cpu" not in (ROOT / "pyproject.toml").read_text()  # cannot be satisfied from the usual index


def test_packaged_models_are_small_and_have_cards() -> None:
    folders = {path.name: path for path in (PACKAGE / "models").iterdir()}
    assert set(folders) == {"en", "en-tiny"}
    sizes = {name: sum(file.stat().st_size for file in path.iterdir()) for name, path in folders.items()}
    assert sizes["en-tiny"] <= 3_000_000 and sum(sizes.values()) <= 40_000_000
    for name, path in folders.items():
        assert (path / "MODEL_CARD.md").read_text().startswith(f"# {name}: ")


def test_the_wheel_holds_the_package_and_its_models_and_nothing_else(tmp_path: Path) -> None:
    load("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"streamasr/__init__.py", "streamasr/py.typed", "streamasr/cli/main.py"} <= names
    assert "streamasr/live/web/index.html" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"streamasr"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    models = {path.relative_to(ROOT).as_posix() for path in (PACKAGE / "models").rglob("*") if path.is_file()}
    assert models <= names
