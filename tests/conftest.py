"""Where the tests find real data and the authors' figures; both may be absent."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("IRSTD_EDGE_DATA", ROOT.parent / "shared" / "data"))
GOLDEN = Path(os.environ.get("IRSTD_EDGE_GOLDEN", ROOT.parent / "shared" / "golden"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds NUDT-SIRST and NUAA-SIRST."""
    if not (DATA / "NUDT-SIRST").is_dir():
        pytest.skip(f"no NUDT-SIRST in {DATA}: set IRSTD_EDGE_DATA")
    return DATA


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of figures that the MSHNet authors' own code gave."""
    if not (GOLDEN / "mshnet_reference.json").is_file():
        pytest.skip(f"no mshnet_reference.json in {GOLDEN}: set IRSTD_EDGE_GOLDEN")
    return GOLDEN
