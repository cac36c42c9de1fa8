"""The wheel, built from the sdist, installed into an environment of its own: it opens a store without the checkout."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="the dependency group `build` is not installed")
pytest.importorskip("hatchling", reason="the dependency group `build` is not installed")

ROOT = Path(__file__).parents[2]
PACKAGE = "sessionstore"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="there is no checkout to build from"),
]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    build("--sdist", ROOT, folder)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from nothing but the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    build("--wheel", source, folder)
    (built,) = folder.glob("*.whl")
    return built


def build(kind: str, source: Path, target: Path) -> None:
    """Build without isolation: the backend is here, and a test needs no network."""
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel and, by a .pth, the dependencies, but not the checkout."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=os.name == "posix")
    scripts = sysconfig.get_path("scripts", "venv", {"base": str(folder), "platbase": str(folder)})
    interpreter = Path(scripts) / Path(sys.executable).name
    if not interpreter.exists():
        interpreter = Path(scripts) / ("python.exe" if os.name == "nt" else "python")
    purelib = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(purelib)
    # Paths in a .pth are searched after this environment's own; the .pth files of those folders are not read, so an
    # editable install of the checkout stays unseen.
    (purelib / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return interpreter


def run(python: Path, *given: str, cwd: Path) -> str:
    """What a command of the installed package prints; it runs outside of the checkout, with a clean environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SESSIONSTORE"))}
    done = subprocess.run([str(python), *given], capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_sdist_holds_what_is_needed_to_build_and_to_test(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "alembic.ini", "README.md", "CHANGELOG.md", "LICENSE", "migrations/env.py", "sessionstore/py.typed"}
    assert needed <= names
    assert {"migrations/versions/0001_initial.py", "tests/conftest.py", "tests/integration/test_packaging.py"} <= names
    assert [name for name in names if "__pycache__" in name or name.endswith((".db", ".pyc"))] == []


def test_the_wheel_holds_the_package_and_the_migrations_only(wheel: Path) -> None:
    names = names_in(wheel)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {PACKAGE}
    assert f"{PACKAGE}/py.typed" in names
    assert f"{PACKAGE}/_migrations/env.py" in names
    here = {f"{PACKAGE}/_migrations/versions/{path.name}" for path in (ROOT / "migrations" / "versions").glob("*.py")}
    assert here <= set(names)
    assert [name for name in names if "__pycache__" in name or name.endswith((".db", ".pyc"))] == []


def test_the_wheel_holds_every_module_of_the_checkout(wheel: Path) -> None:
    files = [path for path in (ROOT / PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    here = {path.relative_to(ROOT).as_posix() for path in files}
    assert here <= set(names_in(wheel))


def test_the_installed_package_opens_a_store(python: Path, tmp_path: Path) -> None:
    """The revisions that it runs are those inside of the wheel."""
    program = """
import json, sessionstore
from sessionstore.database import upgrade
with sessionstore.open("a.db") as store:
    chat = store.session("s", tags=["t"])
    chat.append("user", "x")
    print(json.dumps([sessionstore.__file__, str(upgrade.migrations_folder()), store.status().schema_revision, store.doctor().ok,
                      [message.text for message in chat.messages()], sessionstore.__version__]))
"""
    file, migrations, revision, sound, texts, version = json.loads(run(python, "-c", program, cwd=tmp_path))
    assert not Path(file).is_relative_to(ROOT)
    assert Path(migrations) == Path(file).parent / "_migrations"
    assert (sound, texts) == (True, ["x"])
    assert revision >= "0001"
    assert version


def test_the_installed_command_line_tells_its_verbs(python: Path, tmp_path: Path) -> None:
    if not (ROOT / PACKAGE / "__main__.py").is_file():
        pytest.skip("this version has no command line yet")
    pytest.importorskip("typer", reason="the extra `cli` is not installed")
    said = run(python, "-m", PACKAGE, "--help", cwd=tmp_path)
    assert "upgrade" in said
    assert "doctor" in said
