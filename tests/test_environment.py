"""What other processes inherit."""

import subprocess
import sys

import kerassl
from kerassl.environment import child_variables
from tests.backends import once

pytestmark = once


def test_another_process_runs_no_files_of_the_working_directory(
    tmp_path, monkeypatch
):
    for name in ("kerassl", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    # The package is found though it isn't installed.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "kerassl", "--version"],
        cwd=tmp_path,
        env=child_variables(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"kerassl {kerassl.__version__}\n", done.stderr
