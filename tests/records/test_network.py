"""The plan's part on networks is read where torch must not be imported."""

import subprocess
import sys


def test_reading_a_network_plan_does_not_import_torch() -> None:
    code = "import sys; from autocrossdim.records.network import NetworkPlan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_gives_its_names() -> None:
    import autocrossdim.networks as networks

    assert callable(networks.inflate)
    assert all(hasattr(networks, name) for name in networks.__all__)
    assert not hasattr(networks, "no_such_thing")
