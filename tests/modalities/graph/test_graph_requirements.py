"""What is said where a package is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            "sys.modules['pymetis'] = None",
            'graphs need pymetis, which is not installed: pip install "jepa-lightning[graph]"',
        ),
        (
            "sys.modules['torch_geometric'] = None",
            'graphs need torch-geometric, which is not installed: pip install "jepa-lightning[graph]"',
        ),
        (
            "class Broken:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'torch_geometric': raise OSError('undefined symbol')\n"
            "sys.meta_path.insert(0, Broken())",
            'graphs need PyG and pymetis, which do not load (undefined symbol): pip install "jepa-lightning[graph]"',
        ),
    ],
)
def test_one_line(prepare, message):
    code = (
        f"import sys\n{prepare}\ntry:\n    import modalities.graph.requirements\nexcept ImportError as e:\n    print(e)"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == message
