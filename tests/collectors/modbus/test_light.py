from __future__ import annotations

import subprocess
import sys


def test_checking_a_configuration_loads_no_library() -> None:
    code = (
        "import sys; from collectors.registry import collector_type; from collectors.api import Context;"
        "t = collector_type('modbus');"
        "c = t.config_model.model_validate({'name': 'd', 'type': 'modbus', 'url': 'tcp://h',"
        " 'tags': [{'name': 't', 'address': '40001', 'type': 'int16'}]});"
        "t.estimate(c); t.explain(c); t.create(c, Context()).tags();"
        "print([m for m in ('pymodbus', 'asyncua', 'serial') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
