"""What a wheel holds: conf/ within the package, so that the command line's names work wherever it is installed; the
plug-in of Hydra; and the style and the scripts of the report.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
from tubelet import build_model
from tubelet.config.compose import conf_directory
import tubelet
assert conf_directory().parent == __import__("pathlib").Path(tubelet.__file__).parent, conf_directory()
import hydra_plugins.tubelet_optuna as plugin
assert plugin.__file__.startswith(sys.path[0]), plugin.__file__
from tubelet.report.page import page
assert "charts" in page(conf_directory(), "")  # with its style and scripts
print(type(build_model("encoder=vit_tiny", "encoder.depth=1")).__name__)
"""


@pytest.mark.slow
def test_a_wheel_brings_its_configs(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True, timeout=250)
    (wheel,) = tmp_path.glob("tubelet-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=250)
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{CODE}"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=250,
    )  # fmt: skip
    assert found.stdout.strip() == "MaskedModel"
