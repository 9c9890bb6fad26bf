"""The package: what is on disk, what is listed and what is linked agree; the wheel works outside the checkout."""

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = ("passes", "backends", "targets", "calibration")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders() -> set[str]:
    """Every package on disk, by its import name."""
    found = set()
    for top in ("compactor", *PLUGINS):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if top == "compactor" and len(parts) > 1 and parts[1] in PLUGINS:
                continue  # through a link
            found.add(".".join(parts if top == "compactor" else ("compactor", *parts)))
    return found


def test_folders_are_listed() -> None:
    listed = SETUP["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders())
    assert SETUP["tool"]["setuptools"]["include-package-data"] is False


def test_folders_are_linked() -> None:
    mapping = {"compactor": "compactor", **{f"compactor.{name}": name for name in PLUGINS}}
    assert SETUP["tool"]["setuptools"]["package-dir"] == mapping
    for name in PLUGINS:
        link = ROOT / "compactor" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_every_module_has_a_docstring() -> None:
    for top in ("compactor", *PLUGINS):
        for path in (ROOT / top).rglob("*.py"):
            assert path.read_text().lstrip().startswith(('"""', "#")), f"{path.relative_to(ROOT)} has no docstring"


def test_entry_points_load() -> None:
    from compactor import registry

    for group, points in SETUP["project"]["entry-points"].items():
        assert set(registry.names(group)) == set(points), f"{group}: install again with `make setup`"
        for name in points:
            registry.load(group, name)


@pytest.mark.slow
def test_wheel_outside_the_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("compactor", *PLUGINS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert {n.split("/")[0] for n in names} == {"compactor"}
    for package in folders():
        assert f"{package.replace('.', '/')}/__init__.py" in names
    assert "compactor/py.typed" in names
    assert any(n.startswith("compactor/targets/profiles/") and n.endswith(".toml") for n in names)
    _use(wheel, tmp_path)


def _use(wheel: Path, folder: Path) -> None:
    """Install without dependencies beside those of this environment, and run the command."""
    venv.create(folder / "venv", with_pip=False, system_site_packages=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    ours = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "others.pth").write_text(f"import sys; sys.path.append({ours!r})\n")
    code = (
        "import compactor, compactor.passes, compactor.backends, sys; from pathlib import Path;"
        "assert Path(compactor.__file__).is_relative_to(sys.prefix), compactor.__file__;"
        "from compactor.cli.main import run; sys.exit(run(['targets', 'list', '--json']))"
    )
    done = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "host-cpu" in done.stdout
