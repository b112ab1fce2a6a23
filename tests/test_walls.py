"""The walls that import-linter cannot see: what is loaded at run time, and what source may not say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {name: ROOT / name / "sardonyx" / name for name in ("models", "export", "runtime")}
HEAVY = {"onnx", "onnx_ir", "torch", "transformers", "optimum", "gguf", "huggingface_hub", "ml_dtypes"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running some code."""
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_running_loads_no_exporter() -> None:
    assert not HEAVY & loaded_by("import sardonyx.runtime.llm")


def test_the_package_itself_loads_nothing_heavy() -> None:
    assert not (HEAVY | {"numpy", "onnxruntime", "jinja2", "tokenizers"}) & loaded_by(
        "import sardonyx.runtime"
    )


def test_help_loads_neither_numpy_nor_onnxruntime() -> None:
    call = "sys.argv = ['sardonyx', '--help']\ntry: main()\nexcept SystemExit: pass"
    code = f"from sardonyx.runtime.cli import main\n{call}"
    assert not (HEAVY | {"numpy", "onnxruntime"}) & loaded_by(code)


def test_telemetry_is_off_before_onnxruntime_starts() -> None:
    code = "import sardonyx.runtime.backends.ort, os\nassert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    assert "onnxruntime" in loaded_by(code)


def test_descriptions_use_the_standard_library_alone() -> None:
    foreign = {
        f"{path.name}: {module}"
        for path in SOURCES["models"].rglob("*.py")
        for module in imported(path)
        if module.partition(".")[0] not in {*sys.stdlib_module_names, "sardonyx"}
    }
    assert not foreign


def test_onnxruntime_is_imported_in_one_place() -> None:
    importers = [
        p.name
        for p in SOURCES["runtime"].rglob("*.py")
        if any(m.startswith("onnxruntime") for m in imported(p))
    ]
    assert importers == ["sessions.py"]


def test_the_runtime_never_asks_a_models_name() -> None:
    assert not [path for path in SOURCES["runtime"].rglob("*.py") if "model_type" in path.read_text("utf-8")]


@pytest.mark.parametrize("name", SOURCES)
def test_the_namespace_stays_a_namespace(name: str) -> None:
    """An `__init__.py` in one source root would hide the other two."""
    assert not (ROOT / name / "sardonyx" / "__init__.py").exists()


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
