"""README and docs are executed: Python blocks run, commands run or at least parse, the tree is the tree."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


COMMANDS = [
    shlex.split(line)
    for page in PAGES
    for block in blocks(page.read_text(), "sh")
    for line in block.splitlines()
    if line.startswith("streamasr ")
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's examples name."""
    sample = ROOT / "demo" / "samples" / "garden.flac"
    shutil.copy(sample, tmp_path / "talk.flac")
    shutil.copy(sample, tmp_path / "a.flac")
    line = (
        '{"id": "a", "audio": "a.flac", "text": "all the children played in the garden until it was dark"}\n'
    )
    (tmp_path / "corpus.jsonl").write_text(line)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_blocks_of_the_readme_run(desk: Path, shipped: object) -> None:
    found = blocks(README, "python")
    assert len(found) >= 2
    source = "\n".join(found)
    exec(compile(source, "README.md", "exec"), {})


def test_python_blocks_of_the_docs_run(desk: Path, shipped: object) -> None:
    for page in PAGES[1:]:
        for block in blocks(page.read_text(), "python"):
            exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_of_the_docs(command: list[str], desk: Path, shipped: object) -> None:
    name = command[1]
    if name in ("train", "train-lm"):  # hours: the configuration and its overrides are what can be wrong
        from streamasr.train import config, lm

        overrides = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
        assert (config if name == "train" else lm).read(Path(command[2]), overrides).name
        return
    if name in ("listen", "serve") and "--list-devices" not in command:
        command = [*command, "--help"]  # would wait for a voice, or for clients
    done = subprocess.run(
        [sys.executable, "-m", "streamasr.cli.main", *command[1:]], capture_output=True, text=True
    )
    if name == "listen" and done.returncode in (1, 2):  # the one clear line of a machine that cannot
        assert ("PortAudio" if done.returncode == 2 else "no microphone found") in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_commented_tree_is_the_tree() -> None:
    (tree,) = [b for b in blocks(README, "text") if "streamasr/" in b]
    named = set(re.findall(r"[\w./]+(?:\.py|/)", tree))
    here = {path.name for path in (ROOT / "streamasr").rglob("*.py") if path.name != "__init__.py"}
    here |= {path.name + "/" for path in (ROOT / "streamasr").iterdir() if path.is_dir()} - {"__pycache__/"}
    assert here - named == set(), "missing in README's tree"
    files = {name for name in named if name.endswith(".py")}
    assert files - here == {"__init__.py"}, "in README's tree only"


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
